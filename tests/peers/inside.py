"""One run of one suite, in a process of its own that is patched first: `inside.py WAY OUT KIND ARGUMENTS`.

Each test's outcome becomes a line of JSON in OUT. A test that takes too long ends the process: where everybody waits
for ever nothing else helps. Tests that are in OUT already are not run again, so whoever started this starts it again.
"""

# ruff: noqa: E402
import sys

WAY, OUT, KIND, *ARGUMENTS = sys.argv[1:]
sys.argv[1:] = []
del sys.path[0]  # our own folder
del __file__  # or the processes that multiprocessing spawns would run this again
if WAY == "greenroom":
    from greenroom import patching
    from greenroom.settings import Settings

    patching.patch(Settings())
elif WAY == "gevent":
    from gevent import monkey

    monkey.patch_all()

import faulthandler
import json
import os
import time
import traceback
import unittest
from typing import Any

from gevent import monkey

# In this process nothing that is patched may be relied on.
start_thread = monkey.get_original("_thread", "start_new_thread")
real_sleep = monkey.get_original("time", "sleep")
real_fork = monkey.get_original("os", "fork")

LONGEST_SECONDS = float(os.environ.get("PEERS_LONGEST_SECONDS", "60"))
# Of these tests only; None: of all.
TESTS = set(json.loads(os.environ["PEERS_TESTS"])) if "PEERS_TESTS" in os.environ else None
PID = os.getpid()


class Outcomes:
    """The outcome of each test; kept in a file, line by line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.known: dict[str, str] = {}
        if os.path.exists(path):
            with open(path) as file:
                self.known = {line["test"]: line["outcome"] for line in map(json.loads, file)}
        self.running: tuple[str, float] | None = None

    def begin(self, test: str) -> None:
        self.running = (test, time.monotonic())
        self.add(test, "crashed", "")  # unless something else is said later

    def add(self, test: str, outcome: str, why: str) -> None:
        if os.getpid() == PID:  # tests fork, too
            with open(self.path, "a") as file:
                file.write(json.dumps({"test": test, "outcome": outcome, "why": why[-2000:]}) + "\n")

    def end(self, test: str, outcome: str, why: str = "") -> None:
        self.running = (f"after {test}", time.monotonic())  # what is torn down may hang, too
        self.known[test] = outcome
        self.add(test, outcome, why)

    def is_wanted(self, test: str) -> bool:
        return test not in self.known and (TESTS is None or test in TESTS)

    def watch(self) -> None:
        """Runs on: a real thread."""
        while True:
            real_sleep(0.5)
            running = self.running
            if running is not None and time.monotonic() - running[1] > LONGEST_SECONDS:
                faulthandler.dump_traceback()
                self.add(running[0], "hung", "")
                os._exit(3)


outcomes = Outcomes(OUT)


class Result(unittest.TestResult):
    """unittest's results, noted. A test is as bad as the worst of its parts."""

    outcome, why = "passed", ""

    def startTest(self, test: Any) -> None:
        super().startTest(test)
        self.outcome, self.why = "passed", ""
        outcomes.begin(test.id())

    def stopTest(self, test: Any) -> None:
        super().stopTest(test)
        outcomes.end(test.id(), self.outcome, self.why)

    def _note(self, test: Any, outcome: str, err: Any) -> None:
        self.outcome = outcome
        self.why = "".join(traceback.format_exception(*err)) if isinstance(err, tuple) else str(err)
        if isinstance(test, unittest.suite._ErrorHolder):
            outcomes.end(test.id(), outcome, self.why)

    def addError(self, test: Any, err: Any) -> None:
        super().addError(test, err)
        self._note(test, "failed", err)

    def addFailure(self, test: Any, err: Any) -> None:
        super().addFailure(test, err)
        self._note(test, "failed", err)

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        super().addSubTest(test, subtest, err)
        if err is not None:
            self._note(test, "failed", err)

    def addSkip(self, test: Any, reason: str) -> None:
        super().addSkip(test, reason)
        self._note(test, "skipped", reason)

    def addUnexpectedSuccess(self, test: Any) -> None:
        super().addUnexpectedSuccess(test)
        self._note(test, "failed", "unexpected success")


def without_known(suite: Any) -> unittest.TestSuite:
    kept = unittest.TestSuite()
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            kept.addTest(without_known(test))
        elif outcomes.is_wanted(test.id()):
            kept.addTest(test)
    return kept


def run_unittest(names: list[str]) -> None:
    whole = " ".join(names)
    if whole in outcomes.known:
        return  # it hung
    outcomes.running = (whole, time.monotonic())
    try:
        suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    except unittest.SkipTest as skip:  # the whole module, as it is imported
        outcomes.end(whole, "skipped", str(skip))
        return
    outcomes.running = None
    without_known(suite).run(Result())


def run_cpython(names: list[str]) -> None:
    from test import support

    support.use_resources = ["cpu", "subprocess", "walltime"]
    run_unittest([f"test.{name}" for name in names])


class Plugin:
    """The same of pytest's."""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if outcomes.is_wanted(item.nodeid)]

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            outcomes.end(report.nodeid, "failed", str(report.longrepr))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.outcome, self.why = "passed", ""
        outcomes.begin(nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.outcome != "passed" and self.outcome != "failed":
            self.outcome, self.why = report.outcome, str(report.longrepr)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        outcomes.end(nodeid, self.outcome, self.why)


def run_pytest(arguments: list[str]) -> None:
    import pytest

    ended = pytest.main(["-p", "no:cacheprovider", "-q", *arguments], plugins=[Plugin()])
    if ended in (pytest.ExitCode.INTERNAL_ERROR, pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERRUPTED):
        outcomes.end(" ".join(arguments), "not run", f"pytest: {ended.name}")


if __name__ == "__main__":
    sys.path.append(os.environ.get("PEERS_NEEDS", "."))  # after what is installed, which is what is to be tested
    start_thread(outcomes.watch, ())
    {"unittest": run_unittest, "cpython": run_cpython, "pytest": run_pytest}[KIND](ARGUMENTS)
    os._exit(0)
