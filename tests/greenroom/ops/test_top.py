"""The terminal shows the same, in text that nothing from outside can colour, and answers keys."""

import io
from typing import Any

import pytest
from rich.console import Console

from greenroom.ops.client import OpsError
from greenroom.ops.keys import keys_in
from greenroom.ops.top import Top

from .fakes import request, route, seen, shown, snapshot


class FakeClient:
    def __init__(self, view: dict[str, Any]) -> None:
        self.said = view
        self.is_gone = False

    def view(self) -> dict[str, Any]:
        if self.is_gone:
            raise OpsError("nothing listens at http://127.0.0.1:8001")
        return self.said

    def stacks(self, pid: int, request_id: str) -> dict[str, Any]:
        return {"greenlets": [{"name": "main", "state": "upstream", "stack": [f"v.py:3 of {request_id}"]}]}


@pytest.fixture
def top() -> Top:
    rows = [
        request("upstream", "[bold red]api[/]:443", 5.0, id="old", route="/b"),
        request("query", "SELECT 1", 1.0, id="new", route="/a"),
    ]
    client: Any = FakeClient(shown(seen(said=snapshot(in_flight=rows)), seen(2, snapshot(), silent=9.0)))
    made = Top(client, spawn=lambda work: work())
    made.refresh()
    return made


def screen(top: Top, width: int = 140, height: int = 40) -> str:
    output = io.StringIO()
    Console(file=output, width=width, height=height, color_system=None).print(top.render(height, width))
    return output.getvalue()


def test_it_shows_the_verdict_the_workers_and_what_is_in_flight(top: Top) -> None:
    shown_now = screen(top)

    assert "Worker 2 is blocked" in shown_now
    assert "[bold red]api[/]:443" in shown_now, "text, not markup"
    assert shown_now.index("GET /b") < shown_now.index("GET /a"), "the oldest first"


def test_keys_sort_choose_look_inside_and_come_back(top: Top) -> None:
    top.press("sort")
    top.press("sort")
    assert top.sort == "route"
    assert [row["id"] for row in top.rows()] == ["new", "old"]
    for key in ("down", "down", "down", "look"):
        top.press(key)
    assert "v.py:3 of old" in screen(top)
    for key in ("back", "up", "look"):
        top.press(key)
    assert "v.py:3 of new" in screen(top)
    top.press("quit")
    assert top.is_over


def test_paused_it_stands_still(top: Top) -> None:
    client: Any = top.client
    top.press("pause")
    client.said = shown()

    top.refresh()
    paused = screen(top)
    top.press("pause")
    top.refresh()

    assert ("PAUSED" in paused, "GET /b" in paused) == (True, True)
    assert "No worker runs." in screen(top)


def test_a_server_that_is_gone_is_said_and_waited_for(top: Top) -> None:
    client: Any = top.client
    client.is_gone = True
    top.refresh()
    gone = screen(top)
    client.is_gone = False
    top.refresh()

    assert "nothing listens" in gone
    assert "nothing listens" not in screen(top)


@pytest.mark.parametrize("height", [1, 5, 24, 200])
@pytest.mark.parametrize("width", [20, 80])
def test_any_size_of_terminal_will_do(top: Top, height: int, width: int) -> None:
    for key in ("", *["turn"] * 12, "look"):
        top.press(key)

        lines = screen(top, width, height).splitlines()

        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_long_routes_take_nothing_from_what_counts_in_a_small_terminal() -> None:
    long = [request("upstream", "a" * 99, 5.0, id=f"r{n}", route="/" + "r" * 200, budget_seconds=7) for n in range(99)]
    client: Any = FakeClient(shown(seen(said=snapshot(in_flight=long))))
    top = Top(client, spawn=lambda work: work())
    top.refresh()

    shown_now = screen(top, 80, 24)

    assert len(shown_now.splitlines()) == 24
    assert "5.1 s   upstream  5 s     7 s     1      GET /rrr" in shown_now
    assert "Upstream" in shown_now
    assert "q quit" in shown_now.splitlines()[-1]


def test_the_request_that_was_chosen_stays_chosen_when_others_come_and_go() -> None:
    def rows(*names: int) -> list[dict[str, Any]]:
        return [request("upstream", "api", 9.0 - name, id=f"r{name}") for name in names]

    client: Any = FakeClient(shown(seen(said=snapshot(in_flight=rows(0, 1, 2, 3)))))
    top = Top(client, spawn=lambda work: work())
    top.refresh()
    for key in ("down", "down"):
        top.press(key)
    client.said = shown(seen(said=snapshot(in_flight=rows(1, 2, 3))))
    top.refresh()

    top.press("look")
    assert "v.py:3 of r2" in screen(top)

    top.press("back")
    client.said = shown(seen(said=snapshot(in_flight=rows(1, 3))))
    top.refresh()
    top.press("look")
    assert "v.py:3 of r3" in screen(top), "it is gone: the one that stands in its place"


def test_there_is_a_page_for_all_that_the_ops_page_has(top: Top) -> None:
    said = snapshot(
        routes={"/orders/<id>": route(state="upstream")},
        pools=[{"name": "main", "kind": "database", "size": 3, "in_use": 3, "waiting": 2}],
        stalls={"top": [{"line": "v.py:7", "count": 4, "seconds": 2.0, "longest_seconds": 1.5}], "last": []},
        held=[{"used": "v.py:30", "upstream": "v.py:34", "host": "h", "count": 5, "seconds": 2, "held_seconds": 3}],
        locks={"deadlocks": [{"since_seconds": 3, "members": [{"route": "/left", "lock": "L1", "stack": ["v.py:3"]}]}]},
        upstreams={"api:443": {"waits": 3, "seconds": 1.0}},
    )
    client: Any = top.client
    client.said = shown(seen(1, said))
    top.refresh()
    pages = []
    for _ in range(9):
        pages.append(screen(top))
        top.press("turn")

    for words in ("upstream 100%", "database main", "v.py:7", "v.py:34", "/left", "api:443", "lives: 100 started"):
        assert any(words in page for page in pages), words
    assert screen(top) == pages[0], "round again"


def test_a_server_that_does_not_answer_keeps_no_key_waiting() -> None:
    """Another greenlet asks; and not again before there is an answer."""
    asked: list[Any] = []
    client: Any = FakeClient(shown(seen(said=snapshot(in_flight=[request()]))))
    top = Top(client, spawn=asked.append)

    top.refresh()
    top.refresh()
    assert len(asked) == 1
    assert "Asking" in screen(top)
    asked.pop()()
    top.press("look")
    assert "Asking the worker" in screen(top)
    top.press("back")
    asked.pop()()
    assert "v.py:3" not in screen(top), "nobody looks there any more"
    top.press("quit")
    assert top.is_over


def test_keys_typed_at_once_are_all_read() -> None:
    assert keys_in(b"\x1b[A\x1b[Bs\x1bpv\rq") == ["up", "down", "sort", "back", "pause", "turn", "look", "quit"]
    assert keys_in(b"\xff\x00xyz") == []
