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
             -> timeouts                            handshakes, heads and idle connections that take too long

Beside them
    head, judging, incoming, request, proxied, client_errors    reading a request; progress, patience: slow clients
    load, fair, budget, shedding                    loop time, turns, time limits, the 503
    takeover                                        `environ["gunicorn.socket"]`, WebSockets
    process, boot_failure, memory_limit             the process: its start, its memory
    signals, system_errors, leaving                 what ends it: signals, exits of greenlets
    lingering, left_files                           the end of a connection; files that requests leave open
    spinning, gunicorns, unserved                   empty turns; gunicorn's versions; what is refused
    log_redaction, log_floods                       logs without secrets, and without a thousand equal tracebacks
"""

from typing import Any

__all__ = ["GreenWorker"]


def __getattr__(name: str) -> Any:
    """Import the worker class when it is asked for: readers of the scoreboard load neither gevent nor gunicorn."""
    if name == "GreenWorker":
        from .gunicorns import refuse_older

        refuse_older()
        from .lifecycle import GreenWorker

        return GreenWorker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
