"""A server whose behaviour is known: each path does one thing, exactly. Prints its port, serves until it is killed.

/fixed?ms=50            an answer after so long                 /capacity?rate=100&ms=0   one at a time, in line
/errors?every=10        each tenth is a 500                     /shed?rate=100            above it: 503, Retry-After
/reset?every=10         each tenth is reset                     /unavailable              503 without Retry-After
/hang                   no answer                               /garbage                  no HTTP
/loop                   redirects to itself                     /endless                  a body without an end
/there                  redirects to /fixed?ms=0                /away                     redirects to another host
/early                  closes without an answer                /short                    half of an answer
/events?ms=20           an event each 20 ms, for ever           /echo                     what was sent, as JSON
/login                  a cookie, for user=ada                  /member                   401 without it
/slowing?easy=150       5 ms more for each above it a second
"""

import asyncio
import json
import socket
import ssl
import struct
import sys
from collections import Counter, deque
from urllib.parse import parse_qs, urlsplit

seen: Counter[str] = Counter()
free_at: dict[str, float] = {}
came: deque[float] = deque()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await answer_one(reader, writer):
            pass
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def answer_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (one.partition(":") for one in rest)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, target, _ = line.split(" ")
    parts = urlsplit(target)
    asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
    seen[target] += 1
    request = (method, target, headers, body)
    return await BEHAVIOURS[parts.path](writer, asked, seen[target], request)


def write(writer: asyncio.StreamWriter, status: str = "200 OK", body: bytes = b"hello", *more: str) -> bool:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *more]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return True


async def fixed(writer, asked, number, request) -> bool:
    if float(asked.get("ms", 0)):
        await asyncio.sleep(float(asked["ms"]) / 1000)
    return write(writer)


async def capacity(writer, asked, number, request) -> bool:
    """Like a server with one core: an answer each 1/rate seconds, the others wait in line."""
    now = asyncio.get_running_loop().time()
    key = request[1]
    begins = max(now, free_at.get(key, 0.0))
    free_at[key] = begins + 1 / float(asked["rate"])
    await asyncio.sleep(free_at[key] - now + float(asked.get("ms", 0)) / 1000)
    return write(writer)


async def shed(writer, asked, number, request) -> bool:
    """Up to `rate` are answered; whoever would wait longer than 50 ms is turned away."""
    now = asyncio.get_running_loop().time()
    key = request[1]
    begins = max(now, free_at.get(key, 0.0))
    if begins - now > 0.05:
        return write(writer, "503 Service Unavailable", b"", "Retry-After: 1")
    free_at[key] = begins + 1 / float(asked["rate"])
    await asyncio.sleep(free_at[key] - now)
    return write(writer)


async def slowing(writer, asked, number, request) -> bool:
    """20 ms, and 5 ms more for each request over `easy` in the last second."""
    now = asyncio.get_running_loop().time()
    while came and came[0] <= now - 1.0:
        came.popleft()
    came.append(now)
    await asyncio.sleep(0.020 + 0.005 * max(0, len(came) - int(asked["easy"])))
    return write(writer)


async def errors(writer, asked, number, request) -> bool:
    return write(writer) if number % int(asked["every"]) else write(writer, "500 Internal Server Error", b"")


async def reset(writer, asked, number, request) -> bool:
    if number % int(asked["every"]):
        return write(writer)
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def unavailable(writer, asked, number, request) -> bool:
    return write(writer, "503 Service Unavailable", b"")


async def hang(writer, asked, number, request) -> bool:
    await asyncio.sleep(3600)
    return False


async def garbage(writer, asked, number, request) -> bool:
    writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    return False


async def loop(writer, asked, number, request) -> bool:
    return write(writer, "302 Found", b"", "Location: /loop")


async def there(writer, asked, number, request) -> bool:
    return write(writer, "302 Found", b"", "Location: /fixed?ms=0")


async def away(writer, asked, number, request) -> bool:
    return write(writer, "302 Found", b"", "Location: http://example.com/")


async def endless(writer, asked, number, request) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 262_144)
        await writer.drain()


async def early(writer, asked, number, request) -> bool:
    return False


async def short(writer, asked, number, request) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    return False


async def events(writer, asked, number, request) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        await asyncio.sleep(float(asked.get("ms", 20)) / 1000)
        writer.write(b"d\r\ndata: hello\n\n\r\n")
        await writer.drain()


async def echo(writer, asked, number, request) -> bool:
    method, target, headers, body = request
    said = {"method": method, "target": target, "headers": headers, "body": body.decode(), "number": number}
    return write(writer, "200 OK", json.dumps(said).encode(), "Content-Type: application/json")


async def login(writer, asked, number, request) -> bool:
    if request[3] != b"user=ada":
        return write(writer, "403 Forbidden", b"")
    return write(writer, "200 OK", b"welcome", "Set-Cookie: session=s3; Path=/; HttpOnly")


async def member(writer, asked, number, request) -> bool:
    if "session=s3" in request[2].get("cookie", ""):
        return write(writer)
    return write(writer, "401 Unauthorized", b"")


BEHAVIOURS = {
    f"/{one.__name__}": one
    for one in (
        fixed, capacity, shed, slowing, errors, reset, unavailable, hang, garbage, loop, there, away, endless, early,
        short, events, echo, login, member,
    )
}  # fmt: skip


async def serve_http2(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As /fixed and /echo, for each stream by itself; `/reset` resets the stream."""
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.events import DataReceived, RequestReceived, StreamEnded

    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    asked: dict[int, tuple[dict[str, str], bytes]] = {}
    tasks = set()

    async def answer(stream: int) -> None:
        headers, body = asked.pop(stream)
        parts = urlsplit(headers[":path"])
        values = {name: found[0] for name, found in parse_qs(parts.query).items()}
        await asyncio.sleep(float(values.get("ms", 0)) / 1000)
        if parts.path == "/reset":
            connection.reset_stream(stream)
        else:
            said = json.dumps({"method": headers[":method"], "body": len(body), "one": headers.get("x-one")}).encode()
            connection.send_headers(stream, [(":status", "200"), ("content-type", "application/json")])
            connection.send_data(stream, said, end_stream=True)
        writer.write(connection.data_to_send())

    try:
        while True:
            writer.write(connection.data_to_send())
            data = await reader.read(65536)
            if not data:
                break
            for event in connection.receive_data(data):
                if isinstance(event, RequestReceived):
                    asked[event.stream_id] = (dict(event.headers), b"")
                elif isinstance(event, DataReceived):
                    headers, body = asked[event.stream_id]
                    asked[event.stream_id] = (headers, body + event.data)
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    task = asyncio.ensure_future(answer(event.stream_id))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
    except ConnectionError:
        pass
    finally:
        for task in tasks:
            task.cancel()
        writer.close()


async def main() -> None:
    """`synthetic.py [h2] [CERTIFICATE KEY]`."""
    arguments = [one for one in sys.argv[1:] if one != "h2"]
    behaviour = serve_http2 if "h2" in sys.argv else serve
    tls = None
    if arguments:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*arguments)
        tls.set_alpn_protocols(["h2"] if "h2" in sys.argv else ["http/1.1"])
    server = await asyncio.start_server(behaviour, "127.0.0.1", 0, backlog=1024, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
