"""Start-up says everything that is wrong at once, and starts nothing then."""

import contextlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from devdb.cluster import Cluster

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, Server, clean_environment, wait_until

GUNICORN = (*PYTHON_MODULE, "gunicorn")
SERVE = (*PYTHON_MODULE, "greenroom", "serve")


@pytest.mark.parametrize("named", [{}, {"WSGI_APP": "app:create_app()"}], ids=["default", "named"])
@pytest.mark.parametrize("command", [GUNICORN, SERVE], ids=["gunicorn", "serve"])
def test_every_wrong_setting_of_server_and_application_is_listed_in_one_start(
    start: Callable[..., Server], command: tuple[str, ...], named: dict[str, str]
) -> None:
    wrong = {"GREENROOM_KEEPALIVE_SECONDS": "never", "GREENROOM_BAKLOG": "1", "DB_POOL_SIZE": "0", "MAIL_PORT": "smtp"}

    server = start(wrong | named, command)

    assert server.wait_gone() == 2
    for name in ("GREENROOM_KEEPALIVE_SECONDS", "GREENROOM_BAKLOG", "DB_POOL_SIZE", "MAIL_PORT"):
        assert name in server.text()
    assert "Traceback" not in server.text()


@pytest.mark.parametrize("command", [GUNICORN, SERVE], ids=["gunicorn", "serve"])
def test_wrong_settings_of_the_application_alone_stop_the_start(
    start: Callable[..., Server], tmp_path: Path, command: tuple[str, ...]
) -> None:
    server = start({"DB_POOL_SIZE": "0", "HISTORY_DAYS": "-1"}, command)

    assert server.wait_gone() != 0
    assert "DB_POOL_SIZE" in server.text()
    assert "HISTORY_DAYS" in server.text()
    assert "Traceback" not in server.text()
    assert not (tmp_path / "instance" / "postgres").exists()


def test_production_refuses_to_start_without_its_secrets(start: Callable[..., Server]) -> None:
    server = start({"APP_ENV": "production", "SECRET_KEY": "change-me"})

    assert server.wait_gone() != 0
    for name in ("SECRET_KEY", "DATABASE_URL", "PUBLIC_URL", "MAIL_SERVER"):
        assert name in server.text()


@pytest.mark.parametrize(("set_class", "flag"), [("gevent", "gthread"), ("gthread", "gevent")])
def test_a_worker_class_that_the_patching_does_not_fit_is_refused(
    start: Callable[..., Server], set_class: str, flag: str
) -> None:
    server = start({"GREENROOM_WORKER_CLASS": set_class}, (*PYTHON_MODULE, "gunicorn", "-k", flag))

    assert server.wait_gone() != 0
    assert f"set GREENROOM_WORKER_CLASS={flag} instead of -k" in server.text()


def test_an_early_import_is_refused_by_name(tmp_path: Path) -> None:
    """As when a monitoring agent starts the server and has imported `requests` itself."""
    agent = tmp_path / "agent.py"
    agent.write_text(
        "import sys\nimport requests\nsys.argv = ['gunicorn']\nfrom gunicorn.app.wsgiapp import run\nrun()\n"
    )

    result = subprocess.run(
        [PYTHON_MODULE[0], str(agent)],
        cwd=ROOT,
        env={**clean_environment(), "PYTHONPATH": str(ROOT), "INSTANCE_PATH": str(tmp_path / "instance")},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
    )

    assert result.returncode != 0
    assert "too late to patch" in result.stderr
    assert "urllib3" in result.stderr


def companions(server: Server) -> list[psutil.Process]:
    """Those that run: one that was killed stays for a moment."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "devdb.prepare" in child.cmdline():
                found.append(child)
    return found


@pytest.mark.parametrize("is_back", [True, False], ids=["started again", "killed right before the stop"])
def test_killed_companion_comes_back_and_leaves_no_postmaster_at_the_stop(
    start: Callable[..., Server], tmp_path: Path, is_back: bool
) -> None:
    server = start({"WEB_CONCURRENCY": "1"}).wait_ready()
    cluster = Cluster(tmp_path / "instance" / "postgres")
    [companion] = companions(server)
    assert cluster.postmaster() is not None

    companion.kill()
    if is_back:
        wait_until(lambda: [each for each in companions(server) if each.pid != companion.pid], "it is started again")
        server.wait_ready()
    server.stop()

    assert cluster.postmaster() is None, server.text()
