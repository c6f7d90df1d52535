"""Small servers over real sockets that behave as a test says, mostly badly."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONG_WAIT = 10.0


class Connection:
    """One accepted connection, as a behaviour sees it."""

    def __init__(self, sock: socket.socket, server: "Upstream") -> None:
        self.sock = sock
        self.server = server
        self._unread = b""

    def read_head(self) -> str | None:
        """The next request's head; None when the client has closed."""
        while b"\r\n\r\n" not in self._unread:
            received = self.sock.recv(65_536)
            if not received:
                return None
            self._unread += received
        head, _, self._unread = self._unread.partition(b"\r\n\r\n")
        text = head.decode("latin-1")
        self.server.heads.append(text)
        return text

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, body: bytes = b'{"ok": true}', *, status: str = "200 OK", **headers: str) -> None:
        lines = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode("latin-1") + body)

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_until_gone(self) -> bool:
        """True when the client closes or cuts the connection within LONG_WAIT."""
        self.sock.settimeout(LONG_WAIT)
        try:
            while self.sock.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            pass  # reset: gone as well
        return True

    def wait(self) -> None:
        """Do nothing until the server is stopped."""
        self.server.stopping.wait(LONG_WAIT)


Behaviour = Callable[[Connection], None]


class Upstream:
    """A server that hands each connection to a behaviour, on a thread of its own."""

    def __init__(self, behaviour: Behaviour, host: str = "127.0.0.1", port: int = 0) -> None:
        self.behaviour = behaviour
        self.heads: list[str] = []
        self.connections = 0
        self.stopping = threading.Event()
        self._open: list[Connection] = []
        self._threads: list[threading.Thread] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family)
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def url(self, path: str = "/", host: str | None = None) -> str:
        return f"http://{host or self.host}:{self.port}{path}"

    def stop(self) -> None:
        self.stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already
        for thread in self._threads:
            thread.join(LONG_WAIT)
            assert not thread.is_alive(), "a behaviour did not end"

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.stopping.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # stopped
            self.connections += 1
            connection = Connection(sock, self)
            self._open.append(connection)
            self._start(lambda connection=connection: self._serve(connection))

    def _serve(self, connection: Connection) -> None:
        with connection.sock:
            try:
                self.behaviour(connection)
            except OSError:
                pass  # the client went away, which is what most of these tests are about


@contextmanager
def upstream(behaviour: Behaviour, host: str = "127.0.0.1", port: int = 0) -> Iterator[Upstream]:
    server = Upstream(behaviour, host, port)
    try:
        yield server
    finally:
        server.stop()


def answering(body: bytes = b'{"ok": true}', **kwargs: str) -> Behaviour:
    """Answers each request on the connection."""

    def behave(connection: Connection) -> None:
        while connection.read_head() is not None:
            connection.answer(body, **kwargs)

    return behave


def sending(data: bytes) -> Behaviour:
    """Sends `data` as it is after the request's head, and closes."""

    def behave(connection: Connection) -> None:
        connection.read_head()
        connection.send(data)

    return behave


def hanging(connection: Connection) -> None:
    connection.read_head()
    connection.wait()


def dribbling(head: bytes, byte: bytes) -> Behaviour:
    """Sends `head` and then `byte` again and again."""

    def behave(connection: Connection) -> None:
        connection.read_head()
        connection.send(head)
        while not connection.server.stopping.wait(0.01):
            connection.send(byte)

    return behave


class Flood:
    """Sends `head`, which says that 100 MB follow, and then those; `sent` are the megabytes that were taken."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.sent = 0

    def __call__(self, connection: Connection) -> None:
        connection.read_head()
        connection.send(self.head + b"Content-Length: 100000000\r\n\r\n")
        for _ in range(100):
            connection.send(b"x" * 1_000_000)
            self.sent += 1


def eventually(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + LONG_WAIT
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def redirecting(location: str) -> Behaviour:
    return answering(b"", status="302 Found", Location=location)
