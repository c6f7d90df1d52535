"""`pytest -p greenroom.pytest`: an application's own tests in a process that is patched as the server patches.

    pytest -p greenroom.pytest                              before conftest.py and everything it imports
    pytest -p greenroom.pytest -n 4                         pytest-xdist's processes, too
    pytest -p greenroom.pytest --greenroom-stalls 50ms      and says which tests stop the loop or leave something behind
    pytest -p greenroom.pytest --greenroom-stalls 50ms --greenroom-strict     and fails then

Settings are those of the environment and of `.env`, as for the server.
"""

import dataclasses
import os
import re
import site
import sys
import sysconfig
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from . import early_hook, patching
from .errors import GreenroomError, PatchedTooLate
from .settings import Settings, read_env_files

PROPERTY = "greenroom"
# Set in the process that was started anew: it is not done twice.
AGAIN = "_GREENROOM_PYTEST_AGAIN"
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")


def _begin() -> None:
    """Patch this process; where something was imported before this plug-in, start it anew and patch first of all."""
    is_second = os.environ.pop(AGAIN, "") == "1"
    try:
        settings = Settings.read({**read_env_files(Path.cwd()), **os.environ})
        patching.patch(dataclasses.replace(settings, worker_class="greenroom"))
    except PatchedTooLate as exc:
        if is_second or Path(sys.argv[0]).name not in ("pytest", "py.test", "__main__.py"):
            raise pytest.UsageError(str(exc)) from exc
        environ = {**os.environ, AGAIN: "1"}
        early_hook.put_first(environ)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environ)
    except GreenroomError as exc:
        raise pytest.UsageError(str(exc)) from exc


_begin()

# They take the patched names.
from .testing import xdist  # noqa: E402
from .testing.leftovers import Leftovers  # noqa: E402
from .testing.slices import Slices  # noqa: E402

xdist.install()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("greenroom")
    group.addoption(
        "--greenroom-stalls",
        metavar="TIME",
        default="",
        help="say which tests run for longer than this (50ms, 0.5s) without letting anybody else run, and which leave "
        "a thread, greenlet, lock, listener or database connection behind",
    )
    group.addoption("--greenroom-strict", action="store_true", help="exit with 1 when there are such tests")


def pytest_configure(config: pytest.Config) -> None:
    _allowed_seconds(config)  # what is wrong with it is said before the first test


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    xdist.prepare()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """From before the test's fixtures until after them: fixtures that stay are the session's, and were there before."""
    if not _allowed_seconds(item.config):
        return (yield)
    item.stash[LEFTOVERS] = Leftovers()
    try:
        return (yield)
    finally:
        item.stash[LEFTOVERS].stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    allowed = _allowed_seconds(item.config)
    if not allowed:
        return (yield)
    slices = Slices(allowed, _is_applications)
    try:
        with slices:
            return (yield)
    finally:
        if slices.longest is not None:
            where = slices.longest.where or "a line that nobody saw"
            item.user_properties.append(
                (PROPERTY, f"stops the loop for {slices.longest.seconds * 1000:.0f} ms: {where}")
            )


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        if LEFTOVERS in item.stash:
            item.user_properties.extend((PROPERTY, f"leaves behind: {said}") for said in item.stash[LEFTOVERS].found())


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """In xdist's case in pytest's own process as well: what the others found comes with their reports."""
    if report.when == "teardown":
        FINDINGS.extend((report.nodeid, str(value)) for name, value in report.user_properties if name == PROPERTY)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if FINDINGS:
        terminalreporter.section("greenroom: what would hurt a server")
        for nodeid, said in FINDINGS:
            terminalreporter.write_line(f"{nodeid} {said}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if FINDINGS and session.config.getoption("--greenroom-strict") and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


LEFTOVERS: pytest.StashKey[Leftovers] = pytest.StashKey()
FINDINGS: list[tuple[str, str]] = []
LIBRARIES = (*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), *site.getsitepackages())
OURS = str(Path(__file__).resolve().parent)


def _is_applications(filename: str) -> bool:
    return not filename.startswith(("<", OURS, *LIBRARIES))


def _allowed_seconds(config: pytest.Config) -> float:
    """0: nothing is looked at."""
    text = config.getoption("--greenroom-stalls")
    if not text:
        return 0.0
    match = DURATION.fullmatch(text)
    if match is None or not float(match[1]):
        raise pytest.UsageError(f"--greenroom-stalls must look like 50ms or 0.5s (got {text!r})")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)
