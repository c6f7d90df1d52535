"""Protocols of gunicorn's own worker classes that this one does not serve: the server refuses them when it starts."""

from typing import Any

UWSGI = (
    "greenroom's worker speaks HTTP, and not the uwsgi protocol: remove `protocol` (--protocol) from gunicorn's "
    "settings, and let nginx use proxy_pass in place of uwsgi_pass"
)


def demand_served(cfg: Any, log: Any) -> None:
    """Raises SystemExit. Runs on: arbiter, at its start."""
    if getattr(cfg, "protocol", "http") != "http":
        log.error(UWSGI)
        raise SystemExit(1)
