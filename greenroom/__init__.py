"""Greenroom: plain blocking Flask, served on gevent.

Importing this package changes nothing. Patching happens where the name says so: `greenroom.patching.patch()`, which
`greenroom serve`, the gunicorn configuration `greenroom/gunicorn_conf.py` and the worker class call first of all.

    cli            greenroom serve | run | settings | ops | top | stacks
    configuration  what gunicorn is told, with a reason for each choice; gunicorn_conf is the file for `serve`
    settings       every knob
    patching       the standard library, psycopg2, requests, SQLAlchemy, asyncio
    worker         from the listener to the application
    waits          what a request waits for, and how that ends
    insight, ops   what a worker does, and who is told
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .worker.lifecycle import GreenWorker as Worker

__all__ = ["Worker"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`Worker`, the class for `gunicorn -k greenroom.Worker`. With it comes gevent: it is imported when asked for."""
    if name != "Worker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .worker.lifecycle import GreenWorker

    return GreenWorker
