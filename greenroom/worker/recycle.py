"""Replacing workers, the replacement first. The arbiter's part.

gunicorn starts a worker's replacement when the worker is gone, and on a reload it stops the old workers before the new
ones have imported the application; new code that can't be imported ends the whole server. Here, instead:

    alive   workers that were not told to stop, and do not drain
    old     those of them to be replaced: one that asks for it (RETIRING) at a time; in a reload, all
    fresh   the other ones

    1. as many fresh workers as are wanted: start what is missing
    2. at most as many workers serve as are wanted: for each fresh one that serves, one of the old has to go
    3. no fresh worker of a reload could start, and one has failed: the reload is given up, the old ones are kept

Whatever happens in between (a worker dies, TTIN, TTOU, a second HUP), the next turn goes on from there.

The one thing used here that gunicorn does not document: its arbiter calls `self.manage_workers()` in each turn of its
loop and at the end of `reload()`, and registers `self.signal` as its signal handler after the hook on_starting. Its
use of `num_workers`, `spawn_worker()`, `kill_worker()` and `WORKERS` is public. tests/greenroom/worker/
test_recycle.py fails when gunicorn changes any of it.
"""

import logging
import os
import random
import signal
import time
from collections.abc import Callable
from types import FrameType

from gunicorn.errors import HaltServer

from .. import clock, forking, replacements, surroundings
from ..gunicorns_parts import Arbiter, Worker
from ..reloading import call_off_reload
from . import gunicorns
from .balance import ACCEPTING, Line, Scoreboard, State

logger = logging.getLogger("gunicorn.error")

LONGEST_BACKOFF_SECONDS = 30.0
STAGGER_SECONDS = 0.1
# Signals to a process group reach the arbiter more than once; a person who means it needs longer.
SECOND_TERM_SECONDS = 0.5
# A worker that has been told to go and shows no sign of it is told again this often.
TELL_AGAIN_SECONDS = 1.0
# A reload that takes longer does not keep the next one waiting: its new code may hang.
COALESCE_SECONDS = 5.0
# A start that fails so often in the same way will not succeed by itself.
MOST_FAILED_STARTS = 3
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Fleet:
    """The workers of one arbiter. Runs on: arbiter."""

    def __init__(self, server: Arbiter, board: Scoreboard, now: Callable[[], float] = clock.now) -> None:
        self.server = server
        self.board = board
        self.now = now
        self.known: dict[int, Worker] = {}  # the workers of the last turn, by pid
        self.old: set[int] = set()
        self.dismissed: set[int] = set()
        self.is_reloading = False
        self.is_reload_queued = self.is_reload_wanted = False  # HUPs that came meanwhile are one, afterwards
        self.reload_began = 0.0
        self.told: dict[int, float] = {}  # when those that are dismissed were told to go
        self.pid = os.getpid()
        self.failures = 0
        self.spawn_not_before = 0.0
        self.has_served = False
        self.is_in_turn = self.is_reaping_due = False
        self.halt: HaltServer | None = None  # raised in the next turn
        self.failed_starts: list[float] = []  # the causes of those that failed in the same way, one after the other
        self._term_at: float | None = None

    def install(self) -> bool:
        """Take over from gunicorn, in its hook on_starting. False where this gunicorn is another than we know."""
        # Where there is none, nothing is put in place.
        reap: Callable[[], None] = getattr(self.server, "reap_workers", lambda: None)
        is_in_place = replacements.put(
            "gunicorn",
            (self.server, "manage_workers", self.manage),
            (self.server, "signal", self.on_signal),
            (self.server, "reap_workers", lambda: self.reap(reap)),
        )
        self.board.has_fleet = is_in_place
        return is_in_place

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """The arbiter's signal handler; like gunicorn's it only puts the signal into the queue.

        While it stops gracefully the arbiter listens to SIGINT and SIGQUIT only; a second SIGTERM means the same.
        """
        if os.getpid() != self.pid:
            return  # a worker that has no handlers of its own yet
        if number == signal.SIGHUP and (self.is_reload_queued or self.is_reloading):
            self.is_reload_wanted = True
            return
        self.is_reload_queued |= number == signal.SIGHUP
        if number in STOP_SIGNALS:
            self.board.is_stopping = True
        if number == signal.SIGTERM:
            if self._term_at is not None and self.now() - self._term_at > SECOND_TERM_SECONDS:
                number = signal.SIGQUIT
            else:
                self._term_at = self.now()
        gunicorns.queue_signal(self.server, number)

    def reap(self, reap: Callable[[], None]) -> None:
        """Reap with gunicorn's own method. A server that stops already is not stopped a second time.

        gunicorn raises HaltServer for each worker that could not start, also while it waits for the last ones to end:
        its exit status was 1, with a traceback, instead of what the first worker said.

        gunicorn 23 reaps in its handler of SIGCHLD, which is a greenlet of its own in a patched server: nobody would
        get the HaltServer that is raised there. It is kept for the next turn, which the signal makes begin at once.
        """
        if self.is_in_turn:  # not while we go through its workers
            self.is_reaping_due = True
            return
        while True:
            try:
                reap()
                return
            except HaltServer as exc:
                if not self.server.LISTENERS:
                    logger.debug("a worker ended like this while the server stopped: %s", exc)
                elif gunicorns.REAPS_IN_HANDLER:
                    self.halt = self.halt or exc
                else:
                    raise
                gunicorns.forget_the_dead(self.server)

    def begin_reload(self) -> None:
        """Replace everybody. In gunicorn's hook on_reload."""
        self.old = set(self.server.WORKERS) - self.dismissed
        self.is_reloading = True
        self.reload_began = self.now()
        self.is_reload_queued = self.is_reload_wanted = False
        self.failures, self.spawn_not_before = 0, 0.0
        call_off_reload(self.server)

    def manage(self) -> None:
        """One turn; gunicorn calls it about once a second, and whenever a worker has ended."""
        self._halt_if_due()
        self.is_in_turn = True
        try:
            self._turn()
        finally:
            self.is_in_turn = False
        if self.is_reaping_due:
            self.is_reaping_due = False
            self.server.reap_workers()
            self._halt_if_due()

    def _halt_if_due(self) -> None:
        if self.halt is not None:
            raise self.halt

    def _turn(self) -> None:
        self._restore_worker_count()
        self._notice_the_dead()
        wanted = self.server.num_workers
        alive = [pid for pid in self.server.WORKERS if pid not in self.dismissed and self._state(pid) != State.DRAINING]
        self.old &= set(alive)
        if not self.old:
            self.is_reloading = False
            self.old.update([pid for pid in alive if self._state(pid) == State.RETIRING][:1])
        self._reload_again()
        self._tell_again()
        fresh = [pid for pid in alive if pid not in self.old]
        for pid in fresh[: max(0, len(fresh) - wanted)]:
            self._dismiss(pid)
        self.has_served |= any(self._state(pid) in ACCEPTING for pid in fresh)
        serving = sum(self._state(pid) in ACCEPTING for pid in fresh)
        # Those that do not serve yet go first: a reload in a reload.
        leaving = sorted((pid for pid in alive if pid in self.old), key=lambda pid: self._state(pid) in ACCEPTING)
        for pid in leaving[: max(0, len(leaving) - max(0, wanted - serving))]:
            self._dismiss(pid)
        # Those that were dismissed may take their time to go. Not more of them than are wanted, but never nobody.
        room = max(2 * wanted - len(self.server.WORKERS), wanted - len(alive))
        self._spawn(min(wanted - len(fresh), room))
        self.known = dict(self.server.WORKERS)

    def _spawn(self, missing: int) -> None:
        for _ in range(missing):
            if self.now() < self.spawn_not_before:
                return
            forking.hold_signals()  # until the worker has its own handlers: till then ours would take them
            try:
                self.server.spawn_worker()
            # No process, descriptor, memory or disk left: those that there are serve on. gunicorn says with a
            # RuntimeError that worker_tmp_dir is not there.
            except (OSError, RuntimeError) as exc:
                if not self.has_served and (problem := surroundings.no_worker_ever(exc, self.server.cfg)):
                    raise HaltServer(problem, self.server.WORKER_BOOT_ERROR) from exc
                self.failures += 1
                wait_seconds = min(LONGEST_BACKOFF_SECONDS, 2.0 ** (self.failures - 1))
                self.spawn_not_before = self.now() + wait_seconds
                logger.error("no worker can be started (%s); the next attempt is in %g s", exc, wait_seconds)
                return
            finally:
                forking.let_signals_in()
            time.sleep(STAGGER_SECONDS * random.random())

    def _dismiss(self, pid: int) -> None:
        self.dismissed.add(pid)
        self.told[pid] = self.now()
        self.server.kill_worker(pid, signal.SIGTERM)

    def _tell_again(self) -> None:
        """A signal can get lost, on a handler that the application is just replacing: one telling is none."""
        for pid in [pid for pid in self.dismissed if pid in self.server.WORKERS]:
            has_heard = self._state(pid) in (State.DRAINING, State.EMPTY)
            if not has_heard and self.now() - self.told[pid] >= TELL_AGAIN_SECONDS:
                self._dismiss(pid)

    def _reload_again(self) -> None:
        """HUPs that came during a reload make one more, when it is done or takes too long."""
        self.is_reload_queued = False
        is_long = self.now() - self.reload_began >= COALESCE_SECONDS
        if self.is_reload_wanted and (not self.is_reloading or is_long):
            self.is_reload_wanted = False
            self.is_reload_queued = True
            gunicorns.queue_signal(self.server, signal.SIGHUP)

    def _notice_the_dead(self) -> None:
        for pid, worker in self.known.items():
            if pid in self.server.WORKERS:
                continue
            if _line_state(worker) == State.BOOTING and pid not in self.dismissed:
                self._give_up_if_hopeless(worker)
                self._boot_failed(pid)
            self.dismissed.discard(pid)
            self.told.pop(pid, None)
        self.known = {}
        self.board.sweep()
        if self.failures and not any(self._state(pid) == State.BOOTING for pid in self.server.WORKERS):
            self._count_success()

    def _count_success(self) -> None:
        fresh = [pid for pid in self.server.WORKERS if pid not in self.old | self.dismissed]
        if len(fresh) >= self.server.num_workers:
            self.failures = 0

    def _give_up_if_hopeless(self, worker: Worker) -> None:
        """A server that has never served, and does not start time and again, ends with what its workers said."""
        line = _line_of(worker)
        cause = 0.0 if line is None else line.boot_cause
        if cause not in self.failed_starts:
            self.failed_starts.clear()
        self.failed_starts.append(cause)
        if not self.has_served and len(self.failed_starts) >= MOST_FAILED_STARTS:
            raise HaltServer(
                f"{MOST_FAILED_STARTS} workers in a row could not start, in the same way; see what the last one said",
                self.server.WORKER_BOOT_ERROR,
            )

    def _boot_failed(self, pid: int) -> None:
        self.failures += 1
        wait_seconds = min(LONGEST_BACKOFF_SECONDS, 2.0 ** (self.failures - 1))
        self.spawn_not_before = self.now() + wait_seconds
        fresh = [pid for pid in self.server.WORKERS if pid not in self.old | self.dismissed]
        if self.is_reloading and not any(self._state(pid) in ACCEPTING for pid in fresh):
            logger.error("reload given up, a new worker could not start: the old workers go on with the code they have")
            self.is_reloading = False
            self.old.clear()
            for pid in fresh:
                self._dismiss(pid)
        else:
            logger.error("a new worker could not start; the next attempt is in %g s", wait_seconds)

    def _state(self, pid: int) -> float:
        return _line_state(self.server.WORKERS[pid])

    def _restore_worker_count(self) -> None:
        """Restore the number of workers that call_off_reload lowered; new workers look at it."""
        if not self.server.cfg.workers and self.server.num_workers:
            self.server.cfg.set("workers", self.server.num_workers)


def _line_of(worker: Worker) -> Line | None:
    """A worker of another class, after a reload with other settings, has no line."""
    line: Line | None = getattr(worker, "line", None)
    return line


def _line_state(worker: Worker) -> float:
    """A worker without a line is taken to serve."""
    line = _line_of(worker)
    return State.SERVING if line is None else line.state
