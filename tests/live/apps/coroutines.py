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


@app.get("/seen")
def seen() -> dict[str, Any]:
    return {"most_waiting": most_waiting, "pid": os.getpid()}
