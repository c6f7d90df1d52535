"""A client's socket in a forked child."""

from typing import NoReturn

from ... import forking


class ParentsSocket:
    """The child has come to the end of its own work when it answers the parent's client."""

    def send(self, *_: object) -> NoReturn:
        forking.leave()

    sendmsg = send

    def recv(self, *_: object) -> bytes:
        raise ConnectionAbortedError("the client's connection is the parent's")

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: object) -> None:
        """It is the parent's."""

    shutdown = setsockopt

    def close(self) -> None:
        """It is the parent's."""
