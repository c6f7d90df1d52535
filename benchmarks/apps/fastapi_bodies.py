"""FastAPI routes with large bodies: 1 MB comes, 1 MB goes, and a stream of events."""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from . import bodies

app = FastAPI()


@app.get("/")
async def ready() -> dict[str, Any]:
    return {}


@app.post("/upload")
async def upload(request: Request) -> dict[str, Any]:
    return {"bytes": len(await request.body())}


@app.get("/large")
async def large() -> Response:
    return Response(bodies.LARGE, media_type="application/octet-stream")


@app.get("/events")
async def events() -> StreamingResponse:
    async def stream() -> AsyncIterator[bytes]:
        for number in range(bodies.EVENTS):
            yield bodies.event(number)

    return StreamingResponse(stream(), media_type="text/event-stream")
