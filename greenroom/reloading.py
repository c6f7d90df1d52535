"""Telling gunicorn, in the middle of a reload, to replace nobody."""

from .gunicorns_parts import Arbiter


def call_off_reload(server: Arbiter) -> None:
    """Let gunicorn finish its reload without replacing anybody; it has no way to be told so.

    After the hook on_reload it starts cfg.workers new workers (so: none), stops as many of the oldest as are too many
    (none), and waits for those that are older than the newest it knew (so: for nobody).
    """
    server.cfg.set("workers", 0)
    for worker in list(server.WORKERS.values()):
        worker.age = server.worker_age + 1
