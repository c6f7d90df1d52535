"""Offloading: what can't yield runs in real threads, and nobody but the loop notices."""

import contextvars
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from greenroom import clock, deadline, offload
from greenroom.errors import BudgetSpent, OffloadError, SettingsError
from greenroom.in_flight import CURRENT, Record
from greenroom.offload import Offload
from greenroom.settings import Settings
from greenroom.waits.threads import Threads

ROOT = Path(__file__).resolve().parents[2]
LONG_WAIT_SECONDS = 30.0


@pytest.fixture
def module() -> Iterator[types.ModuleType]:
    """A module `till` that is loaded, with a function in it."""
    made = types.ModuleType("till")
    made.count = lambda *args, **kwargs: (threading.get_ident(), args, kwargs)
    sys.modules["till"] = made
    yield made
    del sys.modules["till"]


@pytest.fixture
def in_request() -> Iterator[Callable[[float], Record]]:
    tokens = []

    def begin(seconds: float) -> Record:
        record = Record(arrived=clock.now(), deadline=clock.now() + seconds)
        tokens.append(CURRENT.set(record))
        return record

    yield begin
    for token in tokens:
        CURRENT.reset(token)


def install(*names: str, threads: int = 2) -> Offload:
    made = Offload(names, Threads(threads))
    made.install()
    return made


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", path + textwrap.dedent(code)], capture_output=True, text=True, timeout=90
    )


def test_a_named_function_runs_in_another_thread_with_its_arguments(module: types.ModuleType) -> None:
    install("till.count")

    thread, args, kwargs = module.count(1, b=2)

    assert thread != threading.get_ident()
    assert (args, kwargs) == ((1,), {"b": 2})


def test_the_loop_goes_on_and_no_more_threads_compute_than_set(module: types.ModuleType) -> None:
    running, most = [], []

    def block() -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.2)  # really: nothing is patched here
        running.pop()

    module.block = block
    install("till.block", threads=2)
    turns = []
    beat = gevent.spawn(lambda: [(gevent.sleep(0.005), turns.append(1)) for _ in range(10_000)])

    gevent.joinall([gevent.spawn(module.block) for _ in range(6)], timeout=LONG_WAIT_SECONDS, raise_error=True)

    beat.kill()
    assert max(most) == 2
    assert len(turns) > 10, "six calls of 0.2 s, two at a time, leave time for about a hundred turns"


def test_a_module_that_holds_the_function_by_name_gets_it_too(module: types.ModuleType) -> None:
    module.holder = types.ModuleType("holder")
    sys.modules["holder"] = module.holder
    module.holder.tally = module.count
    try:
        install("till.count")
    finally:
        del sys.modules["holder"]

    assert module.holder.tally()[0] != threading.get_ident()


def test_a_module_that_is_imported_later_is_changed_before_its_importer_sees_it(tmp_path: Path) -> None:
    (tmp_path / "press").mkdir()
    (tmp_path / "press" / "__init__.py").write_text("from .low import squeeze\n")
    (tmp_path / "press" / "low.py").write_text("import threading\ndef squeeze(): return threading.get_ident()\n")

    result = run(
        """
        import threading
        from greenroom.offload import Offload
        from greenroom.waits.threads import Threads
        offload = Offload(["press.low.squeeze"], Threads(1))
        offload.install()
        assert "press" not in sys.modules
        from press import squeeze
        import press.low
        assert squeeze() != threading.get_ident()
        assert not offload.problems()
        assert press.low.__loader__ is press.low.__spec__.loader
        assert press.low.__loader__.get_source("press.low").startswith("import threading")
        """,
        tmp_path,
    )

    assert result.returncode == 0, result.stderr


class Drawer:
    limit = 7

    def add(self, amount: int) -> tuple[int, int]:
        return threading.get_ident(), self.limit + amount

    @classmethod
    def of(cls) -> tuple[int, type]:
        return threading.get_ident(), cls

    @staticmethod
    def check() -> int:
        return threading.get_ident()

    def _inner(self) -> int:
        return threading.get_ident()


@pytest.fixture
def drawer(module: types.ModuleType) -> Any:
    module.Drawer = type("Drawer", (), dict(vars(Drawer)))
    return module.Drawer


def test_methods_of_all_kinds_are_offloaded_and_private_ones_are_not(module: types.ModuleType, drawer: Any) -> None:
    install("till.Drawer.*")

    here = threading.get_ident()
    assert drawer().add(3)[0] != here
    assert drawer().add(3)[1] == 10
    assert drawer.of()[0] != here
    assert drawer.of()[1] is drawer
    assert drawer.check() != here
    assert drawer()._inner() == here


def test_a_whole_module_is_its_own_public_functions(module: types.ModuleType) -> None:
    module.Drawer, module.dumps, module._hidden = Drawer, textwrap.dedent, lambda: threading.get_ident()
    module.count.__module__ = "till"

    install("till.*")

    assert module.count()[0] != threading.get_ident()
    assert module._hidden() == threading.get_ident()
    assert module.dumps is textwrap.dedent
    assert module.Drawer is Drawer


def test_an_error_comes_back_with_the_lines_where_it_happened(module: types.ModuleType) -> None:
    def fail() -> None:
        raise LookupError("empty")

    module.fail = fail
    install("till.fail")

    with pytest.raises(LookupError, match="empty") as caught:
        module.fail()

    assert 'raise LookupError("empty")' in "".join(traceback.format_exception(caught.value))


def test_context_variables_are_there(module: types.ModuleType) -> None:
    user = contextvars.ContextVar("user", default="nobody")
    module.who = user.get
    install("till.who")

    user.set("ann")

    assert module.who() == "ann"


def test_when_the_budget_ends_the_call_does_and_what_is_in_line_never_begins(
    module: types.ModuleType,
) -> None:
    go, calls = threading.Event(), []
    module.block = lambda: (calls.append(1), go.wait(LONG_WAIT_SECONDS))
    made = install("till.block", threads=1)

    def ask() -> None:
        with deadline.budget(0.05):
            module.block()

    both = [gevent.spawn(ask) for _ in range(2)]
    gevent.joinall(both, timeout=LONG_WAIT_SECONDS)

    assert [type(greenlet.exception) for greenlet in both] == [BudgetSpent, BudgetSpent]
    assert not made.threads.waiting
    go.set()
    with gevent.Timeout(LONG_WAIT_SECONDS):
        while made.threads.running:
            gevent.sleep(0.005)
    assert len(calls) == 1


def test_with_nothing_left_of_the_budget_nothing_is_called(
    module: types.ModuleType, in_request: Callable[[float], Record]
) -> None:
    made = install("till.count")
    in_request(0.0)

    assert deadline.is_spent()
    with pytest.raises(TimeoutError):
        module.count()
    assert not made.threads.running


def test_a_real_thread_calls_the_function_itself(module: types.ModuleType) -> None:
    install("till.count")
    seen = []

    thread = threading.Thread(target=lambda: seen.append((module.count()[0], threading.get_ident())))
    thread.start()
    thread.join(LONG_WAIT_SECONDS)

    assert seen[0][0] == seen[0][1]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("no_such_module.f", "no_such_module.f: there is no module no_such_module"),
        ("till.no_such", "till.no_such: till has no function no_such"),
        ("till.Nobody.f", "till.Nobody.f: till has no Nobody"),
        ("till.Drawer", "till.Drawer: till has no function Drawer"),
        ("builtins.dict.get", "builtins.dict.get: a class written in C can't be changed"),
    ],
)
def test_what_is_wrong_with_a_name_is_said(module: types.ModuleType, name: str, problem: str) -> None:
    module.Drawer = Drawer
    made = install(name, "till.count")

    assert [text[: len(problem)] for text in made.problems()] == [problem]


def test_names_of_packages_that_are_not_installed_are_no_problem_by_default() -> None:
    made = Offload(["no_such_module.f", "not_there.g"], Threads(1), optional=["no_such_module.f"])
    made.install()

    assert made.problems() == ["not_there.g: there is no module not_there"]


def test_all_bad_names_are_told_at_once() -> None:
    settings = Settings(offload="no_such_a.f", offload_drivers="no_such_b.*")

    with pytest.raises(OffloadError, match=r"no_such_a\.f: .*no_such_b\.\*: "):
        offload.check(settings)


def test_what_can_be_no_name_is_a_wrong_setting() -> None:
    with pytest.raises(
        SettingsError, match=r"GREENROOM_OFFLOAD .*'scrypt'.*\n.*GREENROOM_OFFLOAD_DRIVERS .*'a\.\*\.b'"
    ):
        Settings.read({"GREENROOM_OFFLOAD": "hashlib.scrypt, scrypt", "GREENROOM_OFFLOAD_DRIVERS": "a.*.b"})


def test_it_can_be_switched_off() -> None:
    assert [made.names for made in offload.offloads(Settings.read({"GREENROOM_OFFLOAD": "off"}), cores=4)] == [[], []]


@pytest.mark.parametrize(("workers", "threads", "expected"), [(0, 0, 1), (1, 0, 4), (2, 0, 2), (8, 0, 1), (4, 3, 3)])
def test_all_workers_together_compute_on_the_cores_there_are(workers: int, threads: int, expected: int) -> None:
    computing, _ = offload.offloads(Settings(web_concurrency=workers, offload_threads=threads), cores=4)

    assert computing.threads.limit == expected


def test_twenty_sign_ins_at_once_do_not_stop_a_patched_loop() -> None:
    result = run(
        """
        import hashlib, time
        from hashlib import pbkdf2_hmac
        from greenroom import offload, patching
        from greenroom.settings import Settings
        settings = Settings(offload_threads=2)
        patching.patch(settings)
        offload.install(settings)
        import gevent
        from werkzeug.security import check_password_hash, generate_password_hash
        hashed = [generate_password_hash("x", method) for method in ("scrypt", "pbkdf2:sha256:60000")]
        gaps = []

        def beat():
            last = time.monotonic()
            while True:
                gevent.sleep(0.001)
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        gevent.spawn(beat)
        gevent.sleep(0.01)
        began = time.monotonic()
        checks = [gevent.spawn(check_password_hash, hashed[number % 2], "x") for number in range(20)]
        gevent.joinall(checks, raise_error=True)
        took = time.monotonic() - began
        assert all(check.value for check in checks)
        # A loop that is stopped turns once for each check at best, and once for all twenty at worst.
        assert len(gaps) > 60 and max(gaps) < took / 4, (len(gaps), max(gaps), took)
        """
    )

    assert result.returncode == 0, result.stderr


def test_a_whole_c_driver_waits_for_twenty_requests_at_once(tmp_path: Path) -> None:
    (tmp_path / "driver.py").write_text(
        textwrap.dedent(
            """
            import ctypes
            waiting, most = [], []
            blocks = ctypes.CDLL(None).usleep  # C code that waits, and lets go of the interpreter meanwhile

            class Connection:
                def query(self, number):
                    waiting.append(number)
                    most.append(len(waiting))
                    while len(most) < 20:
                        blocks(5_000)
                    waiting.remove(number)
                    return number

            def connect():
                blocks(1_000)
                return Connection()
            """
        )
    )

    result = run(
        """
        from greenroom import offload, patching
        from greenroom.settings import Settings
        settings = Settings(offload_drivers="driver.*, driver.Connection.*", offload_driver_threads=20)
        patching.patch(settings)
        offload.install(settings)
        import driver, gevent
        offload.check(settings)
        queries = [gevent.spawn(lambda number=number: driver.connect().query(number)) for number in range(20)]
        with gevent.Timeout(60):
            gevent.joinall(queries, raise_error=True)
        assert [query.value for query in queries] == list(range(20))
        assert max(driver.most) == 20
        """,
        tmp_path,
    )

    assert result.returncode == 0, result.stderr
