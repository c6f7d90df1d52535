"""The terminal shows the same, in text that nothing from outside can colour, and answers keys."""

import io
from typing import Any

import pytest
from rich.console import Console

from greenroom.ops.client import OpsError
from greenroom.ops.top import Top, keys_in

from .fakes import request, seen, shown, snapshot


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
    made = Top(client)
    made.refresh()
    return made


def screen(top: Top) -> str:
    output = io.StringIO()
    Console(file=output, width=140, height=40, color_system=None).print(top.render(40))
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
def test_any_height_of_terminal_will_do(top: Top, height: int) -> None:
    Console(file=io.StringIO(), width=40, height=height).print(top.render(height))


def test_keys_typed_at_once_are_all_read() -> None:
    assert keys_in(b"\x1b[A\x1b[Bs\x1bp\rq") == ["up", "down", "sort", "back", "pause", "look", "quit"]
    assert keys_in(b"\xff\x00xyz") == []
