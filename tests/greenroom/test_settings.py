from dataclasses import fields
from pathlib import Path

import pytest

from greenroom.errors import SettingsError
from greenroom.settings import Settings, environment_name, read_environment, rows
from greenroom.settings.reading import tell_of_gone


def problems(environ: dict[str, str]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        Settings.read(environ)
    return caught.value.problems


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Settings.read({}) == Settings()


def test_an_empty_value_counts_as_unset() -> None:
    assert Settings.read({"GREENROOM_BACKLOG": " "}).backlog == 2048


def test_every_wrong_value_is_reported_in_one_go() -> None:
    found = problems({"GREENROOM_BACKLOG": "many", "GREENROOM_PATCH": "perhaps", "GREENROOM_WORKER_CLASS": "tornado"})

    assert len(found) == 3
    assert found[0].startswith("GREENROOM_WORKER_CLASS must be one of")
    assert any(problem.startswith("GREENROOM_BACKLOG must be a whole number, 1 to 65535") for problem in found)
    assert "GREENROOM_PATCH must be yes or no (got 'perhaps')" in found


def test_a_setting_of_an_older_version_is_told_of_and_starts(caplog: pytest.LogCaptureFixture) -> None:
    tell_of_gone.cache_clear()

    assert Settings.read({"GREENROOM_QUEUE_TIMEOUT_MILLISECONDS": "500"}) == Settings()

    assert "GREENROOM_QUEUE_TIMEOUT_MILLISECONDS has no effect any more" in caplog.text


def test_an_unknown_name_is_an_error_that_offers_the_nearest_one() -> None:
    assert problems({"GREENROOM_BAKLOG": "1"}) == ("GREENROOM_BAKLOG is unknown; did you mean GREENROOM_BACKLOG?",)


@pytest.mark.parametrize("item", [item for item in fields(Settings) if item.metadata["low"] is not None])
def test_both_ends_of_a_range_are_inside_and_the_next_numbers_outside(item) -> None:
    name = environment_name(item.name)
    low, high = item.metadata["low"], item.metadata["high"]
    needed = {"GREENROOM_MAX_REQUESTS": "1"} if item.name == "max_requests_jitter" else {}

    for inside in (low, high):
        assert getattr(Settings.read({**needed, name: str(inside)}), item.name) == inside
    for outside in (low - 1, high + 1):
        assert problems({**needed, name: str(outside)})


@pytest.mark.parametrize("item", fields(Settings))
def test_every_default_is_allowed_and_has_a_sentence(item) -> None:
    metadata = item.metadata

    assert metadata["about"].endswith(".")
    if metadata["low"] is not None:
        assert metadata["low"] <= item.default <= metadata["high"]
    if metadata["choices"]:
        assert item.default in metadata["choices"]


def test_a_certificate_without_its_key_is_refused(tmp_path: Path) -> None:
    certificate = tmp_path / "cert.pem"
    certificate.touch()

    found = problems({"GREENROOM_TLS_CERTIFICATE": str(certificate)})

    assert found == ("GREENROOM_TLS_CERTIFICATE and GREENROOM_TLS_KEY must be set together",)


def test_a_certificate_that_is_not_there_is_named() -> None:
    found = problems({"GREENROOM_TLS_CERTIFICATE": "/no/cert.pem", "GREENROOM_TLS_KEY": "/no/key.pem"})

    assert found[0] == "GREENROOM_TLS_CERTIFICATE names a file that can't be read: /no/cert.pem"


def test_jitter_without_a_limit_is_refused() -> None:
    assert "no meaning" in problems({"GREENROOM_MAX_REQUESTS_JITTER": "10"})[0]


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file = tmp_path / ".env"
    env_file.write_text("GREENROOM_BACKLOG=1\nGREENROOM_THREADS=2\n")
    monkeypatch.setenv("GREENROOM_BACKLOG", "3")

    environ = read_environment(env_file)

    assert (environ["GREENROOM_BACKLOG"], environ["GREENROOM_THREADS"]) == ("3", "2")


def test_rows_tell_name_default_and_range() -> None:
    row = next(row for row in rows() if row.name == "GREENROOM_BACKLOG")

    assert (row.default, row.allowed) == ("2048", "1 to 65535")


@pytest.mark.parametrize(
    ("chosen", "connections"),
    [
        ({}, 10_000),
        ({"worker_connections": 400}, 400),
        ({"limit_requests": 250}, 250),
        ({"limit_requests": 8}, 100),
        ({"limit_requests": 250, "upstream_connections": 7}, 7),
    ],
)
def test_an_upstream_gets_a_connection_for_each_request_in_flight(chosen: dict[str, int], connections: int) -> None:
    assert Settings(**chosen).most_upstream_connections == connections
