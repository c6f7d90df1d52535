"""Loops that take the end of the budget for a reason to try again: slowed down first, then left.

    while True:
        try:
            return requests.get(url)
        except Exception:       # or a bare `except:`
            continue

Each wait in it raises at once, so it would compute for ever and keep the whole worker from its work.

    refusals of one greenlet
    up to QUICK        raise at once: that is how what was interrupted unwinds
    up to PATIENCE     the loop turns once before each
    from then on       the innermost frame that was there at all of the last refusals is the one with the loop; the
                       timeout error is raised again in it where it jumps back to its beginning, which no `try` of the
                       loop's body can catch

Loops round such a loop swallow the error in their turn. From the second attempt on the error notices, when it is freed
in a frame that it should have ended, and is raised once more where that one jumps back.

An exception is raised in code that does not wait only here, and only in a frame that has come back for more a hundred
times. It is done by tracing that one frame until its next jump (sys.settrace); under a debugger it is not done.
"""

import dis
import sys
from types import FrameType
from typing import Any

from gevent.hub import Hub
from greenlet import getcurrent

from ...errors import BudgetSpent
from ...record import Record

QUICK = 10
PATIENCE = 100
# The last refusals before PATIENCE, whose frames are compared.
LOOKS = 10
# Where nothing helps (a loop in a `try` of the same frame that catches everything) it may at least not do any harm.
SLOW_SECONDS = 0.05
MOST_ATTEMPTS = 20

plain_switch = Hub.switch


class Loop:
    """The refusals of one greenlet. `frames` are those that were there at each of the last looks, innermost first."""

    __slots__ = ("attempts", "frames", "refusals")

    def __init__(self) -> None:
        self.refusals = 0
        self.attempts = 0
        self.frames: list[FrameType] = []


class LoopEnded(BudgetSpent):
    """Raised in a loop; `outer`, if given, are the frames in which it is not to be swallowed either."""

    outer: tuple[FrameType, ...] = ()
    greenlet: Any = None

    def __del__(self) -> None:
        if not self.outer:
            return
        frame = sys._getframe().f_back
        if frame is not None and frame in self.outer and getcurrent() is self.greenlet and sys.gettrace() is None:
            again = LoopEnded(*self.args)
            again.outer, again.greenlet = self.outer, self.greenlet
            raise_at_jump(frame, again)


def break_out(record: Record, hub: Any) -> None:
    """A wait is about to be refused. Runs on: the greenlet that wanted to wait; switches."""
    loops = record.loops
    if loops is None:
        loops = record.loops = {}
    me = getcurrent()
    loop = loops.get(me)
    if loop is None:
        loop = loops[me] = Loop()
    loop.refusals += 1
    if loop.refusals <= QUICK:
        return
    _pause(hub, me, SLOW_SECONDS if loop.attempts > MOST_ATTEMPTS else 0.0)
    if loop.refusals > PATIENCE - LOOKS:
        _look(loop)
    if loop.refusals > PATIENCE and loop.frames and sys.gettrace() is None:
        error = LoopEnded(record.why())
        if loop.attempts:
            error.outer, error.greenlet = tuple(loop.frames), me
        raise_at_jump(loop.frames[0], error)
        loop.frames = []
        loop.refusals -= LOOKS
        loop.attempts += 1


def _pause(hub: Any, me: Any, seconds: float) -> None:
    if seconds:
        hub.loop.timer(seconds).start(me.switch, update=True)
    else:
        hub.loop.run_callback(me.switch)
    plain_switch(hub)


def _look(loop: Loop) -> None:
    frames = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    known = set(loop.frames)
    loop.frames = [frame for frame in frames if frame in known] if known else frames


def _leaves_with(frame: FrameType) -> bool:
    """Whether `frame` is about to call `__exit__`, on the line of its `with`, where no error may come between.

    The compiler writes `__exit__(None, None, None)` for it, or WITH_EXCEPT_START. A test holds this fast.
    """
    arguments = 0
    for instruction in dis.get_instructions(frame.f_code):
        if instruction.offset < frame.f_lasti or instruction.opname in ("NOP", "SWAP", "PUSH_NULL", "PUSH_EXC_INFO"):
            continue
        if instruction.opname == "WITH_EXCEPT_START":
            return True
        if arguments == 3:
            return instruction.opname in ("CALL", "PRECALL")
        if not (instruction.opname == "LOAD_CONST" and instruction.argval is None):
            return False
        arguments += 1
    return False


def raise_at_jump(frame: FrameType, error: BaseException) -> None:
    """Raise `error` in `frame`, which runs, when it next goes back to an earlier line."""
    last_line = frame.f_lineno
    errors = [error]  # so that its traceback, which has the frame of trace_frame, does not lead to it again
    del error

    def trace_frame(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal last_line
        if event == "return":
            stop()
        elif event == "line":
            if frame.f_lineno <= last_line and not _leaves_with(frame):
                stop()
                raise errors.pop()
            last_line = frame.f_lineno
        return trace_frame

    def stop() -> None:
        sys.settrace(None)
        frame.f_trace = None

    frame.f_trace = trace_frame
    sys.settrace(lambda *_: None)
