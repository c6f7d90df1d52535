"""An upstream that does what a test tells it: a blocking server in real threads, a thread for each connection."""

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Received:
    """A request as it came. `connection` is the number of the connection it came on."""

    connection: int
    head: bytes
    body: bytes

    @property
    def target(self) -> str:
        return self.head.split(b" ", 2)[1].decode()

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def fields(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


# The conversation on one connection: True, and the next request is read.
Script = Callable[[socket.socket, Received], bool]


@dataclass
class Upstream:
    """Answers each path with the script that `on` was told, all others with what it was asked, as JSON."""

    tls: ssl.SSLContext | None = None
    requests: list[Received] = field(default_factory=list)
    connections: int = 0
    scripts: dict[str, Script] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"
        self.open: list[socket.socket] = []
        self.lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # or accept() would take one more
        self.listener.close()
        self.drop()

    def drop(self) -> None:
        """Close every connection."""
        with self.lock:
            for sock in self.open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()
            self.open.clear()

    def on(self, path: str, script: Script | bytes) -> str:
        """Have `path` answered by `script`, or with these bytes and the connection kept. Its URL."""
        self.scripts[path] = script if callable(script) else sends(script)
        return self.url + path

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            with self.lock:
                self.connections += 1
                number = self.connections
                self.open.append(sock)
            threading.Thread(target=self._serve, args=(sock, number), daemon=True).start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                with self.lock:
                    self.open.append(sock)
            with sock.makefile("rb") as file:
                self._answer(sock, file, number)
        except (OSError, ValueError):
            pass  # the client, or the test, has closed it
        finally:
            with suppress(OSError):
                if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER):
                    sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _answer(self, sock: socket.socket, file: Any, number: int) -> None:
        while (request := read_request(file, number)) is not None:
            self.requests.append(request)
            path = request.target.partition("?")[0]
            if not self.scripts.get(path, echo)(sock, request):
                return


def read_request(file: Any, connection: int) -> Received | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()
        if not line:
            return None
        head += line
    request = Received(connection, head, b"")
    fields = request.fields
    if fields.get("transfer-encoding") == "chunked":
        raw = b""
        while True:
            line = file.readline()
            raw += line
            size = int(line, 16)
            raw += file.read(size + 2)
            if not size:
                break
        request.body = raw
    else:
        request.body = file.read(int(fields.get("content-length", 0)))
    return request


def answer(body: bytes = b"", status: str = "200 OK", *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *fields, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def echo(sock: socket.socket, request: Received) -> bool:
    said = {
        "method": request.method,
        "target": request.target,
        "fields": request.fields,
        "body": request.body.decode("latin-1"),
        "connection": request.connection,
    }
    whole = answer(json.dumps(said).encode(), "200 OK", "Content-Type: application/json")
    sock.sendall(whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if request.method == "HEAD" else whole)
    return True


def sends(*pieces: bytes, pause_seconds: float = 0.0, then: str = "keep") -> Script:
    """Send the pieces one by one; then "keep" the connection, "close" or "reset" it, or "hang" with it."""

    def script(sock: socket.socket, request: Received) -> bool:
        for number, piece in enumerate(pieces):
            if number and pause_seconds:
                threading.Event().wait(pause_seconds)
            sock.sendall(piece)
        if then == "reset":
            reset(sock)
        if then == "hang":
            sock.recv(1)
        return then == "keep"

    return script


def reset(sock: socket.socket) -> None:
    """Closing sends a reset from now on."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
