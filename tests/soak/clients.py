"""Those who use the server, each in a thread, until they are told to stop."""

import http.client
import json
import random
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
# Which of the calls upstream is that of the session, see app; and what the upstream answers unasked.
SESSION, UNASKED = 1, "extra!"
NONSENSE = (
    b"\r\n\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"POST /echo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /readyz HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n" * 200,
    b"POST /echo/half HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf",
)


class Clients:
    def __init__(self, port: int) -> None:
        self.port = port
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.unanswered: list[str] = []
        self.counting = threading.Lock()
        self.is_over = threading.Event()
        self.threads: list[threading.Thread] = []

    def start(self, kind: Callable[[], None], many: int) -> None:
        for _ in range(many):
            thread = threading.Thread(target=self.run, args=(kind,), daemon=True)
            thread.start()
            self.threads.append(thread)

    def run(self, kind: Callable[[], None]) -> None:
        while not self.is_over.is_set():
            try:
                kind()
            except OSError:
                self.count("refused")  # by the system: those who count answers have dealt with it
                time.sleep(0.05)

    def stop(self) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)

    def count(self, what: str) -> None:
        with self.counting:
            self.counts[what] += 1

    # Clients that check their answers

    def user(self) -> None:
        """One connection, several requests: each with a nonce of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        for number in range(random.randrange(1, 20)):
            if self.is_over.is_set():
                break
            nonce = uuid.uuid4().hex
            answer = self.ask(connection, number > 0, "POST", f"/echo/{nonce}", f"body {nonce}")
            if answer is None:
                break
            status, text = answer
            self.count(f"echo {status}")
            if status == 200:
                self.check_echo(nonce, json.loads(text))
            time.sleep(random.random() * 0.02)
        connection.close()

    def check_echo(self, nonce: str, said: dict[str, list[str] | str]) -> None:
        asked = list(said["found"])
        # A kept session has the gap with any server: the upstream answers what nobody asked after the last look.
        if asked[SESSION] == UNASKED:
            self.count("a session got what nobody asked for")
            del asked[SESSION]
        found = [one for one in asked if not one.startswith("failed: ")]
        is_right = (
            said["before"] == ["", "", ""]
            and said["after"] == [nonce] * 3
            and said["body"] == f"body {nonce}"
            and set(found) == {nonce}
        )
        self.count("upstream failed" if len(found) < len(asked) else "upstream answered")
        if not is_right:
            self.wrong.append(f"{nonce} got {said}")

    def other(self) -> None:
        """A request of another kind, on a connection of its own."""
        kind = random.choice(["error", "threads", "compute", "large", "fork", "descriptors"])
        nonce = uuid.uuid4().hex
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        answer = self.ask(connection, False, "GET", f"/{kind}/{nonce}", None)
        connection.close()
        if answer is None:
            return
        status, text = answer
        self.count(f"{kind} {status}")
        right = {"fork": f"{nonce} 0", "large": nonce * 6400, "descriptors": nonce, "compute": nonce}
        if status == 200 and kind in right and text != right[kind]:
            self.wrong.append(f"{kind} {nonce} got {text[:200]}")
        if status == 200 and kind == "threads" and not set(text.replace("failed: ", "").split()) - {nonce} <= ERRORS:
            self.wrong.append(f"{kind} {nonce} got {text[:200]}")
        time.sleep(random.random() * 0.1)

    def ask(
        self, connection: http.client.HTTPConnection, is_kept: bool, method: str, path: str, body: str | None
    ) -> tuple[int, str] | None:
        """None: a kept connection was closed before the server had the request, as it may."""
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.will_close:
                connection.close()
            return answer.status, text
        except (http.client.HTTPException, OSError) as exc:
            if is_kept and isinstance(exc, ConnectionError | http.client.RemoteDisconnected):
                self.count("closed while idle")
            else:
                self.unanswered.append(f"{method} {path[:40]}: {exc!r}")
            return None

    # Clients that don't

    def leaver(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as sock:
            path = random.choice(["slow", "error", "large", "threads"])
            sock.sendall(f"GET /{path}/left HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(random.random() * 0.3)
        self.count("left")

    def late(self) -> None:
        """Its budget ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", "/slow/late", headers={"X-Request-Timeout-Ms": "200"})
            self.count(f"late {connection.getresponse().status}")
        except (http.client.HTTPException, OSError) as exc:
            self.unanswered.append(f"late: {exc!r}")
        finally:
            connection.close()

    def slow_sender(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as sock:
            for byte in b"POST /echo/slowly HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc":
                sock.sendall(bytes([byte]))
                time.sleep(0.01)
            sock.recv(65_536)
        self.count("sent slowly")

    def slow_reader(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS) as sock:
            sock.sendall(b"GET /large/slowly HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            while sock.recv(4096):
                time.sleep(0.02)
        self.count("read slowly")

    def hostile(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as sock:
            sock.sendall(random.choice(NONSENSE))
            time.sleep(random.random() * 0.2)
            if random.random() < 0.5:
                sock.recv(1000)
        self.count("sent nonsense")
        time.sleep(0.05)


ERRORS = {"ConnectionError", "ChunkedEncodingError", "ReadTimeout", "ConnectTimeout", "Timeout"}
