"""A small server that speaks MongoDB's OP_MSG: what pymongo and its monitors need, and a few commands; data in memory.

    python mongo_server.py PORT

Runs in the application's environment, since it takes `bson` from pymongo. A `hello` with `maxAwaitTimeMS` waits so long
and goes on answering by itself (an exhaust cursor), as the real server does for a driver's monitor.
"""

import itertools
import socketserver
import struct
import sys
import threading
import time
from typing import Any

import bson

HEADER = struct.Struct("<iiii")
OP_REPLY, OP_QUERY, OP_MSG = 1, 2004, 2013
MORE_TO_COME, EXHAUST_ALLOWED = 1 << 1, 1 << 16
PROCESS = bson.ObjectId()
collections: dict[str, list[dict[str, Any]]] = {}
lock = threading.Lock()
numbers = itertools.count(1)


def hello() -> dict[str, Any]:
    return {
        "ok": 1.0, "isWritablePrimary": True, "ismaster": True, "helloOk": True, "minWireVersion": 0,
        "maxWireVersion": 21, "maxBsonObjectSize": 16777216, "maxMessageSizeBytes": 48000000,
        "maxWriteBatchSize": 100000, "connectionId": 1, "readOnly": False,
        "topologyVersion": {"processId": PROCESS, "counter": bson.Int64(0)},
    }  # fmt: skip


def answer(command: dict[str, Any]) -> dict[str, Any]:
    name = next(iter(command))
    if name in ("hello", "isMaster", "ismaster"):
        return hello()
    if name in ("ping", "endSessions", "killCursors"):
        return {"ok": 1.0}
    with lock:
        documents = collections.setdefault(str(command[name]), [])
        if name == "insert":
            documents.extend(command["documents"])
            return {"ok": 1.0, "n": len(command["documents"])}
        if name == "find":
            time.sleep(command.get("maxTimeMS", 0) / 1000)
            wanted = command.get("filter", {}).items()
            found = [each for each in documents if all(each.get(key) == value for key, value in wanted)]
            cursor = {"firstBatch": found, "id": bson.Int64(0), "ns": f"{command['$db']}.{command[name]}"}
            return {"ok": 1.0, "cursor": cursor}
    return {"ok": 0.0, "errmsg": f"no such command: '{name}'", "code": 59, "codeName": "CommandNotFound"}


class Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(HEADER.size):
            length, number, _, kind = HEADER.unpack(head)
            body = self.rfile.read(length - HEADER.size)
            if kind == OP_QUERY:  # the first message of a driver that does not know the server yet
                self.reply(number, OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(hello()))
                continue
            flags, command = read(body)
            waits_seconds = command.get("maxAwaitTimeMS", 0) / 1000
            if waits_seconds and flags & EXHAUST_ALLOWED:
                while True:  # until the driver goes
                    time.sleep(waits_seconds)
                    number = self.reply(number, OP_MSG, message(hello(), MORE_TO_COME))
            time.sleep(waits_seconds)
            self.reply(number, OP_MSG, message(answer(command)))

    def reply(self, to: int, kind: int, body: bytes) -> int:
        number = next(numbers)
        self.wfile.write(HEADER.pack(HEADER.size + len(body), number, to, kind) + body)
        return number


def message(document: dict[str, Any], flags: int = 0) -> bytes:
    return struct.pack("<IB", flags, 0) + bson.encode(document)


def read(body: bytes) -> tuple[int, dict[str, Any]]:
    """The flags, and the command with its sequences of documents in their places."""
    (flags,) = struct.unpack_from("<I", body)
    command: dict[str, Any] = {}
    at = 4
    while at < len(body):
        kind = body[at]
        (size,) = struct.unpack_from("<i", body, at + 1)
        part = body[at + 1 : at + 1 + size]
        if kind == 0:
            command = {**bson.decode(part), **command}
        else:
            name, _, documents = part[4:].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents)
        at += 1 + size
    return flags, command


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A driver that has gone is no error."""


if __name__ == "__main__":
    with Server(("127.0.0.1", int(sys.argv[1])), Connection) as server:
        server.serve_forever()
