"""Insight in a real process: the GIL, signals, real waits."""

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.live.conftest import PYTHON_MODULE, ROOT, Server, free_port, wait_until
from tests.live.staging import slow_upstream

APP = {
    "WSGI_APP": "tests.live.apps.insight:app",
    "GREENROOM_WORKER_CLASS": "greenroom",
    "WEB_CONCURRENCY": "1",
    "GREENROOM_ACCESS_LOG": "yes",
    "GREENROOM_ACCESS_LOG_FORMAT": "json",
    "GREENROOM_OPS_BIND": "off",
}
SOURCE = Path(ROOT, "tests/live/apps/insight.py").read_text().splitlines()
STATES = ("cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other")


def line_of(text: str) -> str:
    """`file:line` of the only line of the application that contains `text`."""
    numbers = [number for number, line in enumerate(SOURCE, 1) if text in line]
    assert len(numbers) == 1, (text, numbers)
    return f"tests/live/apps/insight.py:{numbers[0]}"


class Observed(Server):
    """A server whose worker tells what it knows."""

    def snapshot(self) -> dict[str, Any]:
        answers: list[requests.Response] = []

        def is_answered() -> bool:
            """A worker that has just had much to do may turn this one away."""
            answers.append(requests.get(f"{self.url}/snapshot", timeout=60))
            return answers[-1].status_code != 503

        wait_until(is_answered, "the worker admits requests")
        found: dict[str, Any] = answers[-1].json()
        return found

    def ask(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.url + path, timeout=120, headers=headers)

    def ask_aside(self, path: str) -> threading.Thread:
        """Ask, and don't wait for the answer, which may never come."""

        def ask() -> None:
            try:
                self.ask(path)
            except requests.RequestException:
                return

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        return thread

    def access_line(self, request_id: str) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            for line in self.text().splitlines():
                if line.startswith("{") and f'"{request_id}"' in line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            return None

        wait_until(find, f"the access log has a line for {request_id}")
        found = find()
        assert found is not None
        return found

    def stalls_of(self, request_id: str) -> list[str]:
        return [line for line in self.text().splitlines() if "] stall: " in line and f"request {request_id}," in line]

    def worker(self) -> psutil.Process:
        return psutil.Process(self.process.pid).children()[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, postgres_url: str) -> Iterator[Observed]:
    """One worker, with a database and an upstream. Shared: each test looks for its own requests only."""
    folder = tmp_path_factory.mktemp("insight")
    port = free_port()
    with slow_upstream() as upstream:
        environ = {
            **APP,
            "GREENROOM_BIND": f"127.0.0.1:{port}",
            "INSTANCE_PATH": str(folder / "instance"),
            "UPSTREAM_URL": upstream,
            "INSIGHT_DATABASE_URL": postgres_url.replace("postgresql://", "postgresql+psycopg2://"),
        }
        server = Observed([*PYTHON_MODULE, "gunicorn"], environ, folder / "server.log", port)
        server.wait_ready()
        yield server
        server.stop()
        print(*(line for line in server.text().splitlines() if not line.startswith("{")), sep="\n")


def test_parts_of_a_request_add_up_to_what_its_client_waited(server: Observed) -> None:
    server.ask("/parts")  # connections are opened, modules imported
    began = time.monotonic()
    answer = server.ask("/parts")
    waited = time.monotonic() - began

    line = server.access_line(answer.headers["X-Request-ID"])
    parts = {state: line[f"{state}_seconds"] for state in STATES}
    assert sum(parts.values()) == pytest.approx(line["total_seconds"], rel=0.001)
    assert line["total_seconds"] <= waited + 0.1  # writing the line is its, too
    assert line["total_seconds"] >= 0.8 * (waited - 0.1)
    assert line["route"] == "/parts"
    assert parts["cpu"] >= 0.02
    assert parts["query"] >= 0.05
    assert parts["sleep"] >= 0.03
    # One call, then three side by side, for which the main greenlet waits in `map`.
    assert parts["upstream"] >= 0.12
    assert sum(line["upstreams"].values()) == pytest.approx(parts["upstream"], rel=0.01)
    assert parts["other"] + parts["lock"] < 0.3 * line["total_seconds"]


def test_server_timing_adds_up_and_names_nothing_that_is_not_known(server: Observed) -> None:
    header = server.ask("/parts").headers["Server-Timing"]

    parts = [re.fullmatch(r'([a-z]+)(?:;desc="[A-Za-z0-9.:_-]+")?;dur=([0-9.]+)', part) for part in header.split(", ")]
    assert all(parts), header
    times = [(part[1], float(part[2])) for part in parts if part]
    assert times[-1][0] == "total"
    assert sum(seconds for _, seconds in times[:-1]) == pytest.approx(times[-1][1], rel=0.05)
    assert {name for name, _ in times} >= {"cpu", "upstream", "query", "sleep"}


def test_who_asks_for_somebody_else_is_not_told_the_times(server: Observed) -> None:
    answer = server.ask("/sleep/1", **{"X-Forwarded-For": "203.0.113.9"})

    assert "Server-Timing" not in answer.headers
    assert "X-Request-ID" in answer.headers


@pytest.mark.parametrize("given", ["id-1.of:the/client", "a" * 128])
def test_sane_id_of_a_trusted_client_is_kept(server: Observed, given: str) -> None:
    assert server.ask("/sleep/1", **{"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["a" * 129, 'x"; evil', "{}", "-first"])
def test_other_ids_are_replaced(server: Observed, given: str) -> None:
    assert server.ask("/sleep/1", **{"X-Request-ID": given}).headers["X-Request-ID"] != given


def test_trace_of_the_caller_is_in_the_log(server: Observed) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = server.ask("/sleep/1", traceparent=f"00-{trace}-00f067aa0ba902b7-01")

    assert server.access_line(answer.headers["X-Request-ID"])["trace_id"] == trace


def test_regex_that_holds_the_gil_is_one_stall_at_its_line(server: Observed) -> None:
    length = 20
    while (seconds := server.ask(f"/regex/{length}").json()["seconds"]) < 0.8:
        length += 1
    answer = server.ask(f"/regex/{length}")
    request_id = answer.headers["X-Request-ID"]
    wait_until(lambda: server.stalls_of(request_id), "the stall is logged")

    stall = next(one for one in server.snapshot()["stalls"]["last"] if one["request"] == request_id)
    assert stall["line"] == line_of("the line that holds the GIL")
    assert stall["route"] == "/regex/<int:length>"
    assert stall["holds_gil"]
    assert stall["seconds"] == pytest.approx(answer.json()["seconds"], rel=0.2)
    assert len(server.stalls_of(request_id)) == 1
    assert seconds > 0


def test_each_block_above_the_threshold_is_told_and_counted_at_its_line(server: Observed) -> None:
    line = line_of("the line that sleeps")
    before = server.snapshot()["stalls"]["unblamed"]
    ids: list[str] = []

    def told() -> int:
        return sum(bool(server.stalls_of(id)) for id in ids)

    def are_told() -> bool:
        ids.append(server.ask("/blocking-sleep/150").headers["X-Request-ID"])
        return told() >= 18

    wait_until(are_told, "many are logged")
    # What a busy machine takes part of can't be told apart: it is counted as nobody's fault.
    wait_until(
        lambda: told() + server.snapshot()["stalls"]["unblamed"] - before >= len(ids),
        "each is told, or not blamed",
    )
    assert all(len(server.stalls_of(id)) <= 1 for id in ids)
    top = next(one for one in server.snapshot()["stalls"]["top"] if one["line"] == line)
    assert top["count"] >= 18
    assert 0.15 <= top["seconds"] / top["count"] < 0.6


def test_many_short_slices_are_no_stall_and_show_as_cpu(server: Observed) -> None:
    answer = server.ask("/slices/10/30")

    line = server.access_line(answer.headers["X-Request-ID"])
    assert line["cpu_seconds"] >= 0.29
    # A slice can be stretched by the machine; nobody is blamed for that.
    assert server.stalls_of(answer.headers["X-Request-ID"]) == []


def test_stopping_the_process_blames_nobody(server: Observed) -> None:
    worker = server.worker()
    before = server.snapshot()["stalls"]
    spinner = server.ask_aside("/slices/100/10")
    time.sleep(0.2)
    for _ in range(3):
        worker.send_signal(signal.SIGSTOP)
        time.sleep(0.5)
        worker.send_signal(signal.SIGCONT)
        time.sleep(0.15)
    spinner.join()
    wait_until(lambda: server.snapshot()["loop"]["is_idle"] is False, "it answers")
    time.sleep(0.5)

    after = server.snapshot()["stalls"]
    blamed = [stall for stall in after["last"] if stall["seconds"] - stall["stolen_seconds"] > 0.3]
    assert [stall for stall in blamed if stall["route"].startswith("/slices")] == []
    assert after["unblamed"] >= before["unblamed"]


def test_idling_and_sleeping_blame_nobody(server: Observed) -> None:
    before = server.snapshot()["stalls"]["total"]
    server.ask("/sleep/1500")
    time.sleep(1.0)

    assert server.snapshot()["stalls"]["total"] == before


def test_scan_for_pages_that_do_not_exist_adds_no_route(server: Observed) -> None:
    for number in range(50):
        assert server.ask(f"/wp-admin/{number}.php").status_code == 404
    for name in ('a"b', "<script>", "é" * 10):
        server.ask(f"/hostile/{requests.utils.quote(name)}")

    routes = server.snapshot()["routes"]
    assert not any("wp-admin" in route or "script" in route for route in routes)
    assert routes["other"]["statuses"]["4xx"] >= 50
    assert routes["/hostile/<path:name>"]["count"] >= 3


def test_routes_count_and_sum_up(server: Observed) -> None:
    server.ask("/sleep/30")
    before = server.snapshot()["routes"]["/sleep/<int:ms>"]
    for _ in range(5):
        server.ask("/sleep/30")
    after = server.snapshot()["routes"]["/sleep/<int:ms>"]

    assert after["count"] - before["count"] == 5
    assert sum(after["buckets"]) == after["count"] == sum(after["statuses"].values())
    assert sum(after["seconds"]) == pytest.approx(after["total_seconds"], rel=0.001)


def test_in_flight_shows_what_each_request_waits_for(server: Observed) -> None:
    asked = [server.ask_aside(path) for path in ("/sleep/3000?token=secret", "/fan/3", "/held/nothing")]
    seen: dict[str, dict[str, Any]] = {}

    def is_there() -> bool:
        flights = {one["route"]: one for one in server.snapshot()["in_flight"]}
        seen.update({route: one for route, one in flights.items() if one["state"] not in ("running", "ready")})
        # Its threads start one after the other.
        return "/sleep/<int:ms>" in seen and seen.get("/fan/<int:count>", {}).get("greenlets") == 4

    wait_until(is_there, "the requests are in flight, the fan with a greenlet for each call")
    sleeper, fan = seen["/sleep/<int:ms>"], seen["/fan/<int:count>"]
    assert sleeper["state"] == "sleep"
    assert sleeper["path"] == "/sleep/3000"
    assert "secret" not in json.dumps(seen)
    assert 0 < sleeper["budget_seconds"] <= 60
    assert fan["state"] == "upstream"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", fan["detail"])
    stacks = server.ask(f"/stacks/{fan['id']}").json()["greenlets"]
    waiting_lines = [
        call for greenlet in stacks for call in greenlet["stack"] if line_of("the line that fans out") in call
    ]
    assert len(waiting_lines) == 3
    for thread in asked:
        thread.join()


def test_two_locks_in_a_circle_are_shown_with_both_stacks(server: Observed) -> None:
    began = time.monotonic()
    asked = [server.ask_aside(f"/deadlock/{way}") for way in (0, 1)]
    found: list[dict[str, Any]] = []

    def is_found() -> bool:
        found[:] = server.snapshot()["locks"]["deadlocks"]
        return bool(found)

    wait_until(is_found, "the deadlock is shown", timeout_seconds=20)
    assert time.monotonic() - began < 10  # 5 s, on a machine that has time
    (deadlock,) = found
    assert deadlock["kind"] == "circle"
    assert [member["route"] for member in deadlock["members"]] == ["/deadlock/<int:way>"] * 2
    assert all(any(line_of("the second lock") in call for call in member["stack"]) for member in deadlock["members"])
    assert {member["request"] for member in deadlock["members"]} == {m["waits_for"] for m in deadlock["members"]}
    wait_until(lambda: "] deadlock: request " in server.text(), "it is logged")
    for thread in asked:
        thread.join()
    wait_until(lambda: not server.snapshot()["locks"]["deadlocks"], "it is over")


def test_lock_that_a_request_did_not_release_is_one_report_that_names_it(server: Observed) -> None:
    assert server.ask("/leak").json() == {"taken": True}
    asked = [server.ask_aside("/need/6") for _ in range(12)]
    found: list[dict[str, Any]] = []

    def is_found() -> bool:
        found[:] = server.snapshot()["locks"]["deadlocks"]
        return bool(found) and found[0]["waiting"] > len(found[0]["members"])

    wait_until(is_found, "the lock is shown", timeout_seconds=20)
    (deadlock,) = found
    assert deadlock["kind"] == "orphan"
    assert len(deadlock["members"]) == 5
    assert {member["waits_for_route"] for member in deadlock["members"]} == {"/leak"}
    assert {member["taken_at"] for member in deadlock["members"]} == {line_of("the line that leaks")}
    wait_until(lambda: "lock held by a greenlet that has ended" in server.text(), "it is logged")
    for thread in asked:
        thread.join()
    assert server.text().count("lock held by a greenlet that has ended") == 1


def test_lock_that_the_garbage_collector_takes_again_is_shown_with_both_lines(server: Observed) -> None:
    thread = server.ask_aside("/collect")
    found: list[dict[str, Any]] = []

    def is_found() -> bool:
        found[:] = [one for one in server.snapshot()["locks"]["deadlocks"] if one["kind"] == "self"]
        return bool(found)

    wait_until(is_found, "the deadlock is shown", timeout_seconds=20)
    (member,) = found[0]["members"]
    assert member["route"] == member["waits_for_route"] == "/collect"
    assert member["taken_at"] == line_of("the line that is collected in")
    assert any(line_of("the line in the garbage collector") in call for call in member["stack"])
    thread.join()


def test_connection_that_is_kept_while_an_upstream_is_waited_for_is_reported_with_both_lines(server: Observed) -> None:
    def count() -> int:
        return sum(pair["count"] for pair in server.snapshot()["held"])

    before = count()
    for ending in ("commit", "rollback"):
        server.ask(f"/held/{ending}")
    assert count() == before
    for _ in range(3):
        server.ask("/held/nothing")

    (pair,) = server.snapshot()["held"]
    assert pair["used"] == line_of("the line that used it")
    assert pair["taken"] == line_of("the line that used it")
    assert pair["upstream"] == line_of("the line that waits")
    assert pair["count"] == before + 3
    assert pair["seconds"] >= 0.19 * pair["count"]
    assert pair["connections"] == 4
    assert pair["gain"] > 2
    assert server.text().count("] held: a database connection") == 1
