"""`python -m greenroom top`: the view in a terminal, for an operator who came by ssh.

    verdict          always
    numbers          what is full, and per second
    a page of        in flight | workers | in flight wait for | routes | pools | upstreams | ... ; `v` turns them

Everything shown is text and never markup: what came from outside can neither colour nor move anything. Every line is
cut to the terminal's width and there are never more than its height, so nothing scrolls away.

Asking is done by threads: a server that does not answer keeps no key waiting.
"""

import sys
import textwrap
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.cells import set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from .. import clock
from ..errors import GreenroomError
from .client import Client, OpsError
from .keys import keys
from .shapes import Stacks, View
from .text_report import more_tables, workers_table
from .verdicts.words import duration

TICK_SECONDS = 1.0
LOOK_SECONDS = 0.1
STYLES = {"ok": "green", "watch": "yellow", "bad": "red"}
SORTS = {"age": "age_seconds", "since": "state_seconds", "route": "route", "state": "state", "worker": "worker"}
KEYS = "q quit · v more · s sort · p pause · ↑↓ choose · Enter look inside · Esc back"
Key = tuple[int, str]


def in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


class Top:
    """The state of the screen; `press`, `refresh` and their answers change it. `spawn` runs a question."""

    def __init__(self, client: Client, spawn: Callable[[Callable[[], None]], None] = in_thread) -> None:
        self.client = client
        self.spawn = spawn
        self.view: View | None = None
        self.trouble = ""
        self.is_paused = False
        self.is_over = False
        self.is_changed = True
        self.sort = "age"
        self.page = 0
        # The request that is chosen, by process and id: rows come and go. And where it stood, for when it is gone.
        self.chosen: Key | None = None
        self.chosen_at = 0
        self.inside: tuple[dict[str, Any], Mapping[str, Any]] | None = None
        self.scrolled = 0
        self._is_asking = False
        self._answers: deque[Callable[[], None]] = deque()

    def refresh(self) -> None:
        """Ask for news, unless paused or still asking. A server that is gone for a while is waited for."""
        self.take()
        if self.is_paused or self._is_asking:
            return
        self._is_asking = True
        self.spawn(self._ask)

    def _ask(self) -> None:
        """Runs on: a thread of its own. `take` takes over its answers."""
        try:
            view = self.client.view()
            self._answers.append(lambda: self._heard(view, ""))
        except OpsError as exc:
            words = str(exc)
            self._answers.append(lambda: self._heard(self.view, words))

    def _heard(self, view: View | None, trouble: str) -> None:
        self._is_asking = False
        if not self.is_paused:
            self.view, self.trouble = view, trouble

    def take(self) -> None:
        """Show what other threads have learnt since the last look."""
        while self._answers:
            self._answers.popleft()()
            self.is_changed = True

    def press(self, key: str) -> None:
        self.take()
        actions: dict[str, Callable[[], None]] = {
            "quit": self._quit,
            "pause": self._pause,
            "sort": self._next_sort,
            "turn": self._turn,
            "up": lambda: self._choose(-1),
            "down": lambda: self._choose(1),
            "look": self._look,
            "back": self._back,
        }
        if key in actions:
            actions[key]()
            self.is_changed = True

    def _quit(self) -> None:
        self.is_over = True

    def _pause(self) -> None:
        self.is_paused = not self.is_paused

    def _next_sort(self) -> None:
        names = list(SORTS)
        self.sort = names[(names.index(self.sort) + 1) % len(names)]

    def _turn(self) -> None:
        self.page += 1
        self.inside, self.scrolled = None, 0

    def _choose(self, step: int) -> None:
        if self.inside is not None or not self._shows_requests():
            self.scrolled = max(0, self.scrolled + step)
            return
        rows = self.rows()
        if rows:
            self.chosen_at = min(max(0, self.index(rows) + step), len(rows) - 1)
            self.chosen = _key(rows[self.chosen_at])

    def index(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Where the chosen request is now; where it was, if it is gone."""
        at = next((at for at, row in enumerate(rows) if _key(row) == self.chosen), None)
        self.chosen_at = min(self.chosen_at, max(0, len(rows) - 1)) if at is None else at
        return self.chosen_at

    def _back(self) -> None:
        self.inside, self.scrolled = None, 0

    def _look(self) -> None:
        rows = self.rows()
        if not rows or not self._shows_requests():
            return
        row = rows[self.index(rows)]
        self.chosen = _key(row)
        self.inside, self.scrolled = (row, {"asking": True}), 0
        self.spawn(lambda: self._ask_inside(row))

    def _ask_inside(self, row: dict[str, Any]) -> None:
        """Runs on: a thread of its own."""
        try:
            answer = self.client.stacks(row["pid"], row["id"])
        except OpsError as exc:
            answer = Stacks(error=str(exc))
        self._answers.append(lambda: self._saw_inside(row, answer))

    def _saw_inside(self, row: dict[str, Any], answer: Stacks) -> None:
        if self.inside is not None and self.inside[0] is row:  # nobody has turned away meanwhile
            self.inside = row, answer

    def rows(self) -> list[dict[str, Any]]:
        key = SORTS[self.sort]
        rows: list[dict[str, Any]] = (self.view or {}).get("in_flight", [])
        if key.endswith("seconds"):
            return sorted(rows, key=lambda row: -(row.get(key) or 0.0))
        return sorted(rows, key=lambda row: (str(row.get(key)), -(row.get("age_seconds") or 0.0)))

    def _shows_requests(self) -> bool:
        return self.view is None or self.page % (len(_pages(self.view)) + 1) == 0

    def render(self, height: int = 50, width: int = 120) -> RenderableType:
        """At most `height` lines, none wider than `width`."""
        self.take()
        top = [Text(line, style="red") for line in _wrapped(self.trouble, width, 3)] if self.trouble else []
        if self.view is None:
            return _lines([*top, Text("Trying again…" if self.trouble else "Asking…")], height)
        if self.inside is not None:
            body = _inside(*self.inside, width)
        else:
            top += [*_verdict(self.view, width, height), *_numbers(self.view, width, height)]
            body = self._page(height - len(top) - 1, width)
        foot = Text(("PAUSED · " if self.is_paused else "") + KEYS, style="dim")
        room = max(0, height - len(top) - 1)
        self.scrolled = min(self.scrolled, max(0, len(body) - room))
        return _lines([*top[: height - 1], *body[self.scrolled :][:room], foot], height)

    def _page(self, room: int, width: int) -> list[Text]:
        view = self.view or {}
        pages = _pages(view)
        number = self.page % (len(pages) + 1)
        if number:
            title, head, rows = pages[number - 1]
            return [Text(f"{title} ({number + 1} of {len(pages) + 1})", style="bold"), *_table(head, rows, width)]
        _, head, rows = workers_table(view)
        workers = _table(head, rows, width, [_worker_style(row) for row in view["workers"]])
        # Most of the room is for the requests.
        most = max(2, room // 3)
        if len(workers) > most:
            workers = [*workers[: most - 1], Text(f"  and {len(workers) - most + 1} more workers", style="dim")]
        return [*workers, *self._in_flight(room - len(workers), width)]

    def _in_flight(self, room: int, width: int) -> list[Text]:
        rows, view = self.rows(), self.view or {}
        states = ", ".join(f"{count:g} {state}" for state, count in view["in_flight_states"].items()) or "nothing"
        chosen, room = self.index(rows), max(1, room - 2)
        first = max(0, chosen - room + 1)
        # Columns of one width stand first: a long route takes nothing from them.
        rest = max(20, width - 48)
        widths = (1, 7, 9, 7, 7, 6, rest * 6 // 10, rest - rest * 6 // 10)
        head = _columns(("", "age", "state", "since", "left", "worker", "route", "for"), widths)
        return [
            Text(f"in flight: {states}; by {self.sort}", style="bold"),
            Text(head, style="dim"),
            *(
                Text(_columns(_request_cells(row, is_chosen=at == chosen), widths), style="reverse" * (at == chosen))
                for at, row in list(enumerate(rows))[first : first + room]
            ),
        ]


def _key(row: Mapping[str, Any]) -> Key:
    return row["pid"], row["id"]


def _pages(view: Mapping[str, Any]) -> list[Any]:
    """Return the pages beside the requests; empty ones as well, so that they stay in their places."""
    return [*more_tables(view), _deadlocks(view)]


def _deadlocks(view: Mapping[str, Any]) -> tuple[str, Sequence[str], list[Sequence[Any]]]:
    rows: list[Sequence[Any]] = []
    for deadlock in view["deadlocks"]:
        for member in deadlock.get("members") or []:
            name = member.get("route") or member.get("request") or "a thread"
            rows.append((deadlock["worker"], duration(deadlock.get("since_seconds") or 0.0), member.get("lock"), name))
            rows += [("", "", "", f"  {call}") for call in member.get("stack") or []]
    return "deadlocks", ("worker", "for", "waits for", "who, and where"), rows


def _wrapped(words: str, width: int, most: int) -> list[str]:
    """At most `most` lines."""
    lines = textwrap.wrap(words, max(10, width))
    return lines if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][: max(0, width - 1)]}…"]


def _verdict(view: Mapping[str, Any], width: int, height: int) -> list[Text]:
    verdict = view["verdict"]
    is_low = height < 35
    lines = [Text(f"greenroom {', '.join(view['about'].get('bind', []))}", style="dim")]
    style = f"bold {STYLES.get(verdict['level'], '')}".strip()
    lines += [Text(line, style=style) for line in _wrapped(verdict["sentence"], width, 2 if is_low else 4)]
    lines += [Text(line) for line in _wrapped(verdict.get("do") or "", width, 1 if is_low else 3)]
    others = verdict["others"][: 2 if is_low else 5]
    return [*lines, *(Text(line) for other in others for line in _wrapped(f"also: {other['sentence']}", width, 1))]


def _numbers(view: Mapping[str, Any], width: int, height: int) -> list[Text]:
    total = view["total"]
    p50, p99 = (duration(total[name]) if total[name] is not None else "-" for name in ("p50", "p99"))
    blocked = f", {total['workers_blocked']:g} of {total['workers']:g} blocked" if total["workers_blocked"] else ""
    now = (
        f"{total['requests_rate']:.3g} requests/s, {total['shed_rate']:.3g} turned away, {total['error_rate']:.2g} "
        f"failed · {total['in_flight']:g} in flight, {total['queued']:g} queue · p50 {p50}, p99 {p99} · "
        f"lag {duration(total['lag_seconds'])}{blocked}"
    )
    most = 2 if height < 35 else 4
    full = " · ".join(f"{row['name']} {row['ratio']:.0%} ({row['text']})" for row in view["saturation"])
    return [Text(line) for words in (now, full) for line in _wrapped(words, width, most)]


def _worker_style(row: Mapping[str, Any]) -> str:
    return "red" if row["lag_seconds"] >= 1 or row["state"] in ("gone", "stopped") else ""


def _request_cells(row: Mapping[str, Any], *, is_chosen: bool) -> tuple[str, ...]:
    budget = row.get("budget_seconds")
    return (
        ">" if is_chosen else "",
        duration(row["age_seconds"]),
        str(row.get("became") or row.get("state")),
        duration(row.get("state_seconds") or 0.0),
        "-" if budget is None else duration(budget),
        f"{row['worker']}{'?' if row.get('is_stale') else ''}",
        f"{row.get('method', '')} {row.get('route')}",
        str(row.get("detail") or ""),
    )


def _columns(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Each cell in its width: what is longer ends in an ellipsis."""
    return " ".join(_fitted(cell, width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def _fitted(cell: str, width: int) -> str:
    sized = set_cell_size(cell, width)
    return sized if sized.startswith(cell) else f"{set_cell_size(cell, width - 1)}…"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], width: int, styles: Sequence[str] = ()) -> list[Text]:
    """Columns as wide as they need; the last ones are cut where the line ends."""
    if not rows:
        return [Text("  none", style="dim")]
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(len(row[at]) for row in [list(head), *cells]) for at in range(len(head))]
    lines = [Text(_columns(head, widths), style="dim")]
    lines += [Text(_columns(row, widths), style=styles[at] if styles else "") for at, row in enumerate(cells)]
    return lines


def _inside(row: Mapping[str, Any], answer: Mapping[str, Any], width: int) -> list[Text]:
    lines = [
        Text(f"{row.get('method', '')} {row.get('route')}", style="bold"),
        Text(f"id {row['id']}, {row.get('path', '')}, worker {row['worker']} (pid {row['pid']})"),
        Text(f"{duration(row['age_seconds'])} old, {row.get('state')} {row.get('detail') or ''}"),
    ]
    if answer.get("asking"):
        lines.append(Text("Asking the worker…"))
    if answer.get("error"):
        lines += [Text(line, style="red") for line in _wrapped(str(answer["error"]), width, 4)]
    if answer.get("gone"):
        lines.append(Text("It is answered already."))
    for greenlet in answer.get("greenlets", []):
        lines += [Text(""), Text(f"{greenlet.get('name')} ({greenlet.get('state')})", style="bold")]
        own = greenlet.get("own")
        calls = enumerate(greenlet.get("stack", []))
        lines += [Text(f"{'>' if place == own else ' '} {call}") for place, call in calls]
    return lines


def _lines(lines: Sequence[Text], height: int) -> RenderableType:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines[: max(1, height)])


def run(client: Client) -> int:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise GreenroomError("top needs a terminal; `python -m greenroom stacks` prints everything once")
    top = Top(client)
    top.view = client.view()  # what is wrong with the address or the token is said before the screen is taken
    console = Console()
    with keys() as read_keys, Live(console=console, screen=True, auto_refresh=False) as live:
        next_at = clock.now() + TICK_SECONDS
        while not top.is_over:
            top.take()
            if top.is_changed:
                top.is_changed = False
                live.update(top.render(console.height, console.width), refresh=True)
            for key in read_keys(LOOK_SECONDS):
                top.press(key)
            if clock.now() >= next_at:
                top.refresh()
                next_at = clock.now() + TICK_SECONDS
    return 0
