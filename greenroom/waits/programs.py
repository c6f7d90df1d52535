"""os.system, os.waitpid and their kin wait in the event loop, whoever started the process that they wait for.

gevent's waitpid knows the children that its own fork and posix_spawn have made, and blocks for all others: those of
`multiprocessing`'s spawn, say. The other calls block in any case.

    a known child             by its pidfd, see children; then the system's own call, which returns at once
    any child, or one that    asked again and again: no descriptor tells of it
    stops or goes on
"""

import functools
import os
import resource
from collections.abc import Callable
from typing import Any

import gevent
import gevent.os

from ..in_flight import Wait
from ..replacements import Declined, Put, part
from . import children, in_loop
from .polling import READ
from .subprocesses import wait_in_loop
from .threads import can_wait, is_loop_thread

# How soon it is asked again: first, and at the most.
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.001, 0.02

# Those of gevent's own children, which it reaps itself, included.
gevents_waitpid: Callable[[int, int], tuple[int, int]] = gevent.os.waitpid
plain_waitid, plain_wait4, plain_system = os.waitid, os.wait4, os.system


@part("programs")
def install(put: Put) -> None:
    """Runs on: the main thread, after patching. Safe to call again."""
    if not children.is_possible():
        raise Declined("this system has no descriptors of processes (pidfd)")
    for ours in (waitpid, wait, wait3, wait4, waitid, system):
        put(os, ours.__name__, functools.wraps(getattr(os, ours.__name__))(ours))
    put(gevent.os, "waitpid", functools.wraps(gevents_waitpid)(waitpid))


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    if not is_loop_thread() and not options & os.WNOHANG:
        # The loop reaps those that gevent's fork and posix_spawn have made in greenlets.
        if pid <= 0 or pid in getattr(gevent.os, "_watched_children", {}):
            found: tuple[int, int] = in_loop.run_in_loop(lambda: waitpid(pid, options))
            return found
        return children.real_waitpid(pid, options)
    if not can_wait() or options & os.WNOHANG:
        return gevents_waitpid(pid, options)
    if pid <= 0 or options:
        found = asked_again(lambda: gevents_waitpid(pid, options | os.WNOHANG), lambda it: it[0])
        return found
    if pid not in getattr(gevent.os, "_watched_children", {}):
        # Asked first: a process that is not a child of this one can be watched, and ends when it likes.
        if (found := gevents_waitpid(pid, os.WNOHANG))[0]:
            return found
        wait_for_exit(pid)
    return gevents_waitpid(pid, options)


def wait_for_exit(pid: int) -> None:
    """Until the child has ended, or can't be watched: the call that follows says what it thinks of it."""
    try:
        with Wait("other", "child process"):
            has_ended = children.wait_for_exit(pid)
    except ProcessLookupError:
        return  # it is no process
    if has_ended is None:  # no descriptor left
        asked_again(lambda: plain_waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT), bool)


def asked_again(ask: Callable[[], Any], is_answer: Callable[[Any], Any]) -> Any:
    """Ask again and again, and return the first result that is an answer. Switches."""
    pause = FIRST_PAUSE_SECONDS
    with Wait("other", "child process"):
        while not is_answer(found := ask()):
            gevent.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
    return found


def wait() -> tuple[int, int]:
    return waitpid(-1, 0)


def wait3(options: int) -> tuple[int, int, Any]:
    return wait4(-1, options)


def wait4(pid: int, options: int) -> tuple[int, int, Any]:
    if not can_wait() or options & os.WNOHANG:
        return plain_wait4(pid, options)
    found: tuple[int, int, Any] = asked_again(lambda: waitpid_and_usage(pid, options | os.WNOHANG), lambda it: it[0])
    return found


def waitpid_and_usage(pid: int, options: int) -> tuple[int, int, Any]:
    try:
        return plain_wait4(pid, options)
    except ChildProcessError:
        # gevent has reaped it already. Kept in the module, such a tuple would be an error when CPython ends.
        return (*gevents_waitpid(pid, options), resource.struct_rusage((0.0, 0.0, *[0] * 14)))


def waitid(idtype: int, id: int, options: int, /) -> Any:
    if not can_wait() or options & os.WNOHANG:
        return plain_waitid(idtype, id, options)
    if found := plain_waitid(idtype, id, options | os.WNOHANG):  # as waitpid: an error where it is not a child
        return found
    if not options & (os.WSTOPPED | os.WCONTINUED):
        if idtype == os.P_PIDFD:
            with Wait("other", "child process"):
                wait_in_loop(id, READ)
            return plain_waitid(idtype, id, options)
        if idtype == os.P_PID and id > 0:
            wait_for_exit(id)
            return plain_waitid(idtype, id, options)
    return asked_again(lambda: plain_waitid(idtype, id, options | os.WNOHANG), bool)


def system(command: Any) -> int:
    """Run the command in a shell; its wait status. This process's signals stay as they are, as C's would not do."""
    if not can_wait():
        return plain_system(command)
    pid = os.posix_spawn("/bin/sh", [b"sh", b"-c", os.fsencode(command)], os.environ)
    return waitpid(pid, 0)[1]
