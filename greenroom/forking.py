"""Forks: a child that the application forks from a worker runs what it was forked for, and nothing of its parent's.

After a fork CPython goes on in one thread; all others are gone. Under gevent that is not so by itself: the child has
copies of the parent's event loop and of its greenlets, and both go on in it as soon as it waits. So here the one place
that deals with it begins the child anew:

    parent                                     child
      main greenlet ── hub ─┬─ the one that      a new main greenlet ── a new hub ─── the one that forks
                            │  forks
                            ├─ other requests    kept, and never run again: they are the parent's
                            └─ threads           kept, and never run again

    - The parent's hub object stays where it is known (sockets, locks) and stands for the new one: see `ParentsHub`.
    - A greenlet of the parent's that something wakes (a lock that is released here) goes back to sleep: `stay_behind`.
    - Nothing of the parent's is finalized here, neither greenlets nor reference cycles, nor what it registered in
      atexit: files would be removed and transactions rolled back that the parent still works with.
    - When the forking greenlet ends, or raises SystemExit, the process ends; it does not go on in the parent's code.
    - Objects with descriptors, connections or timers of the parent's let go of them: see `in_child`.

A child that runs another program (subprocess, posix_spawn) has no part in this: it executes none of our Python.
"""

import atexit
import gc
import importlib
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

import gevent
from gevent import get_hub, monkey
from gevent.hub import Hub
from greenlet import getcurrent, greenlet

from .in_flight import CURRENT, FOREVER

logger = logging.getLogger("gunicorn.error")

# The package, and its copy under pathos.
MULTIPROCESSING = ("multiprocessing", "multiprocess")
# How often the child's loop lets Python look for signals. gevent's own does it in the process's first loop only.
SIGNALS_SECONDS = 0.2
# Descriptors of a child's loop (epoll, an eventfd), and two for its first steps.
RESERVED_DESCRIPTORS = 4
# libev makes its descriptors anew at the end of a turn, and a timer's turn comes after that.
TURN_SECONDS = 0.000_001

real_close: Callable[[int], None] = monkey.get_original("os", "close")
thread_ident: Callable[[], int] = monkey.get_original("_thread", "get_ident")
# Private to gevent: whose hub is whose. A test holds it fast.
_hub_local: Any = importlib.import_module("gevent._hub_local")
plain_switch = greenlet.switch
# All but those that a process's own mistake raises: held back, they would end it without a word.
HELD_SIGNALS = signal.valid_signals() - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT}

_callbacks: list[Callable[[], None]] = []
# Hubs that are the parent's. Empty unless this process is a child.
parents_hubs: list[Hub] = []
_kept: list[Any] = []
_masks: dict[int, list[Any]] = {}  # by thread
_reserved: list[int] = []
_is_watched = False
_is_armed = False
_is_child = False
_has_company = False


def in_child(callback: Callable[[], None]) -> None:
    """Have `callback` called in each forked child, in the thread that forks, before the child's own code goes on.

    It must not wait.
    """
    global _is_watched
    if not hasattr(os, "register_at_fork"):
        return  # no forks on this system
    if not _is_watched:
        _is_watched = True
        os.register_at_fork(before=hold_signals, after_in_parent=let_signals_in, after_in_child=_forked)
    if callback not in _callbacks:
        _callbacks.append(callback)


def arm() -> None:
    """From now on a forked child leaves the greenlets of this process alone. Runs on: worker start-up.

    Not in the arbiter: its children are the workers, which are to be what it prepared.
    """
    global _is_armed
    in_child(_forget_budget)
    _main_hub[:] = [get_hub()]
    _is_armed = True
    _reserve()


def renew_loop() -> None:
    """Have the loop of a new process make its descriptors anew now, while there are some. Runs on: worker start-up.

    libev does it in its next turn, at the end of it: by then the worker has begun its first requests. When these have
    taken all descriptors, libev ends the process.
    """
    gevent.sleep(TURN_SECONDS)


def _reserve() -> None:
    """Hold some descriptors for the loop of a child that is forked when there are none left."""
    while len(_reserved) < RESERVED_DESCRIPTORS:
        try:
            _reserved.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return


def _let_go_of_reserve() -> None:
    while _reserved:
        real_close(_reserved.pop())


def watch_arbiter() -> None:
    """Have workers begin anew where the arbiter is not alone in its process. Runs on: the main thread, once patched.

    Others that are told of forks (agents) are told after this: what they start in a worker is to run there.
    """
    in_child(_begin_worker)


def tell_company(is_preloaded: bool) -> None:
    """Whether anything but the arbiter runs in this process. Runs on: arbiter, before it forks a worker."""
    global _has_company
    _has_company = is_preloaded or threading.active_count() > 1


def _begin_worker() -> None:
    """Forget what runs in the arbiter alone: threads of a preloaded application, agents, the control socket.

    Real threads would not be here either.
    """
    hub = _own_hub()
    if _has_company and not _is_armed and hub is not None and hub.parent is getcurrent():
        _take_over(_new_hub(getcurrent()))


def is_child() -> bool:
    """Whether this process is a child that the application forked from a worker."""
    return _is_child


def leave(exc: BaseException | None = None) -> NoReturn:
    """End this child as Python ends a program, with what it registered itself in atexit; `exc` is what ended it.

    Runs on: any greenlet.
    """
    code = 0
    if isinstance(exc, SystemExit):
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
        if code == 1 and exc.code != 1:
            print(exc.code, file=sys.stderr)
    elif exc is not None:
        traceback.print_exception(exc)
        code = 1
    try:
        _wait_for_threads()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except BaseException:
        traceback.print_exc()
        code = code or 1
    os._exit(code & 0xFF)


def _wait_for_threads() -> None:
    """Join the threads of this child that are no daemons, as Python does at exit. Executors end their own when idle."""
    executors: Any = sys.modules.get("concurrent.futures.thread")
    if executors is not None:
        executors._python_exit()
    for thread in threading.enumerate():
        if not thread.daemon and thread not in (threading.current_thread(), threading.main_thread()):
            thread.join()


def outlive_me() -> None:
    """At a worker's exit: let multiprocessing's children that are no daemons go on, and do not wait for them.

    It would join them, for as long as they take, until the arbiter kills this process; they then go on as well.
    Daemonic ones are ended, as ever. In atexit, after all that multiprocessing has there.
    """
    for processes in multiprocessing_modules():
        for child in list(processes._children):
            if not child.daemon:
                logger.info(
                    "%s (pid %s) was started by the application and goes on without its worker", child.name, child.pid
                )
                processes._children.discard(child)


def multiprocessing_modules() -> list[ModuleType]:
    """Those that know the children: multiprocessing's, and that of its copy under pathos, as far as they are loaded."""
    found = (sys.modules.get(f"{package}.process") for package in MULTIPROCESSING)
    return [each for each in found if each is not None]


def hold_signals() -> None:
    """Keep signals to this thread waiting: a child that is told to end at once must not take itself for its parent."""
    _masks.setdefault(thread_ident(), []).append(signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS))


def let_signals_in() -> None:
    """Each ends one `hold_signals`, in the parent and in the child."""
    masks = _masks.get(thread_ident())
    if masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())


def let_all_signals_in() -> None:
    """In a new worker, once it has its own handlers: the arbiter has held them back round the fork."""
    _masks.clear()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_SIGNALS)


def release(descriptors: list[int]) -> None:
    """Let go of descriptors that are the parent's: nobody keeps a listener or a client's connection open here.

    Their numbers stay taken, by nothing: their owners will close them, and must not close other files.
    """
    try:
        nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # none left: then the numbers can't stay taken
        nothing = -1
    for descriptor in descriptors:
        try:
            if nothing >= 0:
                os.dup2(nothing, descriptor, inheritable=False)
            else:
                real_close(descriptor)
        except OSError:
            continue  # closed already
    if nothing >= 0:
        real_close(nothing)


def stay_behind() -> NoReturn:
    """Sleep for ever: a greenlet of the parent's that is woken in the child does its work in the parent."""
    _kept.append(getcurrent())  # else it would be collected, and its `finally` clauses run
    while True:
        try:
            plain_switch(get_hub())
        except BaseException as exc:  # thrown at it, to end it: it does not end here
            _kept.append(exc)


class ParentsHub(Hub):
    """The parent's hub, in the child. Objects that refer to it are given the child's hub."""

    # gevent's locks and events ask for this, and take the hub of whoever uses them next.
    dead = property(lambda _: True)

    def switch(self) -> Any:
        return get_hub().switch()

    def wait(self, watcher: Any) -> None:
        """A socket that the parent made has watchers of the parent's loop: nobody would see what they see."""
        hub: Any = get_hub()
        if watcher.loop is not hub.loop and hasattr(watcher, "fd"):
            with hub.loop.io(watcher.fd, watcher.events) as own:
                hub.wait(own)
        else:
            hub.wait(watcher)


def _forked() -> None:
    """Runs on: the thread that forks, in the child."""
    global _is_child
    if _is_armed:
        _is_child = True
        atexit._clear()
        getattr(threading, "_threading_atexits", []).clear()
        gc.freeze()
        _let_go_of_reserve()
        _begin_anew()
    for callback in _callbacks:
        try:
            callback()
        except Exception:
            logger.exception("a forked child could not let go of something of its parent's")
    let_signals_in()


def _forget_budget() -> None:
    """The request goes on in the parent. Its record, also in a copy of the context, has no budget."""
    record = CURRENT.get()
    if record is not None:
        record.deadline = FOREVER
        record.is_over = True
        record.timer = None
        CURRENT.set(None)


def _begin_anew() -> None:
    me = getcurrent()
    hub = _own_hub()
    if hub is me:
        return  # forked by a callback of the loop itself: there is nothing else that could go on
    top: Any = me
    while top.parent is not None and top.parent is not hub:
        top = top.parent
    if top.parent is None:  # the thread's main greenlet, which is main here as well
        _take_over(_new_hub(top))
        return
    greenlet(_be_main, hub.parent).switch(top, me)


def _be_main(top: Any, forker: Any) -> None:
    """The child's main greenlet: it runs the loop, in which the one that forks goes on at once."""
    try:
        hub = _new_hub(getcurrent())
        top.parent = hub
        _take_over(hub)
        hub.loop.run_callback(plain_switch, forker)
        hub.join()
    except BaseException as exc:
        leave(exc)
    leave()


def _own_hub() -> Any:
    """This thread's hub, if it has one."""
    return _hub_local.get_hub_if_exists()


def _new_hub(main: Any) -> Any:
    """A hub with a loop of its own, to be this thread's."""
    hub: Any = Hub(default=False)
    if hub.parent is not main:
        hub.parent = main
    timer = hub.loop.timer(SIGNALS_SECONDS, SIGNALS_SECONDS, ref=False)
    timer.start(_nothing)
    _kept.append(timer)
    return hub


def _take_over(hub: Any) -> None:
    """Put `hub` in the place of all that there were."""
    parents = _own_hub()
    if parents is not None and parents not in parents_hubs:
        parents_hubs.append(parents)
    if _main_hub and _main_hub[0] not in parents_hubs:
        parents_hubs.append(_main_hub[0])
    _hub_local.set_hub(hub)
    for each in parents_hubs:
        pending = [] if isinstance(each, ParentsHub) else list(each.loop._callbacks)  # type: ignore[attr-defined]
        each.__class__ = ParentsHub
        _kept.append(each.loop)
        each.loop = hub.loop
        _renew_notices(hub.loop, pending)


def _renew_notices(loop: Any, pending: list[Any]) -> None:
    """A lock that was released right before the fork waits for the parent's loop to tell others.

    It would not tell anybody else until then. Those of the parent's that it tells stay behind.
    """
    for call in pending:
        if call.callback is not None and getattr(call.callback, "__name__", "") == "_notify_links":
            loop.run_callback(call.callback, *(call.args or ()))


_main_hub: list[Any] = []


def _nothing() -> None:
    pass
