"""Waits of the standard library: each is named, and says whether the end of its request may end it (see in_flight.py).

    hub        the one place through which every wait goes
    calls      sleep, sockets, select, subprocesses
    epoll      select.epoll, which gevent removes
    locks      threading's locks, for greenlets and real threads alike
    queues     SimpleQueue, likewise
    composed   conditions, events, semaphores and queues are CPython's, over these locks
    uncontended   their short ways when nobody has to wait
    replacing  ... and take the places of gevent's
    threads    threads, executors and greenlets that a request starts

What an end means to the caller, in the request's own greenlet:

    time.sleep                                                  BudgetSpent, which is a TimeoutError
    locks, events, conditions, queues, Thread.join,
    Future.result, subprocess.run, Popen.wait, communicate      BudgetSpent; with a timeout of their own as if that had
                                                                passed: False, queue.Empty, queue.Full, TimeoutExpired
    a socket with a timeout, TLS or not                         TimeoutError; it is shut down
    select, poll, selectors, a socket without a timeout, pipes  goes on: ending it would leave something half-done

Taking a condition's lock back is not ended either, nor is what starts a thread.
"""

import importlib

from ...in_flight import Record
from .hub import install as install_hub

__all__ = ["install", "install_hub", "name_functions"]


def install(clean_up_seconds: float = Record.clean_up_seconds) -> None:
    """Name the standard library's waits in this process, which is patched. Safe to call again.

    `clean_up_seconds` is the grace of a request that was ended.
    """
    Record.clean_up_seconds = clean_up_seconds
    for part in ("replacing", "calls", "epoll", "threads"):
        importlib.import_module(f"{__name__}.{part}").install()
    install_hub()


def name_functions() -> None:
    """Let `pickle` find what is replaced. Runs on: the main thread, when all is."""
    importlib.import_module(f"{__name__}.replacing").name_functions()
