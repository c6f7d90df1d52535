"""Reads and writes that are always ready let other greenlets run in between."""

import pytest

from .patched import check

MEASURED = """
import os, socket, subprocess
from greenroom.waits.giving_way import PIECE_BYTES
turns = [0]

def turn():
    while True:
        gevent.sleep(0)
        real_sleep(0)  # a loop that never rests would keep the feeding threads from the interpreter's lock
        turns[0] += 1

gevent.spawn(turn)
gevent.sleep(0.01)

def longest(move, size):
    "The most bytes that `move` moved without a turn of the loop."
    most = since = done = 0
    seen = turns[0]
    while done < size:
        count = move()
        done += count
        if turns[0] != seen:
            seen, since = turns[0], 0
        since += count
        most = max(most, since)
    return most

def feed(function):
    def run():
        while True:
            try:
                function()
            except OSError:
                return
    start_thread(run, ())
"""


@pytest.mark.parametrize(
    "source",
    [
        # Always ready.
        "fd = os.open('/dev/zero', os.O_RDONLY); move = lambda: len(os.read(fd, 65_536))",
        "fd = os.open('/dev/null', os.O_WRONLY); move = lambda: os.write(fd, b'x' * 65_536)",
        # Ready as long as another thread is quick.
        "a, b = socket.socketpair(); b._sock.setblocking(True); feed(lambda: b._sock.send(b'x' * 65_536)); "
        "move = lambda: len(a.recv(65_536))",
        "a, b = socket.socketpair(); b._sock.setblocking(True); feed(lambda: b._sock.send(b'x' * 65_536)); "
        "buffer = bytearray(65_536); move = lambda: a.recv_into(buffer)",
        "a, b = socket.socketpair(); b._sock.setblocking(True); feed(lambda: b._sock.recv(65_536)); "
        "move = lambda: a.send(b'x' * 65_536)",
        "p = subprocess.Popen(['cat', '/dev/zero'], stdout=subprocess.PIPE); move = lambda: len(p.stdout.read(65_536))",
    ],
)
def test_a_piece_is_bounded(source: str) -> None:
    check(f"{MEASURED}\n{source}\nassert longest(move, 20_000_000) <= PIECE_BYTES + 2 * 65_536\nos._exit(0)")


def test_an_exception_that_breaks_in_while_giving_way_loses_nothing() -> None:
    check(
        """
        import socket
        from greenroom.waits import giving_way
        a, b = socket.socketpair()
        b.send(b"answer")
        giving_way.moved(giving_way.PIECE_BYTES)
        me = gevent.getcurrent()
        gevent.get_hub().loop.run_callback(me.throw, TimeoutError)
        try:
            a.recv(100)
        except TimeoutError:
            pass
        else:
            raise AssertionError
        assert a.recv(100) == b"answer"
        """
    )


def test_a_process_of_gevents_that_is_asked_again_and_again_ends() -> None:
    check(
        """
        from gevent.subprocess import Popen
        until = time.monotonic() + 30
        for _ in range(20):  # which of two things of one turn of the loop comes first is chance
            process = Popen(["true"])
            while process.poll() is None:
                assert time.monotonic() < until
            assert process.returncode == 0
        """
    )


@pytest.mark.parametrize("closes", [True, False])
def test_the_exit_code_of_a_process_that_is_only_asked_is_its_own(closes: bool) -> None:
    # By a path, and with descriptors left open or Python 3.13, it is started by os.posix_spawn.
    check(
        f"""
        import subprocess
        process = subprocess.Popen(["/bin/sh", "-c", "exit 5"], close_fds={closes})
        until = time.monotonic() + 30
        while process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert process.returncode == 5, process.returncode
        """
    )


def test_the_wrong_end_of_a_pipe_is_an_error_at_once() -> None:
    check(
        """
        import errno, os
        from greenroom.waits import descriptors
        read_end, write_end = os.pipe()
        wrong = [
            lambda: descriptors.write(read_end, b"x"),
            lambda: descriptors.write(read_end, b"x" * 100_000),
            lambda: descriptors.read(write_end, 1),
        ]
        for call in wrong:
            try:
                with gevent.Timeout(20):
                    call()
            except OSError as error:
                assert error.errno == errno.EBADF
            else:
                raise AssertionError
        """
    )


def test_any_child_is_waited_for_by_gevents_own_name_as_well() -> None:
    check(
        """
        import gevent.os, os
        pid = gevent.os.fork()
        if not pid:
            os._exit(3)
        with gevent.Timeout(30):
            assert gevent.os.waitpid(-1, 0) == (pid, 3 << 8)
        """
    )
