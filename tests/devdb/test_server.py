"""Refusals of the embedded PostgreSQL before anything is started. tests/live/devdb has the rest."""

from pathlib import Path

import pytest

from devdb.server import EmbeddedPostgres, EmbeddedPostgresError


def test_folder_that_cannot_be_written_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(EmbeddedPostgresError, match=r"Set DATABASE_URL to a PostgreSQL of your own, or INSTANCE_PATH"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").start()


def test_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "thesis.txt").write_text("five years of work")

    with pytest.raises(EmbeddedPostgresError, match="is not a PostgreSQL data folder, and not empty"):
        EmbeddedPostgres(tmp_path / "postgres").start()

    assert (tmp_path / "postgres" / "thesis.txt").read_text() == "five years of work"


def test_data_of_another_version_is_refused_before_it_is_touched(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("15\n")

    with pytest.raises(EmbeddedPostgresError, match=r"made by PostgreSQL 15, this is 18"):
        EmbeddedPostgres(tmp_path / "postgres").start()
