"""Waits of the standard library, bounded by the request's budget.

    hub        the one place through which every wait goes: refused or ended when the budget is spent
    calls      sleep, sockets, select, subprocesses: what waits is named, and times out as its callers know it
    locks      locks, conditions, events, queues: the same
    threads    threads, executors and greenlets that a request starts work for it
    clean_up   what frameworks do at the end goes on: teardowns, commits, rollbacks
    loops      loops that try again for ever are left

What timing out means (`hub` raises BudgetSpent, which is a TimeoutError; the rest is what callers handle anyway):

    sockets, TLS, time.sleep, Thread.join, Future.result        TimeoutError
    subprocess: wait, communicate, run                          subprocess.TimeoutExpired
    queue: get, put                                             queue.Empty, queue.Full
    Lock.acquire, Event.wait, Condition.wait                    TimeoutError; with a timeout of their own that was
                                                                longer, False the first time
    select.select, poll, selectors                              TimeoutError; with a timeout of their own, nothing ready
                                                                the first time

"The first time": a wait that begins when the budget is spent already raises in any case, so that a loop round a wait
that returns False does not turn for ever. That a lock's acquire() raises can't hurt: who has not got it must not go on
in any case, and `with lock:` does not enter. Taking a condition's lock back is not bounded, nor is what would leave
something half done (starting a thread or a process).
"""

import importlib

from .hub import install as install_hub

__all__ = ["install", "install_hub"]


def install() -> None:
    """Bound the standard library's waits in this process, which is patched. Safe to call again."""
    for part in ("calls", "locks", "threads", "clean_up"):
        importlib.import_module(f"{__name__}.{part}").install()
    install_hub()
