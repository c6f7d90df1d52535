"""A connection to an upstream as the file that http.client reads an answer from."""

from typing import Any

from .connection import Connection


class Reader:
    """The received bytes of a connection, as the file that http.client reads an answer from.

    The bytes are taken from `connection.received` first. `last_line` is the last line that was read, when nothing was
    read after it: an answer in chunks is complete when that is the empty line behind them.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.last_line: bytes | None = None
        self.taken_bytes = 0
        self.is_at_end = False
        self.closed = False

    def _fill(self) -> bool:
        """Receive more behind what is there; False at the end."""
        if self.is_at_end:
            return False
        connection = self.connection
        more = connection.receive()
        if not more:
            self.is_at_end = True
            return False
        if connection.position >= len(connection.received):
            connection.received = more
        else:
            connection.received = connection.received[connection.position :] + more
        connection.position = 0
        return True

    def _take(self, count: int) -> bytes:
        connection = self.connection
        data = connection.received[connection.position : connection.position + count]
        connection.position += len(data)
        self.taken_bytes += len(data)
        return data

    def _held(self) -> int:
        return len(self.connection.received) - self.connection.position

    def read(self, count: int | None = None) -> bytes:
        self.last_line = None
        if count is None or count < 0:
            count = -1
        elif count <= self._held():
            return self._take(count)
        pieces: list[bytes] = []
        wanted = count
        while wanted:
            if not self._held() and not self._fill():
                break
            piece = self._take(wanted if wanted > 0 else self._held())
            pieces.append(piece)
            if wanted > 0:
                wanted -= len(piece)
        return b"".join(pieces)

    def read1(self, count: int = -1) -> bytes:
        self.last_line = None
        if not count or (not self._held() and not self._fill()):
            return b""
        return self._take(self._held() if count < 0 else count)

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def peek(self, count: int = 0) -> bytes:
        if not self._held():
            self._fill()
        return self.connection.received[self.connection.position :]

    def readline(self, limit: int = -1) -> bytes:
        connection = self.connection
        searched = connection.position
        while True:
            end = connection.received.find(b"\n", searched) + 1
            length = end - connection.position if end else self._held()
            if end or 0 <= limit <= length:
                break
            before = self._held()
            if not self._fill():
                break
            searched = connection.position + before
        self.last_line = self._take(length if limit < 0 else min(limit, length))
        return self.last_line

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return int(self.connection.sock.fileno())

    def flush(self) -> None:
        """Nothing: there is only reading."""

    def close(self) -> None:
        self.closed = True

    # http.client's HTTPResponse is made over something that has a makefile().
    def makefile(self, mode: str) -> "Reader":
        return self
