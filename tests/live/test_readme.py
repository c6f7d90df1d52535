"""The README's examples, run as written, in a terminal, against the server as its first command starts it."""

import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, Server, clean_environment, free_port

README = (ROOT / "README.md").read_text()
PORT = 8000  # the one in the README
ACTIVATE = ". .venv/bin/activate"


def commands(section: str) -> list[str]:
    """The lines after `$ ` in a section's console blocks."""
    text = README.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    return re.findall(r"^\$ (.+)$", text, re.MULTILINE)


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Terminal"]:
    folder = tmp_path_factory.mktemp("readme")
    port = PORT if is_free(PORT) else free_port()
    environ = {
        "INSTANCE_PATH": str(folder / "instance"),
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{free_port()}",  # the README's is shared by the whole machine
    }
    server = Server([*PYTHON_MODULE, "gunicorn"], environ, folder / "server.log", port).wait_ready()
    (folder / "config.json").write_text('{"default_options": ["--check-status"]}')
    yield Terminal({**environ, "HTTPIE_CONFIG_DIR": str(folder)}, port)
    server.stop()


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Terminal:
    """A shell in the project's folder; what a command exports stays. Its venv is the one that runs the tests."""

    def __init__(self, environ: dict[str, str], port: int) -> None:
        others = [folder for folder in os.environ["PATH"].split(os.pathsep) if Path(folder) != Path(sys.prefix, "bin")]
        self.environ = {**clean_environment(), **environ, "PATH": os.pathsep.join(others)}
        self.port = port
        self.run(ACTIVATE)

    def run(self, command: str) -> str:
        """What `command` prints. It must succeed; HTTPie fails on a status of 400 or more."""
        line = command.replace(f":{PORT}", f":{self.port}").replace(ACTIVATE, f". {sys.prefix}/bin/activate")
        line += "\nstatus=$?; env -0 >&3; exit $status"
        keyboard, tty = pty.openpty()  # HTTPie would take a standard input that is no terminal for the body
        read_end, write_end = os.pipe()
        try:
            result = subprocess.run(
                ["bash", "-c", f"exec 3>&{write_end}\n{line}"],
                cwd=ROOT,
                env=self.environ,
                stdin=tty,
                capture_output=True,
                text=True,
                timeout=LONG_WAIT_SECONDS,
                pass_fds=[write_end],
            )
            os.close(write_end)
            write_end = -1
            with os.fdopen(read_end, "rb") as exported:
                pairs = exported.read().decode().rstrip("\0").split("\0")
        finally:
            os.close(keyboard)
            os.close(tty)
            if write_end >= 0:
                os.close(write_end)
        assert result.returncode == 0, f"$ {command}\n{result.stdout}\n{result.stderr}"
        self.environ = dict(pair.split("=", 1) for pair in pairs)
        return result.stdout


def test_the_first_look_works_as_written(terminal: Terminal) -> None:
    activate, *others = commands("A first look")
    printed = [terminal.run(command) for command in others]

    assert activate == ACTIVATE
    assert len(printed) >= 10
    assert '"board":"demo"' in printed[0]
    assert "event: done" in printed[1]


def test_looking_inside_works_as_written(terminal: Terminal) -> None:
    ops, stacks = (terminal.run(command) for command in commands("Look inside"))

    assert ops.startswith(f"http://{terminal.environ['GREENROOM_OPS_BIND']}/\n")
    assert "main thread" in stacks


def test_the_cron_commands_work_as_written(terminal: Terminal) -> None:
    for command in ("flask jobs refresh", "flask jobs purge"):
        assert f"`{command}`" in README
        terminal.run(command)


def test_the_settings_are_printed_and_checked_as_written(terminal: Terminal) -> None:
    assert "`python -m greenroom settings` and `python -m app.config`" in README

    assert "GREENROOM_BACKLOG=2048" in terminal.run("python -m greenroom settings")
    assert "settings are fine" in terminal.run("python -m app.config")
