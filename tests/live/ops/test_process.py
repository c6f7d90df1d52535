"""The ops process beside a real server: alive when the workers are not, gone when it is, and no trouble itself."""

import json
import re
import signal
import time
from pathlib import Path
from typing import Any

import psutil
import requests

from ..conftest import LONG_WAIT_SECONDS, is_dead, wait_until
from ..staging import clients
from .watched import Start, Watched


def test_killed_it_comes_back_and_nobody_else_notices(watched: Watched) -> None:
    (before,) = watched.processes()
    workers = {worker.pid for worker in watched.server.workers()}

    before.kill()
    wait_until(lambda: [one for one in watched.processes() if one.pid != before.pid], "another is started")

    watched.ops.wait_for(lambda view: view["total"]["workers_serving"] == 1, "it answers again")
    assert requests.get(watched.server.url + "/", timeout=10).status_code == 200
    assert {worker.pid for worker in watched.server.workers()} == workers


def test_what_it_counted_survives_it_and_recycles(start: Start) -> None:
    """Every counter of every scrape is at least what it was in the one before."""
    watched = Watched(start, GREENROOM_MAX_REQUESTS="30", WEB_CONCURRENCY="2").wait_ready()
    asked = 0
    highest: dict[str, float] = {}

    def scrape() -> dict[str, float]:
        now = {name: value for name, value in watched.ops.metrics().items() if "_total" in name.partition("{")[0]}
        assert {name: value for name, value in highest.items() if now.get(name, 0.0) < value} == {}
        highest.update(now)
        return now

    give_up_at = time.monotonic() + LONG_WAIT_SECONDS
    with requests.Session() as session:
        while scrape()["greenroom_workers_ended_total"] < 4 and time.monotonic() < give_up_at:
            for _ in range(20):
                session.get(watched.server.url + "/", timeout=30)
                asked += 1
            if asked == 100:
                watched.processes()[0].kill()
                watched.ops.wait_for(lambda view: view["total"]["workers_serving"], "it is back")

    wait_until(lambda: scrape()['greenroom_route_requests_total{route="/",status="2xx"}'] >= asked, "all are counted")
    assert scrape()["greenroom_requests_total"] >= asked
    assert scrape()["greenroom_workers_died_total"] == 0


def test_it_ends_with_a_server_that_was_killed(watched: Watched) -> None:
    processes = watched.processes()
    folder = Path(json.loads(processes[0].cmdline()[-1])["folder"])
    workers = watched.server.workers()

    watched.server.signal(signal.SIGKILL)

    wait_until(lambda: all(map(is_dead, processes)), "it ends")
    wait_until(lambda: all(map(is_dead, workers)), "the workers end")
    assert not folder.exists()


def test_it_ends_with_a_server_that_stops(watched: Watched) -> None:
    processes = watched.processes()
    folder = Path(json.loads(processes[0].cmdline()[-1])["folder"])

    assert watched.server.stop() == 0

    assert all(map(is_dead, processes))
    assert not folder.exists()


def test_it_stays_over_a_reload_and_sees_the_new_workers(watched: Watched) -> None:
    (before,) = watched.processes()
    old = watched.server.workers()[0].pid

    watched.server.signal(signal.SIGHUP)

    watched.ops.wait_for(
        lambda view: view["workers"] and all(row["pid"] != old for row in view["workers"]), "the new worker is seen"
    )
    assert [one.pid for one in watched.processes()] == [before.pid]
    assert watched.ops.metrics()["greenroom_workers_died_total"] == 0


def test_a_server_that_is_replaced_hands_the_page_over(watched: Watched) -> None:
    """USR2: the new arbiter's page waits for the port while the old one has it."""
    old = watched.server.process.pid
    workers = {worker.pid for worker in watched.server.workers()}
    watched.server.signal(signal.SIGUSR2)
    wait_until(lambda: "can't listen on" in watched.server.text(), "the new one waits for its port")

    watched.server.signal(signal.SIGTERM)
    watched.server.process.wait(LONG_WAIT_SECONDS)
    view = watched.ops.wait_for(lambda view: view["about"]["arbiter"] != old, "the new one has it")

    assert not {row["pid"] for row in view["workers"]} & workers
    new = psutil.Process(view["about"]["arbiter"])
    assert requests.get(watched.server.url + "/", timeout=10).status_code == 200
    new.terminate()
    wait_until(lambda: is_dead(new), "it stops")


def test_the_second_server_goes_on_without_and_takes_over_when_the_first_is_gone(start: Start) -> None:
    first = Watched(start).wait_ready()
    second = Watched(start, PORT=str(first.port))
    second.server.wait_ready("/")
    wait_until(lambda: "can't listen on" in second.server.text(), "the second one says so")
    assert "GREENROOM_OPS_BIND" in second.server.text()
    assert first.ops.view()["about"]["arbiter"] == first.server.process.pid

    first.server.stop()

    second.ops.wait_for(
        lambda view: view["about"]["arbiter"] == second.server.process.pid, "the second one has the port"
    )


def test_while_the_only_worker_is_blocked_it_answers_says_by_what_and_is_scraped(watched: Watched) -> None:
    with clients(watched.server.url, ("/compute/6000", 1)):
        view = watched.ops.wait_for(lambda view: view["verdict"].get("cause") == "blocked", "it sees the block")
        took = []
        for _ in range(5):
            began = time.monotonic()
            watched.ops.metrics()
            took.append(time.monotonic() - began)

    assert "trouble.py:" in view["verdict"]["sentence"]
    assert view["verdict"]["level"] == "bad"
    assert min(took) < 0.1


def died_in_words(view: dict[str, Any]) -> str:
    found = [view["verdict"], *view["verdict"]["others"]]
    said = [one["sentence"] for one in found if one.get("cause") == "died"]
    return next((sentence for sentence in said if "blocked for" in sentence), "")


def test_the_line_at_which_a_worker_was_killed_is_told_and_counted(start: Start) -> None:
    """As the arbiter kills it after the timeout. The line is known when it has computed for a second."""
    watched = Watched(start, GREENROOM_TIMEOUT_SECONDS="300").wait_ready()
    (worker,) = watched.server.workers()

    with clients(watched.server.url, ("/gil/60", 1)):
        blocked = watched.ops.wait_for(
            lambda view: view["verdict"].get("holds_gil") and view["verdict"].get("line"), "it holds the GIL at a line"
        )
        worker.kill()
        # Its client asks again, and may block the replacement: then that stands first.
        view = watched.ops.wait_for(lambda view: died_in_words(view), "it is killed")

    said = died_in_words(view)
    assert re.search(r"blocked for [.\d]+ s at tests/live/apps/trouble.py:\d+", said)
    assert (blocked["total"]["in_flight"], blocked["total"]["workers_blocked"]) == (1, 1)
    assert "with 1 request in it" in said
    assert "trouble.py" in view["stalls"]["top"][0]["line"]
    assert watched.ops.metrics()["greenroom_stalls_total"] >= 1


def test_a_worker_that_is_given_up_is_not_blocked_for_long_by_the_next_request(start: Start) -> None:
    """As the arbiter does, and long before it would: SIGABRT ends the first of three requests, the next one blocks."""
    watched = Watched(start, GREENROOM_GRACEFUL_TIMEOUT_SECONDS="30").wait_ready()
    (worker,) = watched.server.workers()

    with clients(watched.server.url, ("/compute/600000", 3, 60.0)):
        watched.ops.wait_for(lambda view: view["verdict"].get("cause") == "blocked", "it is blocked")
        worker.send_signal(signal.SIGABRT)
        wait_until(lambda: "was sent SIGALRM" in watched.server.text(), "the kernel ends it")
        view = watched.ops.wait_for(
            lambda view: any(event["kind"] == "died" for event in view["events"]), "it counts as dead"
        )

    died = next(event for event in view["events"] if event["kind"] == "died")
    assert died["pid"] == worker.pid
    assert "trouble.py" in died["stall"]["line"]
    assert watched.ops.metrics()["greenroom_workers_died_total"] >= 1


def test_a_disk_that_takes_nothing_costs_a_line_in_the_log(start: Start, tmp_path: Path) -> None:
    (tmp_path / "a-file").write_text("where the folder should be")
    watched = Watched(
        start, GREENROOM_RECORDINGS_KEPT="5", GREENROOM_RECORDINGS_PATH=str(tmp_path / "a-file")
    ).wait_ready()

    answer = requests.post(watched.ops.url + "/recordings", headers={"X-Greenroom": "1"}, timeout=60)

    assert answer.status_code == 503
    assert "a recording can't be saved" in watched.server.text()
    assert requests.get(watched.server.url + "/", timeout=30).status_code == 200
    assert watched.ops.view()["verdict"]["level"] == "ok"
