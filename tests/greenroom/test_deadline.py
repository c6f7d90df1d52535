"""Budgets in a real worker's serving, in this process: the waits are gevent's own, nothing is patched."""

from collections.abc import Callable, Iterator
from typing import Any

import gevent
import gevent.queue
import gevent.select
import pytest
from gevent.event import Event

from greenroom import clock
from greenroom.errors import BudgetSpent
from greenroom.in_flight import FOREVER, OWN, Wait
from tests.greenroom.worker.harness import Client, Ours, Site, serve, wait_until

SHORT_SECONDS = 0.05
NEVER_SECONDS = 60.0
LATE_SECONDS = 5.0
GET = b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n"


def pause() -> None:
    """As time.sleep() in a patched process."""
    with Wait("sleep", "", OWN):
        gevent.sleep(NEVER_SECONDS)


class App:
    """`/wait` waits for a very long time, `/catch` and says so, `/loop` for ever; each notes how it ended."""

    def __init__(self) -> None:
        self.ended: list[str] = []
        self.running = 0
        self.release = Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.running += 1
        return getattr(self, environ["PATH_INFO"].strip("/").partition("/")[0])(environ, start_response)

    def answer(self, start_response: Callable[..., Any], body: bytes, status: str = "200 OK") -> list[bytes]:
        start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]

    def quick(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        left = environ["greenroom.deadline"].remaining_seconds()
        return self.answer(start_response, b"none" if left == FOREVER else str(round(left * 1000)).encode())

    def wait(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            pause()
        except BaseException as exc:
            self.ended.append(type(exc).__name__)
            raise
        return self.answer(start_response, b"waited")

    def catch(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            pause()
        except TimeoutError:
            return self.answer(start_response, b"caught")
        return self.answer(start_response, b"waited")

    def fail(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            pause()
        except TimeoutError:
            pass
        return self.answer(start_response, b"oops", "500 Internal Server Error")

    def loop(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        while not self.release.is_set():
            try:
                pause()
            except BaseException:
                continue
        return self.answer(start_response, b"too late")

    def stuck(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        """In a wait that nobody may end."""
        self.release.wait()
        return self.answer(start_response, b"too late")

    def stream(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        try:
            yield b"data: first\n\n"
            with Wait("lock", "event", OWN):
                self.release.wait()
            yield b"data: last\n\n"
        except BudgetSpent:
            self.ended.append("cut")
            raise
        finally:
            self.ended.append("closed")

    def longer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["greenroom.deadline"].set(None)
        gevent.sleep(0.6)
        return self.answer(start_response, b"in time")


@pytest.fixture
def app() -> App:
    return App()


def site(app: App, **settings: Any) -> Any:
    return serve(Ours, app, settings={"request_budget_milliseconds": 0, **settings})


def ask(client: Client, path: bytes, *headers: bytes, method: bytes = b"GET") -> None:
    client.send((GET % (path, b"".join(header + b"\r\n" for header in headers))).replace(b"GET", method, 1))


def answer_to(site: Site, path: bytes, *headers: bytes) -> tuple[int, bytes]:
    with site.connect() as client:
        ask(client, path, *headers)
        answer = client.answer()
    return answer.status, answer.body


def test_view_that_waits_past_its_budget_is_answered_504(app: App) -> None:
    with site(app, request_budget_milliseconds=400) as running:
        began = clock.now()
        status, body = answer_to(running, b"/wait")

        assert status == 504
        assert b"did not come in time" in body
        assert app.ended == ["BudgetSpent"]
        assert clock.now() - began < LATE_SECONDS
        assert running.kind.serving.spent_requests == 1
        assert not running.kind.serving.in_flight
    assert any("budget of 0.4 s is spent" in line for line in running.records.at(30))


@pytest.mark.parametrize("path", [b"/catch", b"/fail", b"/loop", b"/stuck"])
def test_answer_does_not_depend_on_what_the_application_makes_of_the_end(app: App, path: bytes) -> None:
    with site(app, request_budget_milliseconds=400) as running:
        began = clock.now()
        status, body = answer_to(running, path)
        took = clock.now() - began
        app.release.set()
        wait_until(lambda: not running.kind.serving.in_flight, "the request is over")

    assert status == 504
    assert b"did not come in time" in body
    assert took < LATE_SECONDS


def test_longest_path_that_fits_has_its_own_budget(app: App) -> None:
    routes = "/quick=7000, /quick/slow=9000, /quick/slow/report=0"
    with site(app, request_budget_milliseconds=3000, route_budgets=routes) as running:
        budgets = {
            path: answer_to(running, path)[1]
            for path in (b"/quick", b"/quick/x", b"/quick/slow", b"/quick/slow/report", b"/quick/slow/reports")
        }

    assert budgets.pop(b"/quick/slow/report") == b"none"
    assert {path: -(-int(left) // 1000) for path, left in budgets.items()} == {
        b"/quick": 7,
        b"/quick/x": 7,
        b"/quick/slow": 9,
        b"/quick/slow/reports": 9,
    }


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [(b"2000", 2), (b"9000", 5), (b"", 5), (b"-1", 5), (b"2e3", 5), (b"2,3", 5), (b"9" * 400, 5)],
)
def test_trusted_proxy_can_only_shorten_the_budget(app: App, asked: bytes, seconds: int) -> None:
    with site(app, request_budget_milliseconds=5000) as running:
        _, left = answer_to(running, b"/quick", b"X-Request-Timeout-Ms: " + asked)

    assert seconds - 1 < int(left) / 1000 <= seconds


def test_untrusted_client_cannot_set_a_budget(app: App) -> None:
    cfg = {"forwarded_allow_ips": "192.0.2.1"}
    with serve(Ours, app, cfg=cfg, settings={"request_budget_milliseconds": 5000}) as running:
        _, left = answer_to(running, b"/quick", b"X-Request-Timeout-Ms: 1")

    assert int(left) > 1000


def test_request_whose_time_was_up_before_it_began_is_not_begun(app: App) -> None:
    with site(app) as running:
        status, _ = answer_to(running, b"/quick", b"X-Request-Timeout-Ms: 0")

    assert status == 504
    assert not app.running


def test_application_can_change_its_budget(app: App) -> None:
    with site(app, request_budget_milliseconds=400) as running:
        assert answer_to(running, b"/longer") == (200, b"in time")


def test_budget_ends_where_a_stream_begins(app: App) -> None:
    with site(app, request_budget_milliseconds=400) as running, running.connect() as client:
        ask(client, b"/stream")
        client.until(b"first\n\n")
        gevent.sleep(0.6)
        app.release.set()

        client.until(b"last\n\n")

    assert app.ended == ["closed"]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_client_that_hangs_up_ends_its_request(app: App, method: bytes) -> None:
    with site(app) as running:
        with running.connect() as client:
            ask(client, b"/wait", method=method)
            wait_until(lambda: app.running, "the request runs")
        wait_until(lambda: not running.kind.serving.in_flight, "the request is over")

        assert app.ended == ["BudgetSpent"]
        assert running.kind.serving.abandoned_requests == 1
        assert not running.kind.serving.spent_requests
    assert not running.records.at(40)


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_client_that_hangs_up_ends_its_event_stream(app: App, method: bytes) -> None:
    with site(app) as running:
        with running.connect() as client:
            ask(client, b"/stream", b"Content-Length: 0", method=method)
            client.until(b"first\n\n")
        wait_until(lambda: not running.kind.serving.in_flight, "the stream is over")

    assert app.ended == ["cut", "closed"]


@pytest.mark.parametrize(
    ("method", "ends", "is_cut"),
    [(b"POST", "safe", False), (b"POST", "all", True), (b"GET", "off", False)],
)
def test_setting_says_which_requests_a_client_ends(app: App, method: bytes, ends: str, is_cut: bool) -> None:
    with site(app, client_left_ends=ends) as running:
        with running.connect() as client:
            ask(client, b"/wait", b"Content-Length: 0", method=method)
            wait_until(lambda: app.running, "the request runs")
        connection = next(iter(running.kind.serving.connections))
        wait_until(lambda: connection.is_client_gone, "the worker has seen it")
        gevent.sleep(SHORT_SECONDS)

        assert bool(app.ended) is is_cut
        running.kind.serving.cut_all(1.0)
        wait_until(lambda: not running.kind.serving.in_flight, "the request is over")


def test_worker_that_has_to_stop_answers_503(app: App) -> None:
    with site(app) as running, running.connect() as client:
        ask(client, b"/wait")
        wait_until(lambda: app.running, "the request runs")

        running.kind.serving.cut_all(1.0)

        assert client.answer().status == 503


def test_answer_under_way_is_not_cut_by_the_deadline(app: App) -> None:
    body = b"x" * 8_000_000

    def large(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["greenroom.deadline"].set(0.0)
        return app.answer(start_response, body)

    app.large = large  # type: ignore[attr-defined]
    with site(app) as running, running.connect() as client:
        ask(client, b"/large")
        gevent.sleep(SHORT_SECONDS)

        assert client.answer().body == body


def test_request_that_computes_past_its_deadline_is_reported(app: App) -> None:
    def compute(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        environ["greenroom.deadline"].deadline -= 10.0
        raise RuntimeError("late")

    app.compute = compute  # type: ignore[attr-defined]
    with site(app, request_budget_milliseconds=2000) as running:
        status, _ = answer_to(running, b"/compute")

    assert status == 504
    assert any("GET /compute ended 8.0 s after" in line for line in running.records.at(30))
