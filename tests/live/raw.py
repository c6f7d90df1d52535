"""A client that sees what HTTP libraries hide: whether a connection was kept, closed or reset."""

import http.client
import socket
from typing import Self


class Client:
    """One keep-alive connection."""

    def __init__(self, port: int, timeout: float = 30.0) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self.connection.connect()

    def send(self, path: str) -> None:
        self.connection.request("GET", path)

    def receive(self) -> tuple[bytes, bool]:
        """The body, and whether the server keeps the connection. Raises what http.client raises."""
        answer = self.connection.getresponse()
        body = answer.read()
        assert answer.status == 200, answer.status
        return body, answer.headers["Connection"] != "close"

    def get(self, path: str) -> tuple[bytes, bool]:
        self.send(path)
        return self.receive()

    def is_closed(self) -> bool:
        """Whether the server has closed; waits for it as long as the timeout."""
        sock = self.connection.sock
        assert sock is not None
        return sock.recv(1, socket.MSG_PEEK) == b""

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
