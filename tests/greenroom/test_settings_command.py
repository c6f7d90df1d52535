import json
import sys
from pathlib import Path

import pytest

from greenroom import cli
from greenroom.errors import GreenroomError, SettingsError
from greenroom.serving_command import understood
from greenroom.settings_command import values_in_force


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_force(folder: Path, *arguments: str, **environ: str) -> dict[str, tuple[str, str]]:
    return {value.name: (value.value, value.source) for value in values_in_force(arguments, environ, folder)}


def test_each_value_says_where_it_comes_from(folder: Path) -> None:
    (folder / ".flaskenv").write_text("GREENROOM_BACKLOG=10\nGREENROOM_DNS_THREADS=3\n")
    (folder / ".env").write_text("GREENROOM_BACKLOG=11\nGREENROOM_KEEPALIVE_SECONDS=6\nGREENROOM_ADMISSION=off\n")
    (folder / "gunicorn.conf.py").write_text("keepalive = 7\nworkers = 3\ngraceful_timeout = 8\n")

    found = in_force(
        folder, "shop:app", "--workers", "5", GREENROOM_ADMISSION="on", GUNICORN_CMD_ARGS="--graceful-timeout 9"
    )

    assert found["GREENROOM_DNS_THREADS"] == ("3", ".flaskenv")
    assert found["GREENROOM_BACKLOG"] == ("11", ".env")
    assert found["GREENROOM_ADMISSION"] == ("on", "environment")
    assert found["GREENROOM_KEEPALIVE_SECONDS"] == ("7", "gunicorn.conf.py")
    assert found["GREENROOM_GRACEFUL_TIMEOUT_SECONDS"] == ("9", "GUNICORN_CMD_ARGS")
    assert found["WEB_CONCURRENCY"] == ("5", "command line")
    assert found["GREENROOM_STALL_THRESHOLD_MILLISECONDS"] == ("100", "default")


def test_a_named_configuration_counts_and_a_missing_one_is_said(folder: Path) -> None:
    (folder / "other.py").write_text("backlog = 12\n")

    assert in_force(folder, "-c", "other.py")["GREENROOM_BACKLOG"] == ("12", "other.py")
    with pytest.raises(GreenroomError, match="there is no configuration file missing.py"):
        in_force(folder, "-c", "missing.py")


def test_a_configuration_is_found_wherever_gunicorn_finds_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "deployment").mkdir()
    (folder / "deployment" / "live.py").write_text("backlog = 13\n")
    (folder / "cmd.py").write_text("backlog = 14\n")
    monkeypatch.setattr(sys, "path", list(sys.path))

    assert in_force(folder, "-c", "file:cmd.py")["GREENROOM_BACKLOG"] == ("14", "cmd.py")
    assert in_force(folder, "-c", "python:deployment.live")["GREENROOM_BACKLOG"] == ("13", "python:deployment.live")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "-c cmd.py --keep-alive 3")
    assert in_force(folder, GUNICORN_CMD_ARGS="-c cmd.py --keep-alive 3")["GREENROOM_BACKLOG"] == ("14", "cmd.py")
    for missing in ("python:deployment.no_such", "python:no_such"):
        with pytest.raises(GreenroomError, match=f"there is no module {missing.removeprefix('python:')}"):
            in_force(folder, "-c", missing)


def test_port_alone_is_the_address_as_platforms_mean_it(folder: Path) -> None:
    assert in_force(folder, PORT="5000")["GREENROOM_BIND"] == ("0.0.0.0:5000", "PORT")
    assert in_force(folder, PORT="5000", GREENROOM_BIND="127.0.0.1:1")["GREENROOM_BIND"] == (
        "127.0.0.1:1",
        "environment",
    )
    assert in_force(folder, PORT="tcp://10.0.0.1:80")["GREENROOM_BIND"] == ("127.0.0.1:8000", "default")


def test_as_many_workers_as_cores_are_a_number(folder: Path) -> None:
    value, source = in_force(folder)["WEB_CONCURRENCY"]

    assert int(value) >= 1
    assert source == "default: the cores of this process"


def test_wrong_ones_are_listed_at_once_wherever_they_stand(folder: Path) -> None:
    (folder / "gunicorn.conf.py").write_text("timeout = 'long'\n")

    with pytest.raises(SettingsError) as caught:
        in_force(folder, GREENROOM_BAKLOG="1", GREENROOM_DNS_THREADS="many")

    problems = "\n".join(caught.value.problems)
    assert "GREENROOM_DNS_THREADS must be" in problems
    assert "did you mean GREENROOM_BACKLOG?" in problems
    assert "timeout in gunicorn.conf.py is wrong" in problems


def test_a_configuration_that_raises_is_one_sentence(folder: Path) -> None:
    (folder / "gunicorn.conf.py").write_text("import no_such_module\n")

    with pytest.raises(GreenroomError, match="gunicorn.conf.py can't be read: ModuleNotFoundError"):
        in_force(folder)


def test_a_secret_is_not_shown(folder: Path) -> None:
    found = in_force(folder, GREENROOM_OPS_TOKEN="0123456789abcdefghijklmn")

    assert found["GREENROOM_OPS_TOKEN"] == ("(set, not shown)", "environment")


@pytest.mark.usefixtures("folder")
def test_the_command_prints_json_and_fails_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["settings", "--json", "--workers", "4"]) == 0
    settings = json.loads(capsys.readouterr().out)["settings"]
    assert {"name": "WEB_CONCURRENCY", "value": "4", "source": "command line"} in settings

    monkeypatch.setenv("GREENROOM_BAKLOG", "1")
    assert cli.main(["settings"]) == 2
    assert "1 setting to correct" in capsys.readouterr().err


def test_what_another_command_does_not_know_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["top", "--no-such-option"])

    assert caught.value.code == 2
    assert "unrecognized arguments: --no-such-option" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["zero", ""])
def test_a_worker_count_that_gunicorn_cannot_read_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.delitem(sys.modules, "gunicorn.config", raising=False)
    monkeypatch.setenv("WEB_CONCURRENCY", given)

    with pytest.raises(SettingsError, match=f"WEB_CONCURRENCY must be a whole number .got '{given}'"):
        understood(["shop:app"])
    with pytest.raises(SettingsError, match="WEB_CONCURRENCY must be a whole number"):
        in_force(folder, "shop:app")


def test_a_file_of_paste_deploy_names_the_application(folder: Path) -> None:
    request = understood(["--paste", "shop.ini", "--workers", "2"])

    assert (request.app, request.paste) == ("", "shop.ini")
    assert request.arguments == ("--paste", "shop.ini", "--workers", "2")


def test_a_wrong_option_of_gunicorns_is_told_without_the_list_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        understood(["shop:app", "--threads", "many"])

    said = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert said[1:] == ["greenroom serve: error: argument --threads: invalid int value: 'many'"]
