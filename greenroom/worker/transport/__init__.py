"""How bytes come from and go to one client: a plain socket, or one that speaks TLS. Neither ever waits.

    the C module's socket    plain; gevent's own has two watchers and a Python object more, which is most of what an
                             idle connection costs
    tls.TLSSocket            the same methods over TLS, after its handshake (see handshake)

Everything above knows only what `Transport` says; `is_tls` tells the few places where the difference counts. In a
forked child parents.ParentsSocket stands for either.
"""

from collections.abc import Iterable
from typing import Protocol

Data = bytes | bytearray | memoryview
# A client's address: of an internet socket, or of a UNIX socket, where it mostly is empty.
Peer = tuple[str, int] | tuple[str, int, int, int] | str | bytes


class Transport(Protocol):
    """A non-blocking stream.

    A call that can't be done at once raises BlockingIOError; one that never can, another OSError.
    """

    def recv(self, size: int, flags: int = 0, /) -> bytes: ...

    def send(self, data: Data, /) -> int: ...

    def sendmsg(self, parts: Iterable[Data], /) -> int: ...

    @property
    def family(self) -> int: ...

    def fileno(self) -> int: ...

    def getsockopt(self, level: int, name: int, /) -> int: ...

    def setsockopt(self, level: int, name: int, value: int | bytes, /) -> None: ...

    def shutdown(self, how: int, /) -> None: ...

    def close(self) -> None: ...


def is_tls(transport: object) -> bool:
    """Whether what `transport` could not send at once may have left in part: a record is sent whole or never ends."""
    return bool(getattr(transport, "has_records", False))
