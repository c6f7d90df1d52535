"""What gunicorn's gevent worker works with and this one does not: the server refuses it when it starts."""

from typing import Any

from gevent import config

UWSGI = (
    "greenroom's worker speaks HTTP, and not the uwsgi protocol: remove `protocol` (--protocol) from gunicorn's "
    "settings, and let nginx use proxy_pass in place of uwsgi_pass"
)
LIBUV = "greenroom's worker needs gevent's usual event loop, libev: remove GEVENT_LOOP (libuv) from the environment"


def demand_served(cfg: Any, log: Any) -> None:
    """Raises SystemExit. Runs on: arbiter, at its start."""
    problem = UWSGI if getattr(cfg, "protocol", "http") != "http" else ""
    if any(kind.__module__.startswith("gevent.libuv") for kind in config.loop.__mro__):
        problem = LIBUV
    if problem:
        log.error(problem)
        raise SystemExit(1)
