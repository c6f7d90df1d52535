"""Looking at all workers once a second: the scoreboard, their processes, and what they say themselves.

Three sources, because each fails in its own way: the scoreboard is there always, and its heartbeat stops with the loop;
a worker's thread knows everything, and waits while C code keeps the GIL; the process says whether it lives, and
computes.
"""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .. import clock
from ..insight.stacks import UNKNOWN
from ..worker.balance import COUNTERS, HEARTBEAT_SECONDS, Scoreboard, State
from . import processes
from .counters import Counters, add_lists, difference
from .leaks import Leaks
from .limits import Limits
from .native_line import peek
from .shapes import Row
from .socket_folder import SocketFolder, read_json
from .usual import Usual
from .worker_client import Asker

logger = logging.getLogger(__name__)

TICK_SECONDS = 1.0
ANSWER_SECONDS = 0.5
# Neither its loop nor its thread has moved for so long: somebody keeps the GIL.
MUTE_SECONDS = 1.2
# Rates and percentiles are those of the last so many seconds.
WINDOW_TICKS = 15
HISTORY_TICKS = 120
MOST_EVENTS = 50
MOST_ROUTES = 3
CPU_WINDOW_SECONDS = 2.5
# The heartbeat comes 20 times a second; on a busy machine it is late without anybody's fault.
BLOCKED_SECONDS = 1.0
STALL_NAMES = ("line", "route", "seconds", "holds_gil")


@dataclass
class Seen:
    """One worker, as it was seen last."""

    number: int
    pid: int
    line: dict[str, float]
    first_seen_at: float
    seen_at: float = 0.0
    snapshot: Row | None = None
    answered_at: float | None = None
    where: Row | None = None  # its descriptors with what it can't say while it is blocked
    peeked: Row | None = None  # while C code keeps its GIL: what faulthandler saw
    # While its loop stands still: {"seconds", "line", "route", "stack", "holds_gil"}, as far as they are known.
    stall: Row | None = None
    last_in_flight: int = 0  # when it was last looked at
    is_stopped: bool = False
    is_gone: bool = False  # the process has ended, and the arbiter has not noticed yet
    cpu_ratio: float = 0.0
    cpu_seen: deque[tuple[float, float]] = field(default_factory=deque)
    # Of the window's looks: when, and the line's counters; and how many requests were in each latency bucket.
    counted: deque[tuple[float, dict[str, float]]] = field(default_factory=lambda: deque(maxlen=WINDOW_TICKS))
    buckets: deque[list[float]] = field(default_factory=lambda: deque(maxlen=WINDOW_TICKS))

    @property
    def state(self) -> State:
        return State(int(self.line["state"]))

    @property
    def silent_seconds(self) -> float:
        """How long the loop has not turned, as the scoreboard shows it."""
        return max(0.0, self.seen_at - self.line["heartbeat"]) if self.line["heartbeat"] else 0.0

    @property
    def in_flight(self) -> int:
        """The scoreboard's number is written when the loop turns: of a blocked one, what it had when requests came."""
        return int(max(self.line["in_flight"], self.line.get("offered", 0) if self.is_blocked else 0))

    @property
    def is_blocked(self) -> bool:
        return self.silent_seconds >= BLOCKED_SECONDS and self.state not in (State.EMPTY, State.BOOTING)

    def current_stall(self) -> Row:
        """The facts of the stall that goes on now; {} if there is none, or nothing is known of it."""
        if not self.is_blocked:
            return {}
        if self.peeked is not None:
            return self.peeked
        # A report from before its loop stood still is of another stall.
        is_fresh = self.unanswered_seconds < self.silent_seconds
        return ((self.snapshot or {}).get("stalls") or {}).get("current") or {} if is_fresh else {}

    def rate(self, name: str) -> float:
        """How much a counter of its line grew a second, lately."""
        if len(self.counted) < 2:
            return 0.0
        (began, before), (ended, after) = self.counted[0], self.counted[-1]
        return max(0.0, after[name] - before[name]) / (ended - began) if ended > began else 0.0

    @property
    def unanswered_seconds(self) -> float:
        """How old its last answer is."""
        return self.seen_at - (self.first_seen_at if self.answered_at is None else self.answered_at)


@dataclass(frozen=True)
class Moment:
    """Everything known at one moment. `before` are the sums of `window_seconds` ago."""

    now: float
    at: float
    totals: dict[str, float]
    workers: list[Seen]
    sums: Row
    before: Row
    totals_before: dict[str, float]
    window_seconds: float
    history: list[dict[str, float]]
    events: list[Row]
    machine_cpu_ratio: float
    cores: int
    is_stopping: bool = False
    limits: Row = field(default_factory=dict)  # of the machine, see limits
    leaks: list[Row] = field(default_factory=list)  # see leaks
    usual: Usual = field(default_factory=Usual)
    # Of the last reload: when it was (on the clock, and in Unix time), and those that could not boot since.
    reload: Row = field(default_factory=dict)
    boot_failures: list[Row] = field(default_factory=list)
    began: float = 0.0  # when the collector did


class Collector:
    """Runs on: one thread of the ops process."""

    def __init__(
        self,
        board: Scoreboard,
        socket_folder: SocketFolder,
        *,
        cores: int,
        asker: Asker | None = None,
        peek: Callable[[int, Any], dict[str, Any] | None] = peek,
        limits: Limits | None = None,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.board = board
        self.socket_folder = socket_folder
        self.cores = cores
        self.asker = asker or Asker(now)
        self.peek = peek
        self.now = now
        self.counters = Counters(socket_folder.counters)
        self.workers: dict[int, Seen] = {}
        self.history: deque[dict[str, float]] = deque(maxlen=HISTORY_TICKS)
        self.events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self.limits = limits or Limits(now=now)
        self.leaks = Leaks(now)
        self.usual = Usual()
        self.began = now()
        self.reload: dict[str, Any] = {}
        self._could_not_start: set[int] = set()
        self.boot_failures: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self._windows: deque[tuple[float, dict[str, float], dict[str, Any]]] = deque(maxlen=WINDOW_TICKS)
        self._died = board.read()[0]["workers_died"]
        self._fold_what_was_left()

    def tick(self) -> Moment:
        """Look once. Takes as long as the slowest answer, at most ANSWER_SECONDS."""
        self._look_for_boot_failures()
        self._look(*self.board.read())
        living = [seen for seen in self.workers.values() if not seen.is_gone]
        self.asker.ask([(seen.pid, self.socket_folder.socket(seen.pid)) for seen in living], {"ask": "snapshot"})
        for pid, answer in self.asker.wait(ANSWER_SECONDS).items():
            self._heard(pid, answer)
        totals, lines = self.board.read()  # as late as the answers are
        self._look(totals, lines)
        for seen in self.workers.values():
            seen.counted.append((seen.seen_at, {name: seen.line[name] for name in COUNTERS}))
            if seen.where is None:
                seen.where = read_json(self.socket_folder.descriptors(seen.pid))
            is_mute = seen.unanswered_seconds > MUTE_SECONDS and seen.silent_seconds > MUTE_SECONDS
            may_peek = is_mute and not seen.is_gone and not seen.is_stopped
            seen.peeked = self.peek(seen.pid, seen.where) if may_peek else None
            self._note_stall(seen)
            if not seen.is_gone:
                seen.last_in_flight = seen.in_flight
        return self._moment(totals)

    def _look(self, totals: Mapping[str, float], lines: list[dict[str, float]]) -> None:
        now = self.now()
        found = {int(line["pid"]): line for line in lines if line["pid"]}
        for pid, line in found.items():
            if pid not in self.workers:
                self.workers[pid] = Seen(int(line["number"]), pid, line, now)
                self._note("started", int(line["number"]), pid)
            seen = self.workers[pid]
            seen.line, seen.seen_at = line, now
            self._look_at_process(seen)
        self._bury([self.workers.pop(pid) for pid in set(self.workers) - set(found)], totals["workers_died"])

    def _look_at_process(self, seen: Seen) -> None:
        look = processes.look_at(seen.pid)
        seen.is_gone, seen.is_stopped = look.is_gone, look.is_stopped
        if look.cpu_seconds is None:
            return
        seen.cpu_seen.append((seen.seen_at, look.cpu_seconds))
        while len(seen.cpu_seen) > 2 and seen.seen_at - seen.cpu_seen[1][0] > CPU_WINDOW_SECONDS:
            seen.cpu_seen.popleft()
        (began, used), (ended, used_now) = seen.cpu_seen[0], seen.cpu_seen[-1]
        if ended - began > 0.2:
            seen.cpu_ratio = (used_now - used) / (ended - began)

    def _heard(self, pid: int, answer: Any) -> None:
        seen = self.workers.get(pid)
        if seen is None or not isinstance(answer, dict) or "error" in answer:
            if isinstance(answer, dict):
                logger.debug("worker %s answered with an error: %s", pid, answer.get("error"))
            return
        seen.snapshot, seen.answered_at = answer, self.now()
        seen.buckets.append(_sum_of_buckets(answer))
        self.counters.update(answer, pid)

    @staticmethod
    def _note_stall(seen: Seen) -> None:
        """Remember by what a worker is blocked: if that is the end of it, it can't say so itself."""
        if seen.is_gone or seen.is_stopped:
            return  # a dead one's heart does not beat either
        known, found = seen.stall or {}, seen.current_stall()
        goes_on = seen.silent_seconds > known.get("seconds", 0.0)
        if not seen.is_blocked:
            seen.stall = None
        elif found.get("line") or not (goes_on and known.get("line")):
            seen.stall = {"line": "", "route": "", "stack": [], "holds_gil": False, **found}
        if seen.stall is not None:
            seen.stall["seconds"] = seen.silent_seconds

    def _bury(self, gone: list[Seen], died_ever: float) -> None:
        """Some workers are gone. How many of them died the scoreboard knows; those who said nothing, most likely."""
        died, self._died = died_ever - self._died, died_ever
        words = {seen.pid: read_json(self.socket_folder.last_words(seen.pid)) for seen in gone}
        for seen in sorted(gone, key=lambda seen: (words[seen.pid] is not None, seen.state == State.DRAINING)):
            if seen.pid in self._could_not_start:
                self._could_not_start.discard(seen.pid)
                self.asker.forget([seen.pid])
                self.socket_folder.tidy(seen.pid)
                continue
            if seen.state == State.BOOTING and self._was_dismissed(seen.pid):
                died -= 1  # as the scoreboard counts it; nobody missed a worker that had not begun
                self._gone(seen, words[seen.pid], is_dead=False)
                continue
            self._gone(seen, words[seen.pid], is_dead=died > 0)
            died -= 1

    def _was_dismissed(self, pid: int) -> bool:
        """Whether it went as it was told to: a reload that is given up ends workers that are about to begin."""
        ending = read_json(self.socket_folder.ending(pid)) or {}
        return ending.get("code") == 0 or ending.get("signal") == "SIGTERM"

    def _gone(self, seen: Seen, last_words: dict[str, Any] | None, *, is_dead: bool) -> None:
        self.asker.forget([seen.pid])
        self.counters.update(last_words or {}, seen.pid)
        for start_id in self.counters.of(seen.pid):
            self.counters.fold(start_id, last_words)
        ending = read_json(self.socket_folder.ending(seen.pid)) or {}
        self.socket_folder.tidy(seen.pid)
        stall = self._last_stall(seen, last_words) if is_dead else None
        routes = Counter(request["route"] for request in (seen.snapshot or {}).get("in_flight") or [])
        had = {"had": seen.last_in_flight, "routes": [route for route, _ in routes.most_common(MOST_ROUTES)]}
        more = {**had, "stall": stall, "ending": ending}
        self._note("died" if is_dead else "ended", seen.number, seen.pid, **more)

    def _last_stall(self, seen: Seen, last_words: Mapping[str, Any] | None) -> dict[str, Any] | None:
        """By what a worker that died was blocked, if it was. One that could still say so has counted it itself."""
        said = (((last_words or {}).get("stalls") or {}).get("last") or [None])[0]
        if said is not None:
            return {name: said[name] for name in STALL_NAMES}
        stall = seen.stall
        if stall is None:
            return None
        self.counters.add_last_stall(stall["line"] or UNKNOWN, stall["seconds"], stall["route"], time.time())
        return {name: stall[name] for name in STALL_NAMES}

    def _fold_what_was_left(self) -> None:
        """Count workers that ended while no ops process ran, by their last words or the last counts seen."""
        pids = {int(line["pid"]) for line in self.board.read()[1]}
        for path in self.socket_folder.folder.glob("*.json"):
            said = read_json(path)
            if path.stem.isdecimal() and int(path.stem) not in pids and said and "start_id" in said:
                self.counters.update(said)
                self.counters.fold(said["start_id"], said)
                self.socket_folder.tidy(int(path.stem))
        for start_id, pid in list(self.counters.pids.items()):
            if pid not in pids:
                self.counters.fold(start_id)

    def _note(self, kind: str, number: int, pid: int, **more: Any) -> None:
        self.events.append({"at": time.time(), "since": self.now(), "kind": kind, "worker": number, "pid": pid, **more})

    def _moment(self, totals: dict[str, float]) -> Moment:
        now = self.now()
        self.counters.save()
        sums = self.counters.total()
        before_at, totals_before, sums_before = self._windows[0] if self._windows else (now, totals, sums)
        self._windows.append((now, totals, sums))
        workers = sorted(self.workers.values(), key=lambda seen: (seen.number, seen.pid))
        self._remember(now, totals, workers)
        self.usual.look(now, sums["routes"])
        self._look_for_reload()
        sizes = {seen.pid: (seen.number, seen.line["rss_bytes"]) for seen in workers if not seen.is_gone}
        limits = self.limits.look(sizes, totals["requests"])
        return Moment(
            now=now,
            at=time.time(),
            totals=totals,
            workers=workers,
            sums=sums,
            before=sums_before,
            totals_before=totals_before,
            window_seconds=now - before_at,
            history=list(self.history),
            events=list(self.events),
            machine_cpu_ratio=processes.machine_cpu_ratio(),
            cores=self.cores,
            is_stopping=self.board.is_stopping,
            limits=limits,
            leaks=self.leaks.look(
                (seen.pid, seen.number, ((seen.snapshot or {}).get("greenlets") or {}).get("by_spawner") or {})
                for seen in workers
                if not seen.is_gone
            ),
            usual=self.usual,
            reload=self.reload,
            boot_failures=list(self.boot_failures),
            began=self.began,
        )

    def _look_for_boot_failures(self) -> None:
        """Those that could not import the application. The scoreboard counts them among the dead; nobody lost a thing.

        One may have come and gone between two looks.
        """
        for path in self.socket_folder.folder.glob("*.boot"):
            failure = read_json(path)
            path.unlink(missing_ok=True)
            if failure is None or not path.stem.isdecimal():
                continue
            pid = int(path.stem)
            number = self.workers[pid].number if pid in self.workers else 0
            self._could_not_start.add(pid)
            self._died += 1
            # When it was, and not when it is noticed: the next reload may come in between.
            self.boot_failures.append({"since": self.now(), **failure, "worker": number, "pid": pid})
            self._note("could not start", number, pid, error=failure.get("error", ""), line=failure.get("line", ""))

    def _look_for_reload(self) -> None:
        said = read_json(self.socket_folder.reload)
        if said is not None and said.get("at") != self.reload.get("at"):
            # Not one that was before this process.
            self.reload = {"at": said["at"], "since": said["since"], "refused": said.get("refused")}
            self._note("reload refused" if said.get("refused") else "reload", 0, 0)

    def _remember(self, now: float, totals: dict[str, float], workers: list[Seen]) -> None:
        last_at, last_totals, _ = self._windows[-2] if len(self._windows) > 1 else (now, totals, None)
        seconds = now - last_at
        grown = difference(totals, last_totals, COUNTERS)
        rates = {name: amount / seconds if seconds > 0 else 0.0 for name, amount in grown.items()}
        self.history.append(
            {
                "now": now,
                **rates,
                "in_flight": sum(seen.in_flight for seen in workers),
                "lag_seconds": max((lag_seconds(seen) for seen in workers), default=0.0),
                "cpu_ratio": max((seen.cpu_ratio for seen in workers), default=0.0),
            }
        )


def lag_seconds(seen: Seen) -> float:
    """How late the loop is: when it turned last, or now, if it does not turn."""
    if seen.state in (State.BOOTING, State.EMPTY):
        return 0.0
    late = seen.silent_seconds - 2 * HEARTBEAT_SECONDS
    return max(seen.line["lag_seconds"], late, 0.0)


def _sum_of_buckets(snapshot: dict[str, Any]) -> list[float]:
    total: list[float] = []
    for route in (snapshot.get("routes") or {}).values():
        total = add_lists(total, route.get("buckets", []))
    return total
