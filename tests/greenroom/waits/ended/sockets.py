"""Waits at sockets and selectors; sockets after one of their waits was ended."""

import select
import selectors
import socket
import threading
import time
from typing import Any

import gevent
import gevent.pool

from greenroom.in_flight import CURRENT

from .cases import LATER_SECONDS, NEVER_SECONDS, case, error_of, late_socket, outside

listener = socket.create_server(("127.0.0.1", 0))


@case
def poll() -> Any:
    poller, near = select.poll(), late_socket()
    poller.register(near, select.POLLIN)
    return len(poller.poll(NEVER_SECONDS * 1000))


@case
def poll_again_and_again() -> Any:
    """As a driver waits for its answer: it is never torn out of that, not even after the grace."""
    near = late_socket()
    poller = select.poll()
    poller.register(near, select.POLLIN)
    CURRENT.get().clean_up_at_most = 0.0  # type: ignore[union-attr]
    while not poller.poll(100):
        pass
    return near.recv(4).decode()


@case
def selector() -> Any:
    with selectors.DefaultSelector() as chosen:
        chosen.register(late_socket(), selectors.EVENT_READ)
        return len(chosen.select())


@case
def selector_with_a_timeout() -> Any:
    with selectors.DefaultSelector() as chosen:
        chosen.register(late_socket(), selectors.EVENT_READ)
        return len(chosen.select(NEVER_SECONDS))


@case
def epoll() -> Any:
    with selectors.EpollSelector() as chosen:
        chosen.register(late_socket(), selectors.EVENT_READ)
        return len(chosen.select())


@case
def epoll_with_a_timeout() -> Any:
    with select.epoll() as chosen:
        near = late_socket()
        chosen.register(near, select.EPOLLIN)
        return len(chosen.poll(NEVER_SECONDS))


@case
def a_socket_that_was_ended_is_used_again() -> Any:
    """By whoever has it next: never the rest of somebody else's answer."""
    sock = late_socket(NEVER_SECONDS)
    outcomes = [error_of(lambda: sock.recv(4))]
    outside(lambda: time.sleep(LATER_SECONDS))
    return [*outcomes, error_of(lambda: sock.sendall(b"?")), sock.recv(4).decode()]


@case
def a_file_over_a_socket_that_was_ended() -> Any:
    file = late_socket(NEVER_SECONDS).makefile("rb")
    return [error_of(file.readline), error_of(file.readline)]


@case
def a_datagram_with_a_timeout() -> Any:
    """A late one would be taken for an answer to the next question."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(LATER_SECONDS)
        sock.bind(("127.0.0.1", 0))
        began = time.monotonic()
        return [error_of(lambda: sock.recv(1)), time.monotonic() - began >= LATER_SECONDS - 0.1]


@case
def a_listener_that_was_ended_still_listens() -> Any:
    listener.settimeout(NEVER_SECONDS)
    first = error_of(listener.accept)
    with socket.create_connection(listener.getsockname()), listener.accept()[0]:
        return first


@case
def a_socket_at_which_another_greenlet_waits() -> Any:
    sock = full_socket()
    sock.settimeout(LATER_SECONDS)
    reader = gevent.spawn(lambda: sock.recv(1))
    gevent.sleep(0)
    return [error_of(lambda: sock.sendall(b"x" * 10_000_000)), reader.get()]


def full_socket() -> Any:
    near, far = socket.socketpair()

    def answer() -> None:
        time.sleep(LATER_SECONDS / 2)
        far.sendall(b"y")
        time.sleep(LATER_SECONDS)
        far.close()

    outside(threading.Thread(target=answer).start)
    return near
