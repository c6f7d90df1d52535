"""A client's socket in a forked child."""

from typing import Any, NoReturn

from ... import forking


class ParentsSocket:
    """The child has come to the end of its own work when it answers the parent's client."""

    def send(self, *_: Any) -> NoReturn:
        forking.leave()

    sendmsg = send

    def recv(self, *_: Any) -> bytes:
        raise ConnectionAbortedError("the client's connection is the parent's")

    def fileno(self) -> int:
        return -1

    def setsockopt(self, *_: Any) -> None:
        """It is the parent's."""

    shutdown = setsockopt

    def close(self) -> None:
        """It is the parent's."""
