"""`python -m greenroom top`: the view in a terminal, for an operator who came by ssh.

Everything shown is text and never markup: what came from outside can neither colour nor move anything.
"""

import os
import select
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from .. import clock
from ..errors import GreenroomError
from .client import Client, OpsError
from .verdict import duration

TICK_SECONDS = 1.0
STYLES = {"ok": "green", "watch": "yellow", "bad": "red"}
SORTS = {"age": "age_seconds", "since": "state_seconds", "route": "route", "state": "state", "worker": "worker"}
KEYS = "q quit · p pause · s sort · ↑↓ choose · Enter look inside · Esc back"
ESCAPES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b": "back"}
LETTERS = {
    b"q": "quit",
    b"\x03": "quit",
    b"p": "pause",
    b" ": "pause",
    b"s": "sort",
    b"k": "up",
    b"j": "down",
    b"\r": "look",
    b"\n": "look",
    b"\x7f": "back",
}


class Top:
    """What is on the screen; `press` and `refresh` change it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.view: dict[str, Any] | None = None
        self.trouble = ""
        self.is_paused = False
        self.is_over = False
        self.sort = "age"
        self.chosen = 0
        self.inside: tuple[dict[str, Any], dict[str, Any]] | None = None

    def refresh(self) -> None:
        """Ask for news, unless paused. A server that is gone for a while is waited for."""
        if self.is_paused:
            return
        try:
            self.view, self.trouble = self.client.view(), ""
        except OpsError as exc:
            self.trouble = str(exc)

    def press(self, key: str) -> None:
        actions: dict[str, Callable[[], None]] = {
            "quit": self._quit,
            "pause": self._pause,
            "sort": self._next_sort,
            "up": lambda: self._choose(-1),
            "down": lambda: self._choose(1),
            "look": self._look,
            "back": self._back,
        }
        if key in actions:
            actions[key]()

    def _quit(self) -> None:
        self.is_over = True

    def _pause(self) -> None:
        self.is_paused = not self.is_paused

    def _next_sort(self) -> None:
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]

    def _choose(self, step: int) -> None:
        self.chosen = min(max(0, self.chosen + step), max(0, len(self.rows()) - 1))

    def _back(self) -> None:
        self.inside = None

    def _look(self) -> None:
        rows = self.rows()
        if not rows:
            return
        row = rows[min(self.chosen, len(rows) - 1)]
        try:
            self.inside = row, self.client.stacks(row["pid"], row["id"])
        except OpsError as exc:
            self.inside = row, {"error": str(exc)}

    def rows(self) -> list[dict[str, Any]]:
        key = SORTS[self.sort]
        rows: list[dict[str, Any]] = (self.view or {}).get("in_flight", [])
        if key.endswith("seconds"):
            return sorted(rows, key=lambda row: -(row.get(key) or 0.0))
        return sorted(rows, key=lambda row: (str(row.get(key)), -(row.get("age_seconds") or 0.0)))

    def render(self, height: int = 50) -> RenderableType:
        parts: list[RenderableType] = []
        if self.trouble:
            parts.append(Panel(Text(self.trouble), style="red"))
        if self.view is None:
            return Group(*parts, Text("Asking…" if not self.trouble else "Trying again…"))
        if self.inside is not None:
            return Group(*parts, _inside(*self.inside), Text(KEYS, style="dim"))
        parts += [_verdict(self.view), _numbers(self.view), _workers(self.view)]
        room = max(5, height - 14 - len(self.view["workers"]) - 2 * len(parts))
        parts.append(_in_flight(self.rows(), self.chosen, self.sort, room, self.view))
        return Group(*parts, Text(("PAUSED · " if self.is_paused else "") + KEYS, style="dim"))


def _verdict(view: Mapping[str, Any]) -> Panel:
    verdict = view["verdict"]
    words = Text(verdict["sentence"], style=f"bold {STYLES.get(verdict['level'], '')}")
    if verdict.get("advice"):
        words.append(f"\n{verdict['advice']}", style="default not bold")
    for other in verdict["others"][:3]:
        words.append(f"\nalso: {other['sentence']}", style="default not bold")
    title = Text(f"greenroom {', '.join(view['about'].get('bind', []))}")
    return Panel(words, title=title, title_align="left", border_style=STYLES.get(verdict["level"], "none"))


def _numbers(view: Mapping[str, Any]) -> Text:
    total = view["total"]
    full = " · ".join(f"{row['name']} {row['ratio']:.0%} ({row['text']})" for row in view["saturation"])
    p50, p99 = (duration(total[name]) if total[name] is not None else "-" for name in ("p50", "p99"))
    return Text(
        f"{total['requests_rate']:.3g} requests/s, {total['shed_rate']:.3g} turned away, "
        f"{total['error_rate']:.2g} failed · "
        f"{total['in_flight']:g} in flight, {total['queued']:g} queue · p50 {p50}, p99 {p99} · "
        f"lag {duration(total['lag_seconds'])}\n{full}"
    )


def _workers(view: Mapping[str, Any]) -> Table:
    table = Table(expand=True, box=None, header_style="dim")
    for name in (
        "worker",
        "pid",
        "state",
        "in flight",
        "queue",
        "req/s",
        "p95",
        "requests",
        "stalls",
        "lag",
        "CPU",
        "memory",
    ):
        table.add_column(name, justify="left" if name == "state" else "right")
    for row in view["workers"]:
        state = row["state"] + (" ?" if row["is_stale"] else "")
        style = "red" if row["lag_seconds"] >= 1 or row["state"] in ("gone", "stopped") else ""
        p95 = "-" if row["p95"] is None else duration(row["p95"])
        cells = (
            *(row["number"], row["pid"], state, f"{row['in_flight']:g}", f"{row['queued']:g}"),
            *(f"{row['requests_rate']:.3g}", p95, f"{row['requests']:g}"),
            *(
                row["stalls"],
                duration(row["lag_seconds"]),
                f"{row['cpu_ratio']:.0%}",
                f"{row['rss_bytes'] / 1e6:.0f} MB",
            ),
        )
        table.add_row(*(Text(str(cell)) for cell in cells), style=style)
    return table


def _in_flight(rows: list[dict[str, Any]], chosen: int, sort: str, room: int, view: Mapping[str, Any]) -> Table:
    states = ", ".join(f"{count:g} {state}" for state, count in view["in_flight_states"].items()) or "nothing"
    table = Table(
        title=Text(f"in flight: {states}; by {sort}"), title_justify="left", expand=True, box=None, header_style="dim"
    )
    for name in ("", "route", "age", "state", "for", "since", "left", "worker"):
        table.add_column(name, justify="right" if name in ("age", "since", "left", "worker") else "left", no_wrap=True)
    chosen = min(chosen, len(rows) - 1)
    first = max(0, chosen - room + 1)
    for at, row in list(enumerate(rows))[first : first + room]:
        budget = row.get("budget_seconds")
        cells = (
            ">" if at == chosen else "",
            f"{row.get('method', '')} {row.get('route')}",
            duration(row["age_seconds"]),
            row.get("state"),
            row.get("detail") or "",
            duration(row.get("state_seconds") or 0.0),
            "-" if budget is None else duration(budget),
            f"{row['worker']}{'?' if row.get('is_stale') else ''}",
        )
        table.add_row(*(Text(str(cell)) for cell in cells), style="reverse" if at == chosen else "")
    return table


def _inside(row: Mapping[str, Any], answer: Mapping[str, Any]) -> Panel:
    words = Text(f"id {row['id']}, {row.get('path', '')}, worker {row['worker']} (pid {row['pid']})\n")
    words.append(f"{duration(row['age_seconds'])} old, {row.get('state')} {row.get('detail') or ''}\n")
    if answer.get("error"):
        words.append(f"\n{answer['error']}", style="red")
    if answer.get("gone"):
        words.append("\nIt is answered already.")
    for greenlet in answer.get("greenlets", []):
        words.append(f"\n{greenlet.get('name')} ({greenlet.get('state')})\n", style="bold")
        words.append("\n".join(f"  {call}" for call in greenlet.get("stack", [])) + "\n")
    return Panel(words, title=Text(f"{row.get('method', '')} {row.get('route')}"), title_align="left")


def run(client: Client) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise GreenroomError("top needs a terminal; `python -m greenroom stacks` prints everything once")
    top = Top(client)
    top.view = client.view()  # what is wrong with the address or the token is said before the screen is taken
    console = Console()
    with _keys() as read_keys, Live(console=console, screen=True, auto_refresh=False) as live:
        next_at = clock.now() + TICK_SECONDS
        while not top.is_over:
            live.update(top.render(console.height), refresh=True)
            for key in read_keys(max(0.0, next_at - clock.now())):
                top.press(key)
            if clock.now() >= next_at:
                top.refresh()
                next_at = clock.now() + TICK_SECONDS
    return 0


@contextmanager
def _keys() -> Iterator[Callable[[float], list[str]]]:
    """Reads single keys from the terminal, which is put back as it was."""
    try:
        import termios
        import tty
    except ModuleNotFoundError as exc:
        raise GreenroomError("top needs a Unix terminal; `python -m greenroom stacks` works everywhere") from exc
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _read_keys(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read_keys(descriptor: int, seconds: float) -> list[str]:
    """The names of the keys pressed, as soon as there are any; none within that time is []."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return []
    typed = os.read(descriptor, 256)
    return keys_in(typed) if typed else ["quit"]  # the terminal is gone


def keys_in(typed: bytes) -> list[str]:
    """The names of what was typed, in order; keys without a meaning are left out."""
    names = []
    while typed:
        length = next((length for length in (3, 1) if typed[:length] in ESCAPES), 1)
        name = ESCAPES.get(typed[:length]) or LETTERS.get(typed[:1])
        typed = typed[length:]
        if name:
            names.append(name)
    return names
