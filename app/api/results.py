"""The answers of a board's sources: all in one document, as a stream, and the earlier ones."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

from flask import Response, copy_current_request_context, current_app, request, stream_with_context
from flask_login import current_user

from .. import boards, fetch_limits
from .pagination import paginate
from .routes import blueprint
from .schemas import fetch_document

# Also how soon a client that left is noticed: only writing to it shows that.
HEARTBEAT_SECONDS = 1.0
# A server that shuts down waits through so many of them: mostly that is enough for all sources. It would break the
# stream off in the end.
LAST_HEARTBEATS = 10


@blueprint.get("/boards/<slug>/results")
def fetch_board(slug: str) -> Any:
    planned = boards.plan(boards.readable_by(current_user, slug))
    fetch_limits.check(planned)
    return boards.results(planned)


@blueprint.get("/boards/<slug>/stream")
def stream_board(slug: str) -> Any:
    """As `fetch_board`, in server-sent events: each answer the moment it is there, then `done`."""
    planned = boards.plan(boards.readable_by(current_user, slug))
    fetch_limits.check(planned)
    fetch = boards.LiveFetch(planned, HEARTBEAT_SECONDS)
    response = Response(
        stream_with_context(events(fetch, request.environ.get("greenroom.is_draining", lambda: False))),
        mimetype="text/event-stream",
        # nginx would collect the events otherwise.
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
    # Not in the generator: a server whose client has left may end whatever that waits for, but not what closes it.
    response.call_on_close(copy_current_request_context(fetch.record))
    return response


@blueprint.get("/boards/<slug>/history")
def read_history(slug: str) -> Any:
    found, headers = paginate(boards.history_of(boards.readable_by(current_user, slug)))
    return [fetch_document(fetch) for fetch in found], headers


def events(fetch: boards.LiveFetch, is_draining: Callable[[], bool]) -> Iterator[str]:
    """The text of the event stream. Closing it ends the fetches; so does, after a while, a server that drains."""
    started = time.monotonic()
    heartbeats_left = LAST_HEARTBEATS
    yield ": heartbeat\n\n"  # the head goes out now and not with the first answer
    with closing(fetch.outcomes()) as outcomes:
        for outcome in outcomes:
            if outcome is None and is_draining():
                heartbeats_left -= 1
                if not heartbeats_left:
                    return
            yield ": heartbeat\n\n" if outcome is None else event("source", outcome.as_dict())
    yield event("done", {"board": fetch.planned.slug, "elapsed_ms": round((time.monotonic() - started) * 1000)})


def event(name: str, data: dict[str, Any]) -> str:
    return f"event: {name}\ndata: {current_app.json.dumps(data)}\n\n"
