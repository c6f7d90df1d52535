"""FastAPI routes that wait 100 ms for another HTTP service through aiohttp. UPSTREAM_URL says where it is."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from fastapi import FastAPI

FAN_OUT = 20
url = os.environ["UPSTREAM_URL"] + "/delay/100"
sessions: list[aiohttp.ClientSession] = []


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Its own choice is 100 connections; with 200 clients that would be the measurement.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=400)) as session:
        sessions.append(session)
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def ready() -> dict[str, Any]:
    return {}


async def ask() -> Any:
    async with sessions[0].get(url) as answer:
        return await answer.json()


@app.get("/session")
async def with_session() -> dict[str, Any]:
    return {"upstream": await ask()}


@app.get("/bare")
async def bare() -> dict[str, Any]:
    """The same: aiohttp has no calls without a session."""
    return {"upstream": await ask()}


@app.get("/fanout")
async def fan_out() -> dict[str, Any]:
    return {"upstreams": await asyncio.gather(*(ask() for _ in range(FAN_OUT)))}
