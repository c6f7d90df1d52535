"""Stalls: the loop did not turn for longer than the threshold. Which line, which request, how long, whose fault.

How long is known exactly, from the switches of greenlets (see account). Where it was is seen by the loop's thread
itself, which is made to pass a safe point (see safepoint) by one of two:

    the watch thread    asks for it, several times in a long slice; needs the GIL
    a Knock             a timer that the watch thread puts off again and again. While C code holds the GIL (a regular
                        expression) the watch thread can't

Each look stands for the time since the one before, which a call of C code may have filled. Code that keeps the GIL for
long is written into a pipe meanwhile, for the ops process to read (see alarm.Dump, and peek in ops).

The blame: the time that the machine took away is left out of the slice's length, and a rest below the threshold is
nobody's fault:

    stolen    the thread was ready, and the kernel or the hypervisor ran somebody else
    stopped   SIGSTOP, a debugger, a frozen container: the watch thread did not wake, not even to ask for the GIL, which
              it does every few milliseconds, and the loop's thread used no processor. After SIGCONT, only what it used
              of the processor counts

Turns that were too long without one long slice are counted as late: many requests at once, and no line to blame.
"""

import atexit
import contextlib
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent

from .. import clock
from ..forking import release
from . import safepoint, stacks
from .account import CPU, OTHER, Account
from .alarm import Alarm, Dump, Knock
from .garbage import Garbage
from .machine import Machine, sleeps
from .recent import Ring
from .slices import Slices
from .stall_facts import Look, Seen, Stall, StalledLine, most_seen, mostly_holds_gil

logger = logging.getLogger("gunicorn.error")

# As shares of the threshold. The watch thread looks this often; the knock comes when not put off for so long.
LOOK_SHARE = 1 / 3
KNOCK_SHARE = 3 / 4
# faulthandler writes when not put off for so long of the loop's thread's time on a processor.
DUMP_SECONDS = 1.0
DUMP_AGAIN_SECONDS = 0.25
# Stolen time is not known to the millisecond.
BLAME_SHARE = 0.8
MOST_LINES = 200
MOST_LAST = 50
PIPE_BYTES = 262_144
# Lines in the log: so many at once, then one a second. All are counted.
LOG_BURST = 60
REPORT_SECONDS = 0.02
MOST_TRIES = 10
CHARGING = (Slices.switched.__code__, Slices.turned.__code__)
CHARGING_FILES = {code.co_filename for code in (*CHARGING, Account.wait.__code__)}


class Stalls:
    """Finds and keeps them. `slices` tells of long slices; the watch thread calls `look`.

    Runs on: hub, but for `look`, which is the watch thread's, and `stack_now`.
    """

    def __init__(
        self,
        threshold_seconds: float,
        now: Callable[[], float] = clock.now,
        machine: Machine | None = None,
        ring: Ring | None = None,
    ) -> None:
        self.ring = ring
        self.threshold_seconds = threshold_seconds
        self.now = now
        self.machine = machine or Machine()
        self.slices: Slices | None = None
        self.thread_id = 0
        self.total = 0
        self.seconds = 0.0
        self.unblamed = 0
        self.stolen_seconds = 0.0  # of long slices
        self._began_with = self.machine.use()
        self.lines: dict[str, StalledLine] = {}
        self.last: deque[Stall] = deque(maxlen=MOST_LAST)
        self.looks: deque[Look] = deque(maxlen=64)
        self.looked_at = self.passed_at = now()
        self.earlier = self.machine.use()
        # (when the watch thread woke, after how long, for how much of that it slept and did not ask for the GIL)
        self.gaps: deque[tuple[float, float, float]] = deque(maxlen=256)
        self._sleeps = 0
        self.continued_at = 0.0
        self._allowance = float(LOG_BURST)
        self._allowed_at = now()
        self._silent = 0
        self.reader = self._writer = -1
        self._alarms: list[Alarm] = []
        self.garbage = Garbage(threshold_seconds / 2, now)
        self._pending: list[Seen] = []

    @property
    def machine_stolen_seconds(self) -> float:
        """For how long the loop's thread was ready and not let run, as the watch thread last saw."""
        return self.earlier.delayed - self._began_with.delayed

    @property
    def dump_seconds(self) -> float:
        return max(DUMP_SECONDS, self.threshold_seconds)

    @property
    def look_seconds(self) -> float:
        return self.threshold_seconds * LOOK_SHARE

    def start(self, slices: Slices, thread_id: int) -> None:
        """Runs on: worker start-up, in the loop's thread."""
        self.slices = slices
        self.thread_id = thread_id
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)
        os.set_blocking(self._writer, False)  # what does not fit is lost, and the loop's thread not held up
        _enlarge(self._writer)
        if signal.getsignal(signal.SIGCONT) is signal.SIG_DFL:
            signal.signal(signal.SIGCONT, self._continued)
        self.garbage.start()
        if not safepoint.MAIN.install():
            logger.warning("the lines of stalls can't be named: the application handles SIGURG, which insight needs")
        safepoint.MAIN.on_passing = self._passed
        try:
            self._alarms.append(Dump(self._writer, self.dump_seconds, DUMP_AGAIN_SECONDS))
        except OSError as exc:
            logger.info("lines that hold the GIL can't be named: %s", exc)
        atexit.register(self._stop_alarms)  # children don't inherit them

    def begin_to_look(self) -> None:
        """Runs on: watch thread, once."""
        if safepoint.MAIN.is_installed():
            with contextlib.suppress(OSError):  # a Dump can't be made either, and that was told
                self._alarms.append(Knock(self.threshold_seconds * KNOCK_SHARE))

    def stop(self) -> None:
        self._stop_alarms()
        atexit.unregister(self._stop_alarms)
        self.garbage.stop()
        safepoint.MAIN.on_passing = None
        writer, self._writer = self._writer, -1
        if writer >= 0:
            os.close(writer)
            os.close(self.reader)
        self.machine.close()

    def leave_to_parent(self) -> None:
        """In a forked child: its alarms are not inherited."""
        self.garbage.stop()
        if signal.getsignal(signal.SIGCONT) == self._continued:
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
        release([descriptor for descriptor in (self.reader, self._writer) if descriptor >= 0])

    def _stop_alarms(self) -> None:
        for alarm in self._alarms:
            alarm.stop()

    def _passed(self, frame: Any) -> None:
        """Runs on: the loop's thread, whatever it runs; see safepoint."""
        for alarm in self._alarms:
            alarm.put_off()
        slices, now = self.slices, self.now()
        if slices is None or slices.is_idle() or now - slices.began < self.look_seconds or _is_switching(frame):
            return
        began = slices.began
        since = max(began, self.passed_at)
        self.passed_at = now
        holds_gil = self._watch_waited(since, now) >= self.threshold_seconds * KNOCK_SHARE
        self.looks.append(Look(began, stacks.of_frame(frame), holds_gil, now - since, now))

    def _watch_waited(self, since: float, now: float) -> float:
        """How long the watch thread could not run, as it should have.

        Code that lets signals in may have let it in, too.
        """
        woke, gap, _ = self.gaps[-1] if self.gaps else (0.0, 0.0, 0.0)
        return max(now - self.looked_at, gap if woke > since else 0.0)

    def _continued(self, number: int, frame: Any) -> None:
        self.continued_at = self.now()

    def look(self) -> None:
        """Have the loop's thread look at itself if it should, and put the alarms off.

        Runs on: watch thread; must be called all the time.
        """
        if self._writer < 0 or self.slices is None:
            return
        for alarm in self._alarms:
            alarm.put_off()
        slices, now = self.slices, self.now()
        gap, self.looked_at = now - self.looked_at, now
        self.gaps.append((now, gap, self._asleep(gap)))
        if gap > self.dump_seconds:
            self._read()  # what was of a long stall is not of the next one
        if slices.is_idle() or now - slices.began < self.look_seconds:
            self.earlier = self.machine.use(is_exact=False)
        elif now - self.passed_at > self.look_seconds / 2:
            safepoint.MAIN.trip()

    def _asleep(self, gap: float) -> float:
        """For how much of its last `gap` the watch thread slept: while it waits for the GIL it wakes all the time."""
        before, self._sleeps = self._sleeps, sleeps()
        if not self._sleeps:
            return 0.0  # nobody counts them here
        return max(0.0, gap - (self._sleeps - before) * sys.getswitchinterval())

    def holds_gil(self, began: float) -> bool:
        """Whether the slice that began then holds the GIL most of the time, as far as was seen."""
        return mostly_holds_gil(self._looks_at(began))

    def stack_now(self) -> stacks.Stack:
        """Where the slice is that runs now. Runs on: any thread."""
        assert self.slices is not None
        looks = self._looks_at(self.slices.began)
        if looks and self.now() - looks[-1].at < 2 * self.look_seconds:
            return looks[-1].stack
        # It does not pass a safe point: C code.
        return safepoint.stack_in_c(self.thread_id) or (looks[-1].stack if looks else [])

    def _looks_at(self, began: float) -> list[Look]:
        return [look for look in list(self.looks) if look.slice_began == began]

    def _read(self) -> str:
        data = b""
        try:
            while piece := os.read(self.reader, PIPE_BYTES):
                data += piece
        except BlockingIOError:
            pass
        return data.decode("utf-8", "replace")

    def ended(self, began: float, ended: float, account: Account | None, greenlet: Any) -> None:
        """A long slice has ended. Runs on: at its edge; the rest is done in a greenlet of its own."""
        seconds = ended - began
        if self.ring is not None:
            self.ring.slice(account.pattern() if account is not None else "no request", began, seconds)
        use = self.machine.use()
        is_continued = self.continued_at >= began
        seen = Seen(
            at=time.time() - seconds,
            began=began,
            seconds=seconds,
            account=account,
            request=account.id if account is not None else "",
            route=account.pattern() if account is not None else "",
            use=use.since(self.earlier, seconds),
            is_continued=is_continued,
        )
        self.earlier = use
        frame = getattr(greenlet, "gr_frame", None)
        if frame is not None:
            seen.place = stacks.of_frame(frame)
        seen.stolen = seen.use.stolen_seconds(seconds)
        if is_continued:
            seen.stolen = max(seen.stolen, seconds - seen.use.cpu)
        if account is not None:
            account.seconds[CPU] -= seen.stolen
            account.seconds[OTHER] += seen.stolen
            account.has_waited = True  # there is more to tell than cpu and ready
        self._pending.append(seen)
        if len(self._pending) == 1:
            gevent.get_hub().loop.run_callback(gevent.spawn, self._report)

    def _report(self) -> None:
        """Runs on: background greenlet."""
        gevent.sleep(REPORT_SECONDS)
        pending, self._pending = self._pending, []
        for seen in pending:
            for _ in range(MOST_TRIES):
                if self.looked_at >= seen.began + seen.seconds:
                    break  # the watch thread has woken since, and told how it slept
                gevent.sleep(REPORT_SECONDS)
            self.judge(seen)

    def judge(self, seen: Seen) -> None:
        """Blame a line for a long slice, or nobody."""
        seen.stolen = max(seen.stolen, self._stopped_seconds(seen))
        self.stolen_seconds += seen.stolen
        if seen.seconds - seen.stolen < BLAME_SHARE * self.threshold_seconds:
            self.unblamed += 1
        else:
            self._keep(self._explain(seen))

    def _stopped_seconds(self, seen: Seen) -> float:
        """For how long somebody stopped the whole process, as far as can be told afterwards.

        The watch thread sleeps through a stop; through a held GIL it asks for it all the time.
        """
        ended = seen.began + seen.seconds
        slept = [asleep for woke, gap, asleep in list(self.gaps) if seen.began < woke < ended + gap]
        stopped = min(max(slept, default=0.0), seen.seconds)
        was_there = seen.use.cpu + seen.stolen
        return stopped if stopped > self.threshold_seconds and was_there < stopped / 2 else 0.0

    def _explain(self, seen: Seen) -> Stall:
        looks = self._looks_at(seen.began)
        guilty, stack = most_seen(looks)
        if guilty is None and seen.place:
            stack = seen.place
            guilty = stacks.guilty(stack)
        return Stall(
            at=seen.at,
            since=seen.began,
            seconds=seen.seconds,
            stolen_seconds=seen.stolen,
            line=guilty.place if guilty else stacks.UNKNOWN,
            called=self._called(seen, guilty, stack),
            stack=[str(call) for call in stack],
            request=seen.request,
            route=seen.route,
            holds_gil=mostly_holds_gil(looks),
            cpu_seconds=seen.use.cpu,
            garbage_seconds=self._collected(seen),
        )

    def _called(self, seen: Seen, guilty: stacks.Call | None, stack: stacks.Stack) -> str:
        """Return the call that the line was in, if that says more than the line."""
        collected = self._collected(seen)
        if collected > seen.seconds / 2:
            return f"garbage collection for {collected:.3f} s"
        if guilty is None:
            return ""
        return guilty.function if stack[0] is guilty else str(stack[0])

    def _collected(self, seen: Seen) -> float:
        return self.garbage.seconds_between(seen.began, seen.began + seen.seconds)

    def _keep(self, stall: Stall) -> None:
        self.total += 1
        self.seconds += stall.seconds
        self.last.appendleft(stall)
        if self.ring is not None:
            self.ring.stalled(stall.line, stall.since, stall.seconds)
        line = self.lines.get(stall.line)
        if line is None:
            if len(self.lines) >= MOST_LINES:
                del self.lines[min(self.lines.values(), key=lambda one: one.seconds).line]
            line = self.lines[stall.line] = StalledLine(stall.line)
        line.count += 1
        line.seconds += stall.seconds
        line.longest_seconds = max(line.longest_seconds, stall.seconds)
        line.route = stall.route
        line.last_at = stall.at
        self._log(stall, line)

    def _log(self, stall: Stall, line: StalledLine) -> None:
        now = self.now()
        self._allowance = min(float(LOG_BURST), self._allowance + now - self._allowed_at)
        self._allowed_at = now
        if self._allowance < 1.0:
            self._silent += 1
            return
        self._allowance -= 1.0
        logger.warning(
            "stall: %.3f s at %s (%s)%s%s, request %s, route %s; %d so far at this line, %.1f s together%s",
            stall.seconds,
            stall.line,
            stall.called,
            ", holding the GIL" if stall.holds_gil else "",
            f", {stall.stolen_seconds:.3f} s of it taken by the machine" if stall.stolen_seconds >= 0.001 else "",
            stall.request or "-",
            stall.route or "-",
            line.count,
            line.seconds,
            f"; {self._silent} more not logged" if self._silent else "",
            extra={"request_id": stall.request, "stall": stall.as_dict()},
        )
        self._silent = 0


def _is_switching(frame: Any) -> bool:
    """Whether a slice is just being charged, at the switch that ended it: the stack is already another greenlet's."""
    while frame is not None and frame.f_code.co_filename in CHARGING_FILES:
        if frame.f_code in CHARGING:
            return True
        frame = frame.f_back
    return False


def _enlarge(pipe: int) -> None:
    try:
        import fcntl

        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    except (ImportError, AttributeError, OSError):
        pass  # as large as pipes are here; a long stall is seen fewer times
