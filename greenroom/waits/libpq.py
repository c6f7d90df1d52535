"""Parts of libpq that psycopg2 does not offer, called through ctypes: cancelling and COPY without blocking, and the
one field of psycopg2's own that tells it whether a transaction is open.

psycopg2's module is linked against libpq, so its functions are found through it, whichever libpq that is. All that is
called here returns at once; the only exception is `PQcancel`, for libpq before 17, and has a thread.
"""

import ctypes
from collections.abc import Callable
from select import POLLIN, POLLOUT
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import get_hub
from gevent.socket import wait_read, wait_write
from gevent.threadpool import ThreadPool
from psycopg2 import _psycopg, extensions

from ..in_flight import CURRENT

select_poll = monkey.get_original("select", "poll")
# How long a request to cancel may take to be delivered, once nobody waits for it any more.
CANCEL_SECONDS = 5.0
CANCEL_THREADS = 4
POLLING_FAILED, POLLING_READING, POLLING_WRITING, POLLING_OK = range(4)
# Results that COPY meets.
COPY_OUT, COPY_IN = 3, 4

POINTER, TEXT, NUMBER = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "PQflush": (NUMBER, [POINTER]),
    "PQconsumeInput": (NUMBER, [POINTER]),
    "PQgetResult": (POINTER, [POINTER]),
    "PQresultStatus": (NUMBER, [POINTER]),
    "PQclear": (None, [POINTER]),
    "PQerrorMessage": (TEXT, [POINTER]),
    "PQputCopyData": (NUMBER, [POINTER, TEXT, NUMBER]),
    "PQputCopyEnd": (NUMBER, [POINTER, TEXT]),
    "PQgetCopyData": (NUMBER, [POINTER, ctypes.POINTER(POINTER), NUMBER]),
    "PQfreemem": (None, [POINTER]),
    "PQgetCancel": (POINTER, [POINTER]),
    "PQfreeCancel": (None, [POINTER]),
}
# Since libpq 17.
NEW_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "PQcancelCreate": (POINTER, [POINTER]),
    "PQcancelStart": (NUMBER, [POINTER]),
    "PQcancelPoll": (NUMBER, [POINTER]),
    "PQcancelSocket": (NUMBER, [POINTER]),
    "PQcancelErrorMessage": (TEXT, [POINTER]),
    "PQcancelFinish": (None, [POINTER]),
}


def _load(functions: dict[str, tuple[Any, list[Any]]]) -> Any:
    """The library with these functions; None where they are not to be found, as with another build of psycopg2."""
    try:
        # PyDLL: the lock of the interpreter is kept, because none of these functions waits.
        library = ctypes.PyDLL(_psycopg.__file__)
        for name, (result, arguments) in functions.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError):
        return None
    return library


libpq: Any = _load(FUNCTIONS)
libpq_17: Any = _load(NEW_FUNCTIONS) if libpq is not None else None
_threads: list[ThreadPool] = []


class Cancel:
    """A request to PostgreSQL to end what this connection has running, under way from now on.

    `done` becomes true when it was delivered, or could not be; `on_done` is called then, in a greenlet of its own. The
    connection may be closed meanwhile, but must not run another query: the request would end that one.
    """

    def __init__(self, connection: Any, on_done: Callable[[], None]) -> None:
        self.done = False
        self.on_done = on_done
        pointer = connection.pgconn_ptr
        if libpq is None or not pointer:
            return  # it stays undone, so the connection is given up
        if libpq_17 is not None:
            gevent.spawn(self._deliver, libpq_17.PQcancelCreate(pointer))
        else:
            gevent.spawn(self._deliver_in_thread, libpq.PQgetCancel(pointer))

    def _deliver(self, handle: int) -> None:
        CURRENT.set(None)  # the request whose query it is has no time left
        try:
            with gevent.Timeout(CANCEL_SECONDS, False):  # type: ignore[arg-type]  # False: end quietly
                state = POLLING_WRITING if libpq_17.PQcancelStart(handle) else POLLING_FAILED
                while state not in (POLLING_FAILED, POLLING_OK):
                    wait = wait_write if state == POLLING_WRITING else wait_read
                    wait(libpq_17.PQcancelSocket(handle))
                    state = libpq_17.PQcancelPoll(handle)
        finally:
            libpq_17.PQcancelFinish(handle)
        self._finish()

    def _deliver_in_thread(self, handle: int) -> None:
        CURRENT.set(None)
        if not _threads:
            _threads.append(ThreadPool(CANCEL_THREADS, hub=get_hub()))
        _threads[0].apply(_cancel_and_wait, (handle,))
        self._finish()

    def _finish(self) -> None:
        self.done = True
        self.on_done()


def cancel_in_thread(connection: Any, seconds: float) -> None:
    """Cancel a query where there is no event loop; its connection is closed afterwards. Bounded, best effort.

    Runs on: a real thread; blocks it. psycopg2's own `cancel()` would block the whole process.
    """
    if libpq_17 is None or not connection.pgconn_ptr:
        return
    handle = libpq_17.PQcancelCreate(connection.pgconn_ptr)
    state = POLLING_WRITING if libpq_17.PQcancelStart(handle) else POLLING_FAILED
    while state not in (POLLING_FAILED, POLLING_OK):
        poller = select_poll()
        poller.register(libpq_17.PQcancelSocket(handle), POLLOUT if state == POLLING_WRITING else POLLIN)
        state = libpq_17.PQcancelPoll(handle) if poller.poll(seconds * 1000) else POLLING_FAILED
    libpq_17.PQcancelFinish(handle)


def _cancel_and_wait(handle: int) -> None:
    """Runs on: a real thread. Takes as long as a stopped server is stopped."""
    waiting = ctypes.CDLL(_psycopg.__file__).PQcancel  # CDLL: the interpreter's lock is let go meanwhile
    waiting.restype, waiting.argtypes = NUMBER, [POINTER, TEXT, NUMBER]
    problem = ctypes.create_string_buffer(256)
    waiting(handle, problem, 256)
    libpq.PQfreeCancel(handle)


class _Member(ctypes.Structure):
    """CPython's PyMemberDef: how a field of a C object is read as an attribute."""

    _fields_ = (("name", TEXT), ("type", NUMBER), ("offset", ctypes.c_ssize_t), ("flags", NUMBER), ("doc", TEXT))


class _MemberDescriptor(ctypes.Structure):
    """CPython's PyMemberDescrObject; the same since 3.0."""

    _fields_ = (
        ("references", ctypes.c_ssize_t),
        ("own_type", POINTER),
        ("type", POINTER),
        ("name", POINTER),
        ("qualified_name", POINTER),
        ("member", ctypes.POINTER(_Member)),
    )


def status_offset() -> int | None:
    """Where psycopg2's connections keep their `status`; None when that can't be known for sure.

    CPython's description of the field is tried out on a connection that was never opened.
    """
    descriptor = vars(extensions.connection).get("status")
    if type(descriptor).__name__ != "member_descriptor" or object.__basicsize__ != 2 * ctypes.sizeof(POINTER):
        return None
    member = _MemberDescriptor.from_address(id(descriptor)).member.contents
    if (member.name, member.type) != (b"status", 1) or not 0 < member.offset < extensions.connection.__basicsize__:
        return None
    unopened = extensions.connection.__new__(extensions.connection)
    field = NUMBER.from_address(id(unopened) + member.offset)
    if field.value != unopened.status:
        return None
    field.value, before = extensions.STATUS_BEGIN, field.value
    is_seen = unopened.status == extensions.STATUS_BEGIN
    field.value = before
    return int(member.offset) if is_seen else None


STATUS_OFFSET = status_offset()


def status_of(connection: Any) -> ctypes.c_int:
    """The field itself, to be changed by its `value`. Only where STATUS_OFFSET is known.

    Set to STATUS_BEGIN by whoever sends the BEGIN itself: psycopg2 would send one of its own, too.
    """
    assert STATUS_OFFSET is not None
    return NUMBER.from_address(id(connection) + STATUS_OFFSET)
