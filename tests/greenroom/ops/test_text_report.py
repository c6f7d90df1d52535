"""Everything for a ticket: as much as the page has, and in time, whoever can't answer."""

import json
from typing import Any

import pytest

from greenroom.ops import program
from greenroom.ops.client import TIMEOUT_SECONDS
from greenroom.ops.program import Program
from greenroom.ops.socket_folder import SocketFolder
from greenroom.ops.text_report import everything
from greenroom.ops.web import Board
from greenroom.ops.worker_client import Asker

from .fakes import moment, request, route, seen, shown, snapshot
from .test_worker_client import close, keeps_silent, says, worker_that


def test_a_ticket_has_the_verdict_stacks_and_who_did_not_answer() -> None:
    row = {
        **request(),
        "stacks": {
            "greenlets": [{"name": "main", "state": "upstream", "stack": ["p.py:1 get", "v.py:3 buy"], "own": 1}]
        },
    }
    answers = {"11": {"main_stack": ["hub.py:1 run"], "in_flight": [row]}, "12": None}

    text = everything(shown(seen(1, snapshot()), seen(2, snapshot())), answers)

    assert "Healthy" in text
    assert "      p.py:1 get\n    > v.py:3 buy" in text
    assert "hub.py:1 run" in text
    assert "worker 2, pid 12, serving: 0 in flight\n  does not answer" in text


def test_a_ticket_has_the_tables_of_the_page() -> None:
    said = snapshot(
        routes={"/orders/<id>": route(state="upstream")},
        in_flight=[request("upstream", "api:443", 5.0)],
        upstreams={"api:443": {"waits": 3, "seconds": 1.0}},
        pools=[{"name": "main", "kind": "database", "size": 3, "in_use": 3, "waiting": 2}],
        stalls={"top": [{"line": "v.py:7", "count": 4, "seconds": 2.0, "longest_seconds": 1.5}], "last": []},
        held=[{"used": "v.py:30", "upstream": "v.py:34", "host": "h", "count": 5, "seconds": 2, "held_seconds": 3}],
    )
    stall = {"line": "v.py:9", "route": "/x", "seconds": 3.0, "holds_gil": True}
    died = {"at": 1.0, "since": 990.0, "kind": "died", "worker": 2, "pid": 99, "had": 3, "stall": stall}
    blocked = seen(2, snapshot(), silent=9.0, unanswered=9.0, peeked={"line": "v.py:41", "stack": []})

    text = everything(shown(seen(1, said), blocked, events=[died]), {})

    for words in (
        "Loop           100%  1 of 2 workers blocked, for 9 s",
        "upstream  1         5 s     5 s      api:443",
        "/orders/<id>  upstream 100%",
        "3       3     2        1        -        database main",
        "333 ms",
        "now    9 s       -        v.py:41",
        "4      2 s       1.5 s    v.py:7",
        "v.py:30",
        "with 3 in flight, blocked for 3 s v.py:9",
    ):
        assert words in text, text


def test_workers_that_hold_their_gil_are_waited_for_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = []

    class Counting(Asker):
        def wait(self, seconds: float) -> dict[int, Any]:
            waited.append((len(self.open), seconds))
            return super().wait(0.5)

    monkeypatch.setattr(program, "Asker", Counting)
    socket_folder = SocketFolder.make()
    workers = [seen(number, snapshot()) for number in range(1, 9)]
    open_sockets = [worker_that(socket_folder.socket(11), says(b'{"main_stack": ["v.py:3 buy"], "in_flight": []}\n'))]
    open_sockets += [worker_that(socket_folder.socket(worker.pid), keeps_silent) for worker in workers[1:]]
    ours: Any = Program.__new__(Program)
    ours.socket_folder, ours.moment, ours.board = socket_folder, moment(*workers), Board()
    ours.board.publish(json.dumps(shown(*workers)).encode(), b"")

    text = ours._everything()

    assert waited == [(8, program.EVERYTHING_SECONDS)]
    assert program.EVERYTHING_SECONDS < TIMEOUT_SECONDS, "the client's patience"
    assert "v.py:3 buy" in text
    assert text.count("does not answer\n") == 7
    for sockets in open_sockets:
        close(sockets)
    socket_folder.remove()
