"""The service that the upstream route waits for: answers `GET /delay/<ms>` after that many milliseconds.

A process of its own: `python -m benchmarks.upstream` prints its URL and serves until its standard input is closed, so
it ends with whoever started it. A waiting request costs one timer and no thread, so thousands may wait.
"""

import asyncio
import json
import os
import re
import sys
import threading

BACKLOG = 4096
LARGEST_HEAD_BYTES = 16_384
REQUEST = re.compile(rb"GET /delay/([0-9]{1,5}) HTTP/1\.1\r\n")


def answer(status: str, document: dict[str, object]) -> bytes:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Upstream(asyncio.Protocol):
    """One connection: one request after the other, kept alive until the client closes."""

    def __init__(self) -> None:
        self.received = b""
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.timer is not None:
            self.timer.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.timer is None:
            self._read_request()

    def _read_request(self) -> None:
        assert self.transport is not None
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            if len(head) > LARGEST_HEAD_BYTES:
                self.transport.abort()
            return
        self.received = rest
        match = REQUEST.match(head + end)
        if match is None:
            self.transport.write(answer("404 Not Found", {"error": "only GET /delay/<ms> is served here"}))
            self.transport.close()
            return
        milliseconds = int(match[1])
        self.timer = asyncio.get_running_loop().call_later(milliseconds / 1000, self._answer, milliseconds)

    def _answer(self, milliseconds: int) -> None:
        self.timer = None
        if self.transport is not None:
            self.transport.write(answer("200 OK", {"delay_ms": milliseconds}))
            self._read_request()


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port, backlog=BACKLOG)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=end_with_parent, daemon=True).start()
    asyncio.run(serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
