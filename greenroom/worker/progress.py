"""Whether a client takes what it is sent, by what its side has acknowledged.

"Writable" says something else: the kernel reports it when a third of its buffer is free, and that may hold megabytes.
A client that reads 2 KB/s steadily needs minutes for as much.

Nor does the other side acknowledge each byte that is read: a full receiver tells of room again when there is some for
a whole segment. On ethernet that is 1.4 KB, over loopback 64 KB. So a client is given up when nothing was acknowledged
for the time that the setting says and, but for no longer than that again, the time that a segment takes at
SLOWEST_BYTES_PER_SECOND. Linux only; elsewhere "writable" has to do.
"""

import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from .. import clock

IS_LINUX = sys.platform == "linux"
if IS_LINUX:
    import fcntl
    import termios

SLOWEST_BYTES_PER_SECOND = 2_000
LARGEST_SEGMENT_BYTES = 65_536
LOOK_SECONDS = 1.0
LOOKS = 8


def wait_for_room(sock: Any, seconds: float, wait: Callable[[float], bool]) -> bool:
    """Wait until `sock` can be written to; False when its client has taken nothing for too long.

    `wait(x)` waits for that for x seconds and returns whether it came. Runs on: any greenlet; switches.
    """
    patience = seconds + min(seconds, _segment_bytes(sock) / SLOWEST_BYTES_PER_SECOND)
    if not IS_LINUX:
        return wait(patience)
    look = min(LOOK_SECONDS, seconds / LOOKS)
    on_the_way, since = _unacknowledged(sock), clock.now()
    while not wait(look):
        left, now = _unacknowledged(sock), clock.now()
        if left < on_the_way:
            on_the_way, since = left, now
        elif now - since >= patience:
            return False
    return True


def _unacknowledged(sock: Any) -> int:
    """Bytes that were handed to the kernel, and that the other side has not acknowledged."""
    try:
        answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:  # not this kind of socket
        return 0
    return int(struct.unpack("i", answer)[0])


def _segment_bytes(sock: Any) -> int:
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        try:
            return int(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
        except OSError:
            pass
    return LARGEST_SEGMENT_BYTES
