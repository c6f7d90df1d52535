"""A slow, failing, chatty upstream to try boards against. Off in production: anybody could make it wait."""

import time
from typing import Any

from flask import Blueprint, Response

blueprint = Blueprint("demo", __name__)

LONGEST_DELAY_MS = 30_000
LARGEST_PAYLOAD_BYTES = 10_000_000


@blueprint.get("/delay/<int:ms>")
def delay(ms: int) -> dict[str, int]:
    """Answers after `ms` milliseconds (30 s at most)."""
    ms = min(ms, LONGEST_DELAY_MS)
    time.sleep(ms / 1000)
    return {"delay_ms": ms}


@blueprint.get("/error/<int:status>")
def error(status: int) -> Any:
    """Answers with an HTTP status from 400 to 599; others become 400."""
    known = status if 400 <= status <= 599 else 400
    return {"status": known}, known


@blueprint.get("/payload/<int:size>")
def payload(size: int) -> Response:
    """Answers with `size` bytes of text (10 MB at most)."""
    return Response("x" * min(size, LARGEST_PAYLOAD_BYTES), mimetype="text/plain")
