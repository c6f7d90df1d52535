"""The gunicorn worker class.

lifecycle -> balance, sharing, recycle, drain       which worker accepts, which is replaced, and how one ends
          -> listener                               clients connect
             -> transport                           their bytes: the plain socket, or TLS after its handshake
                -> connection, running              HTTP/1.1: head, judging, incoming (bodies), wire (bounded waits)
                -> http2                            HTTP/2: frames, streams
                   -> serving, admission, gates     each request (see exchange) runs, waits in line or is turned away
                      -> cycle, greenlets           a request in its greenlet: environ, budget, application, account
                         -> response                what goes back
                         -> ending, hangups         a request that ends before its application has answered
             -> timeouts                            clients that keep us waiting
"""

from typing import Any

__all__ = ["GreenWorker"]


def __getattr__(name: str) -> Any:
    """The worker class, when it is asked for: who only reads the scoreboard loads neither gevent nor gunicorn."""
    if name == "GreenWorker":
        from .gunicorns import refuse_older

        refuse_older()
        from .lifecycle import GreenWorker

        return GreenWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
