"""Whether a client takes what it is sent, by what its side has acknowledged.

"Writable" says something else: the kernel reports it when a third of its buffer is free, and that may hold megabytes.
A client that reads 2 KB/s steadily needs minutes for as much.

Nor does the other side acknowledge each byte that is read: a full receiver tells of room again when there is some for
STEP_SEGMENTS. On ethernet that is 6 KB, over loopback it was measured to be up to 125 KB. So a client is given up when
nothing was acknowledged for the time that the setting says and for as long as such a step takes at
SLOWEST_BYTES_PER_SECOND, but for no longer than three times the setting. Linux only; elsewhere "writable" has to do.

A stream of HTTP/2 takes another step, too: its client opens a window again when about half of it has been read.
"""

import socket
import struct
import sys
from collections.abc import Callable
from functools import partial

from .. import clock
from .transport import Transport

IS_LINUX = sys.platform == "linux"
if IS_LINUX:
    import fcntl
    import termios

SLOWEST_BYTES_PER_SECOND = 2_000
STEP_SEGMENTS = 4
LARGEST_SEGMENT_BYTES = 65_536
LOOK_SECONDS = 1.0
LOOKS = 8


class TakesNothing:
    """Knows whether a client has taken nothing for too long; to be asked about every `look_seconds`."""

    def __init__(
        self, sock: Transport, seconds: float, left: Callable[[], int] | None = None, *, step_bytes: int = 0
    ) -> None:
        """`left` returns a number that becomes less with each byte that is taken; None: the kernel's."""
        self.left = left or partial(unacknowledged, sock)
        self.look_seconds = min(LOOK_SECONDS, seconds / LOOKS)
        step_bytes = max(step_bytes, STEP_SEGMENTS * _segment_bytes(sock))
        self.patience_seconds = seconds + min(2 * seconds, step_bytes / SLOWEST_BYTES_PER_SECOND)
        self._on_the_way, self._since = self.left(), clock.now()

    def is_given_up(self) -> bool:
        left, now = self.left(), clock.now()
        if left < self._on_the_way:
            self._on_the_way, self._since = left, now
        return now - self._since >= self.patience_seconds


def wait_for_room(progress: TakesNothing, wait: Callable[[float], bool]) -> bool:
    """Wait until there is room for more; False when the client has taken nothing for too long.

    `wait(x)` waits for that for x seconds and returns whether it came. Runs on: any greenlet; switches.
    """
    if not IS_LINUX:
        return wait(progress.patience_seconds)
    while not wait(progress.look_seconds):
        if progress.is_given_up():
            return False
    return True


def unacknowledged(sock: Transport) -> int:
    """Bytes that were handed to the kernel, and that the other side has not acknowledged."""
    if not IS_LINUX:
        return 0
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:  # not this kind of socket
        return 0
    return int(struct.unpack("i", answer)[0])


def _segment_bytes(sock: Transport) -> int:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        except OSError:
            pass
    return LARGEST_SEGMENT_BYTES
