"""The embedded PostgreSQL, for real: each test starts, kills or shares a server of its own."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from devdb.cluster import Cluster
from devdb.server import EmbeddedPostgres


@pytest.fixture(scope="module")
def cluster_folder() -> Iterator[Path]:
    """A data folder for the tests of this file: making one takes longer than starting it five times."""
    base = Path(tempfile.mkdtemp(prefix="boards-test-"))
    Cluster(base / "postgres").create()
    yield base / "postgres"
    shutil.rmtree(base)


@pytest.fixture
def postgres(cluster_folder: Path) -> Iterator[EmbeddedPostgres]:
    """A handle on that folder's server, which is down; it is brought down again."""
    handle = EmbeddedPostgres(cluster_folder)
    yield handle
    handle.stop()
    handle.cluster.stop()
