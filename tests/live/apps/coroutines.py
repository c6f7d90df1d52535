"""An application with coroutines: in views, and in a library that a blocking view calls."""

import asyncio
import os
from typing import Any

from flask import Flask, g, request

app = Flask(__name__)
waiting = 0
most_waiting = 0


async def wait(ms: int) -> str:
    """Stands for a library that only speaks asyncio."""
    global waiting, most_waiting
    waiting += 1
    most_waiting = max(most_waiting, waiting)
    await asyncio.sleep(ms / 1000)
    waiting -= 1
    return str(g.number)


@app.before_request
def number() -> None:
    g.number = request.args.get("number")


@app.get("/view/<int:ms>")
async def view(ms: int) -> dict[str, Any]:
    return {"number": await wait(ms), "path": request.path}


@app.get("/library/<int:ms>")
def library(ms: int) -> dict[str, Any]:
    return {"number": asyncio.run(wait(ms)), "path": request.path}


@app.get("/")
@app.get("/seen")
def seen() -> dict[str, Any]:
    return {"most_waiting": most_waiting, "pid": os.getpid()}


@app.post("/body")
async def body() -> dict[str, Any]:
    """Reads what may not have come yet: it blocks the thread that it is in."""
    return {"length": len(request.get_data()), "number": await wait(1)}


@app.post("/body-in-a-thread")
async def body_in_a_thread() -> dict[str, Any]:
    stream = request.stream
    first = await asyncio.to_thread(stream.read, 5)
    rest = await asyncio.to_thread(stream.read)
    return {"length": len(first) + len(rest)}


def write_in_a_thread(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """More than the kernel takes at once, with write(), from a coroutine's thread."""
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(20 * 1_000_000))])

    async def send() -> None:
        for _ in range(20):
            await asyncio.to_thread(write, b"x" * 1_000_000)

    asyncio.run(send())
    return []


flask_app = app.wsgi_app


def application(environ: dict[str, Any], start_response: Any) -> Any:
    if environ["PATH_INFO"] == "/write":
        return write_in_a_thread(environ, start_response)
    return flask_app(environ, start_response)


app.wsgi_app = application  # type: ignore[method-assign]
