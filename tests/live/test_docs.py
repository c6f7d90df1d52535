"""The examples of the documentation, run as written, in a terminal; what a page says they print is what they print.

docs.RUN_AS_WRITTEN names the sections. Only ports and the virtual environment are others than on the page.
"""

import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import docs

from .conftest import LONG_WAIT_SECONDS, PYTHON_MODULE, ROOT, Server, clean_environment, free_port, wait_until

# The ports on the pages.
PORT, OPS_PORT = 8000, 8001
ACTIVATE = ". .venv/bin/activate"
SERVE = "greenroom serve "
# The verdict is about the machine, too, which other programs may use up while tests run.
VERDICT = re.compile(r"^Healthy.*")


def section(page: str, heading: str) -> str:
    assert (page, heading) in docs.RUN_AS_WRITTEN
    return dict(docs.sections((ROOT / page).read_text()))[heading]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


class Terminal:
    """A shell in a folder; what a command exports stays. Its virtual environment is the one that runs the tests."""

    def __init__(self, folder: Path, environ: dict[str, str], port: int, ops_port: int) -> None:
        bin_folder = Path(sys.prefix, "bin")
        others = [entry for entry in os.environ["PATH"].split(os.pathsep) if Path(entry) != bin_folder]
        self.environ = {
            **clean_environment(),
            **environ,
            "GREENROOM_BIND": f"127.0.0.1:{port}",
            "GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}",
            "PATH": os.pathsep.join(others),
        }
        self.folder = folder
        self.ports = {PORT: port, OPS_PORT: ops_port}
        self.servers: list[Server] = []
        self.run(ACTIVATE)

    def here(self, text: str) -> str:
        """`text` of a page with the ports and the environment that are used instead."""
        for port, used in self.ports.items():
            text = re.sub(rf":{port}\b", f":{used}", text)
        return text.replace(ACTIVATE, f". {sys.prefix}/bin/activate")

    def run(self, command: str) -> str:
        """Return the output of `command`. It must succeed; HTTPie fails on a status of 400 or more."""
        line = self.here(command) + "\nstatus=$?; env -0 >&3; exit $status"
        keyboard, tty = pty.openpty()  # HTTPie would take a standard input that is no terminal for the body
        read_end, write_end = os.pipe()
        try:
            result = subprocess.run(
                ["bash", "-c", f"exec 3>&{write_end}\n{line}"],
                cwd=self.folder,
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

    def serve(self, command: str, expected: list[str]) -> Server:
        """Run a server of the page beside the commands that follow, and wait until it has said what it should."""
        log = self.folder / f"server-{len(self.servers)}.log"
        server = Server(["bash", "-c", f"exec {command}"], self.environ, log, self.ports[PORT], cwd=self.folder)
        self.servers.append(server)
        lines = [self.here(line) for line in expected] or ["...the page is on..."]
        wait_until(lambda: says(server.text(), lines), f"{lines}; it said {server.text()}")
        return server

    def run_section(self, text: str) -> list[str]:
        """Run each command of a section, and compare; a server runs until the terminal is closed."""
        printed = []
        for command, expected in docs.examples(text):
            if command.startswith("pip install "):
                continue  # tests/live/test_package.py
            if command.startswith(SERVE):
                self.serve(command, expected)
                continue
            printed.append(self.run(command))
            lines = [VERDICT.sub("...", self.here(line)) for line in expected]
            assert says(printed[-1], lines), f"$ {command}\n{printed[-1]}\nbut the page says\n" + "\n".join(lines)
        return printed

    def close(self) -> None:
        for server in self.servers:
            server.stop()
            print(server.text())


def says(printed: str, expected: list[str]) -> bool:
    """Whether the expected lines are printed, in their order. Numbers may be others; `...` stands for anything."""
    lines = iter(printed.splitlines())
    patterns = [
        ".*".join(re.sub(r"\d+(?:\\\.\d+)?", r"[\\d.]+", re.escape(part)) for part in line.split("..."))
        for line in expected
    ]
    return all(any(re.fullmatch(pattern, line.rstrip()) for line in lines) for pattern in patterns)


@pytest.mark.parametrize(
    ("expected", "is_said"),
    [(["a 12.5 ms"], True), (["[2026] b"], True), (["a 1 ms", "c"], False), (["b..."], False), (["...b"], True)],
)
def test_what_is_printed_is_compared_without_its_numbers(expected: list[str], is_said: bool) -> None:
    assert says("a 3.75 ms\n[1999] b\n", expected) == is_said


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """A terminal beside the reference application, as the README's first command starts it."""
    folder = tmp_path_factory.mktemp("boards")
    port = PORT if is_free(PORT) else free_port()
    (folder / "config.json").write_text('{"default_options": ["--check-status"]}')
    environ = {"INSTANCE_PATH": str(folder / "instance"), "HTTPIE_CONFIG_DIR": str(folder)}
    terminal = Terminal(ROOT, environ, port, free_port())
    server = Server([*PYTHON_MODULE, "gunicorn"], terminal.environ, folder / "server.log", port).wait_ready()
    yield terminal
    server.stop()


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Terminal]:
    """A terminal in the folder of the README's shop.py, where `greenroom` is installed."""
    (code,) = re.findall(r"^```python\n(.*?)^```$", section("README.md", "The first minute"), re.DOTALL | re.MULTILINE)
    (tmp_path / "shop.py").write_text(code)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "greenroom"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m greenroom "$@"\n')
    program.chmod(0o755)
    terminal = Terminal(tmp_path, {}, free_port(), free_port())
    terminal.environ["PATH"] = f"{tmp_path}/bin{os.pathsep}{terminal.environ['PATH']}"
    yield terminal
    terminal.close()


def test_the_first_minute_works_as_written(shop: Terminal) -> None:
    printed = shop.run_section(section("README.md", "The first minute"))

    assert len(printed) == 3


def test_the_guide_begins_as_written(shop: Terminal) -> None:
    assert len(shop.run_section(section("docs/move.md", "1. Serve it (ten minutes)"))) == 1


def test_tls_works_as_written(shop: Terminal) -> None:
    shop.run_section(section("docs/tls.md", "A certificate to try it"))
    shop.run_section(section("docs/tls.md", "In the worker itself"))

    assert '"hello":"world"' in shop.run(f"curl -s --cacert cert.pem https://localhost:{PORT}/")


@pytest.mark.timeout(600)  # a dozen commands, each of which imports the application
def test_the_first_look_works_as_written(boards: Terminal) -> None:
    printed = boards.run_section(section("docs/boards.md", "A first look"))

    assert len(printed) >= 11
    assert '"board":"demo"' in printed[1]
    assert "event: done" in printed[2]


def test_looking_inside_works_as_written(boards: Terminal) -> None:
    ops, stacks = boards.run_section(section("docs/operate.md", "Look inside"))

    assert ops.startswith(f"http://{boards.environ['GREENROOM_OPS_BIND']}/\n")
    assert "main thread" in stacks


def test_the_cron_commands_work_as_written(boards: Terminal) -> None:
    assert len(boards.run_section(section("docs/jobs.md", "Cron"))) == 2


def test_the_settings_are_printed_and_checked_as_written(boards: Terminal) -> None:
    server, application = boards.run_section(section("docs/settings.md", "Settings"))

    assert "GREENROOM_BACKLOG=2048" in server
    assert "settings are fine" in application
