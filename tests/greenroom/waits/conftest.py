"""What tests of several kinds of waits need."""

import pytest

from tests.support import self_signed


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for localhost and 127.0.0.1 that signed itself, and its key: two files."""
    pem, key = self_signed(tmp_path_factory.mktemp("tls"))
    return str(pem), str(key)
