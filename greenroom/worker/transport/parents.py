"""A client's socket in a forked child."""

import socket
from typing import NoReturn

from ... import forking


class ParentsSocket:
    """Stands in for the socket of a parent's client. A child that comes to answer one has done its work: it ends."""

    def send(self, *_: object) -> NoReturn:
        forking.leave()

    sendmsg = send

    def recv(self, *_: object) -> bytes:
        raise ConnectionAbortedError("the client's connection is the parent's")

    @property
    def family(self) -> int:
        return socket.AF_UNSPEC

    def fileno(self) -> int:
        return -1

    def getsockopt(self, *_: object) -> int:
        return 0

    def setsockopt(self, *_: object) -> None:
        """Do nothing: the connection is the parent's."""

    shutdown = setsockopt

    def close(self) -> None:
        """Do nothing: the connection is the parent's."""
