"""A greenlet that serves several requests looks new to each of them, or it is not used again."""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import gevent
import gevent.local
import gevent.threading
import pytest
from greenlet import getcurrent

from greenroom.worker.greenlets import MOST_PARKED, RequestGreenlets
from greenroom.worker.load import RequestGreenlet

from .harness import Ours, serve, turn, wait_until

variable: ContextVar[str] = ContextVar("variable", default="nothing")
local = gevent.local.local()
kept: list[Any] = []


class NoMeter:
    def admit(self) -> None: ...
    def began(self, request: Any, seconds: float) -> None: ...
    def ran(self, request: Any, seconds: float) -> None: ...


class Stage:
    """Runs functions as requests, one after the other."""

    def __init__(self) -> None:
        self.results: list[Any] = []
        self.greenlets = RequestGreenlets(gevent.get_hub(), self._run)

    def _run(self, function: Callable[[], Any]) -> None:
        try:
            self.results.append(function())
        except BaseException as exc:
            self.results.append(exc)

    def begin(self, function: Callable[[], Any]) -> None:
        gevent.get_hub().loop.run_callback(self.greenlets.start, NoMeter(), function)

    def run(self, function: Callable[[], Any]) -> Any:
        count = len(self.results)
        self.begin(function)
        wait_until(lambda: len(self.results) > count, "the request is over")
        return self.results[-1]


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    kept.clear()
    made.greenlets.clear()


def address() -> int:
    return id(getcurrent())


def leave_a_context_variable() -> None:
    variable.set("mine")


def leave_a_local() -> None:
    local.name = "mine"


def leave_an_attribute() -> None:
    getcurrent().name = "mine"  # type: ignore[attr-defined]


def leave_a_child() -> None:
    kept.append(gevent.spawn(gevent.sleep, 0.001))


def leave_a_tree_local() -> None:
    gevent.spawn(lambda: None).join()  # which writes spawn_tree_locals into its parent


def leave_a_reference() -> None:
    kept.append(getcurrent())


def leave_a_weak_reference() -> None:
    kept.append(weakref.ref(getcurrent()))


def leave_a_key() -> None:
    kept.append({getcurrent(): "mine"})


def leave_a_timeout() -> None:
    kept.append(gevent.Timeout(0.01).start())


def leave_a_wake_up() -> None:
    gevent.get_hub().loop.run_callback(getcurrent().switch, "late")


def leave_a_late_exception() -> None:
    gevent.get_hub().loop.run_callback(getcurrent().throw, ValueError)


def leave_a_thread() -> None:
    assert gevent.threading.current_thread() is not threading.main_thread()


def leave_a_traceback() -> None:
    try:
        raise ValueError
    except ValueError as exc:
        kept.append(exc)


LEFT = [
    leave_a_context_variable,
    leave_a_local,
    leave_an_attribute,
    leave_a_child,
    leave_a_tree_local,
    leave_a_reference,
    leave_a_weak_reference,
    leave_a_key,
    leave_a_timeout,
    leave_a_wake_up,
    leave_a_late_exception,
    leave_a_thread,
    leave_a_traceback,
]


def look() -> dict[str, Any]:
    me: Any = getcurrent()
    return {
        "context": list((me.gr_context or {}).items()),
        "variable": variable.get(),
        "local": dict(local.__dict__),
        "attributes": dict(me.__dict__),
        "is kept": [thing for thing in kept if thing is me],
        "is referred to": weakref.getweakrefcount(me) - 1,  # by `local`, just now
    }


@pytest.mark.parametrize("leave", LEFT, ids=lambda function: function.__name__)
@pytest.mark.parametrize("waits", [False, True], ids=["at once", "after a wait"])
def test_nothing_that_a_request_leaves_is_met_by_another(
    stage: Stage, leave: Callable[[], None], waits: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    new = Stage().run(look)

    def request() -> None:
        if waits:
            gevent.sleep(0.001)
        leave()

    stage.run(request)
    first = stage.run(look)
    gevent.sleep(0.02)  # what the request has left behind comes now
    second = stage.run(look)

    assert first == second == new


@pytest.mark.parametrize("leave", [leave_a_timeout, leave_a_wake_up, leave_a_late_exception])
def test_what_comes_late_for_a_request_does_not_wake_the_next(
    stage: Stage, leave: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    stage.run(leave)

    slept = stage.run(lambda: gevent.sleep(0.03) or "all of it")

    assert slept == "all of it"
    assert stage.run(address)


def test_greenlet_of_a_request_that_left_nothing_serves_the_next(stage: Stage) -> None:
    def request() -> int:
        variable.set("mine")
        gevent.sleep(0)
        with gevent.Timeout(5):
            gevent.sleep(0.001)
        return address()

    assert len({stage.run(request) for _ in range(10)}) == 1
    assert len(stage.greenlets.parked) == 1


def test_context_of_a_request_is_let_go_when_it_ends(stage: Stage) -> None:
    class Session:
        pass

    session = Session()
    is_alive = weakref.ref(session)
    large: ContextVar[Session] = ContextVar("large")

    def request(sessions: list[Session]) -> None:
        large.set(sessions.pop())

    sessions = [session]
    del session
    stage.run(lambda: request(sessions))

    assert is_alive() is None


def test_no_more_are_parked_than_the_limit(stage: Stage) -> None:
    release = gevent.event.Event()
    for _ in range(MOST_PARKED + 10):
        stage.begin(release.wait)
    turn()

    release.set()
    wait_until(lambda: len(stage.results) == MOST_PARKED + 10, "all are over")

    assert len(stage.greenlets.parked) == MOST_PARKED


def test_greenlets_that_run_at_the_same_time_are_different(stage: Stage) -> None:
    stage.run(address)

    def request() -> int:
        gevent.sleep(0.001)
        return address()

    for _ in range(5):
        stage.begin(request)
    wait_until(lambda: len(stage.results) == 6, "all are over")

    assert len(set(stage.results[1:])) == 5


def test_parked_greenlets_end_with_the_server() -> None:
    ended: list[RequestGreenlet] = []

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "0")])
        return []

    with serve(Ours, application) as site:
        site.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        parked = site.kind.serving.greenlets.parked
        ended += parked
        assert len(ended) == 1
        watch = weakref.ref(ended.pop())

    assert watch() is None
