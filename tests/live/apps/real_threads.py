"""Blocking calls in threads of the operating system: each works, and makes no event loop there."""

import asyncio
import concurrent.futures
import errno
import http.server
import multiprocessing
import os
import queue
import select
import selectors
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import gevent
import requests
from flask import Flask
from gevent import get_hub
from gevent._hub_local import get_hub_if_exists

app = Flask(__name__)


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


@contextmanager
def website() -> Iterator[str]:
    """One page, for one request, from another real thread."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        thread.join()


def connect() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with socket.create_connection(server.getsockname(), timeout=5) as client:
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"x")
                assert client.recv(1) == b"x"
                client.settimeout(0.01)
                with suppress(TimeoutError):
                    client.recv(1)
                    raise AssertionError("nothing was sent")


def connect_in_vain() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with socket.socket() as client:
            client.settimeout(5)
            assert client.connect_ex(unused.getsockname()) == errno.ECONNREFUSED
        try:
            socket.create_connection(unused.getsockname(), timeout=5)
        except ConnectionRefusedError:
            return
    raise AssertionError("somebody listened")


def names() -> None:
    assert socket.getaddrinfo("127.0.0.1", 80)[0][4] == ("127.0.0.1", 80)
    assert socket.getaddrinfo("localhost", 80)
    assert socket.gethostbyname("localhost").startswith("127.")
    assert socket.gethostbyname_ex("127.0.0.1")[2] == ["127.0.0.1"]
    assert socket.getnameinfo(("127.0.0.1", 80), socket.NI_NUMERICHOST | socket.NI_NUMERICSERV) == ("127.0.0.1", "80")
    with suppress(OSError):
        socket.gethostbyaddr("127.0.0.1")
    assert socket.getfqdn()


def polls() -> None:
    with pipe() as (reader, writer):
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        assert poll.poll(10) == []
        os.write(writer, b"x")
        assert poll.poll(5000) == [(reader, select.POLLIN)]
        assert poll.poll() == [(reader, select.POLLIN)]


def selects() -> None:
    with pipe() as (reader, writer):
        assert select.select([reader], [], [], 0.01) == ([], [], [])
        os.write(writer, b"x")
        assert select.select([reader], [writer], [reader]) == ([reader], [writer], [])
        for wrong in (-1, "x"):
            try:
                select.select([wrong], [], [], 0)
            except (ValueError, TypeError):
                continue
            raise AssertionError(wrong)


def selects_high_numbers() -> None:
    with pipe() as (reader, writer):
        high = 1500
        try:
            os.dup2(reader, high)
        except OSError:
            return  # this process may not have so many
        try:
            assert select.select([high], [], [], 0.01) == ([], [], [])
            os.write(writer, b"x")
            assert select.select([high], [writer], [high], 5) == ([high], [writer], [])
        finally:
            os.close(high)


def uses_selectors() -> None:
    with pipe() as (reader, writer), selectors.DefaultSelector() as selector:
        selector.register(reader, selectors.EVENT_READ, "what is read")
        assert selector.select(0.01) == []
        os.write(writer, b"x")
        ((key, events),) = selector.select()
        assert (key.data, events) == ("what is read", selectors.EVENT_READ)
        selector.unregister(reader)


def programs() -> None:
    assert subprocess.run(["echo", "x"], capture_output=True, timeout=20, check=True).stdout == b"x\n"
    both = subprocess.run(["sh", "-c", "cat; echo y >&2"], input=b"x", capture_output=True, timeout=20, check=True)
    assert (both.stdout, both.stderr) == (b"x", b"y\n")
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(["sleep", "20"], capture_output=True, timeout=0.05, check=False)
        raise AssertionError("it slept")
    assert os.waitpid(os.posix_spawnp("sh", ["sh", "-c", "exit 3"], os.environ), 0)[1] >> 8 == 3
    assert os.popen("echo x").read() == "x\n"
    assert os.system("exit 2") >> 8 == 2


def forks() -> None:
    child = multiprocessing.get_context("fork").Process(target=os._exit, args=(4,))
    child.start()
    child.join()
    assert child.exitcode == 4
    pid = os.fork()
    if pid == 0:
        os._exit(5)
    assert os.waitpid(pid, 0)[1] >> 8 == 5


def fetches() -> None:
    with website() as url:
        assert requests.get(url, timeout=5).status_code == 200
    with website() as url:
        assert urllib.request.urlopen(url, timeout=5).status == 200


def threads() -> None:
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        assert list(executor.map(str, range(3))) == ["0", "1", "2"]
    timer = threading.Timer(0.01, int)
    timer.start()
    timer.join()
    for waits in (threading.Event().wait, queue.SimpleQueue[int]().get, queue.Queue[int]().get):
        with suppress(queue.Empty):
            waits(timeout=0.01)
    asyncio.run(asyncio.sleep(0.01))


CALLS: dict[str, Callable[[], None]] = {
    call.__name__: call
    for call in (
        *(connect, connect_in_vain, names, polls, selects, selects_high_numbers, uses_selectors, programs, forks),
        *(fetches, threads),
    )
}


@app.get("/")
def all_calls() -> list[str]:
    return list(CALLS)


@app.get("/<name>")
def in_a_real_thread(name: str) -> str:
    def work() -> str:
        CALLS[name]()
        return "well" if get_hub_if_exists() is None else "made an event loop"

    async def main() -> str:
        return await asyncio.to_thread(work)

    return asyncio.run(main())


@app.get("/child-of-a-greenlet")
def child_of_a_greenlet() -> str:
    """A real thread waits for a process that the loop watches."""
    pid = os.posix_spawnp("sh", ["sh", "-c", "sleep 0.2; exit 6"], os.environ)

    async def main() -> int:
        return (await asyncio.to_thread(os.waitpid, pid, 0))[1] >> 8

    return str(asyncio.run(main()))


lost: list[int] = []


@app.get("/lose-counts")
def lose_counts() -> str:
    """gevent loses one now and then where threads wake greenlets: 25 of 4 million in one run of two threads."""

    def lose() -> None:
        loop = get_hub().loop
        for _ in range(min(1000, loop.activecnt)):
            loop.unref()
        lost.append(1)

    gevent.spawn_later(0.1, lose)
    return str(os.getpid())


@app.get("/lost-counts")
def lost_counts() -> list[int]:
    return [os.getpid(), len(lost)]
