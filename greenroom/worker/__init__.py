"""The gunicorn worker class.

lifecycle -> listener, balance                          who accepts
          -> recycle                                    who is replaced, and when
          -> serving -> connection -> head, request     what came
                                   -> wire, response    what goes
                     -> timeouts                        who keeps us waiting
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
