"""Settings that gunicorn has a name of its own for: which of both counts, and the value in the end.

Under our configuration gunicorn is told our values, and its command line or a gunicorn.conf.py of a team's counts over
them. Under a configuration of the team's alone (`gunicorn -k greenroom.Worker`) gunicorn's values count; those that can
still be changed when the worker class is asked for are taken from our names, where they are set.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from .settings import Settings, environment_name

# Ours -> gunicorn's.
NAMES = {
    "bind": "bind",
    "web_concurrency": "workers",
    "threads": "threads",
    "worker_connections": "worker_connections",
    "backlog": "backlog",
    "timeout_seconds": "timeout",
    "graceful_timeout_seconds": "graceful_timeout",
    "keepalive_seconds": "keepalive",
    "max_requests": "max_requests",
    "max_requests_jitter": "max_requests_jitter",
    "forwarded_allow_ips": "forwarded_allow_ips",
    "tls_certificate": "certfile",
    "tls_key": "keyfile",
    "log_level": "loglevel",
    "access_log": "accesslog",
}
# Those that gunicorn looks at only when it has workers.
LATE_ENOUGH = (
    "worker_connections",
    "graceful_timeout_seconds",
    "keepalive_seconds",
    "max_requests",
    "max_requests_jitter",
    "forwarded_allow_ips",
)


def in_force(settings: Settings, cfg: Any) -> Settings:
    """`settings` with what gunicorn does in the end, whoever told it: its file, its command line, or we."""
    values: dict[str, Any] = {}
    for name, gunicorns in NAMES.items():
        value = getattr(cfg, gunicorns, None)
        if value is None and name in ("tls_certificate", "tls_key"):
            value = ""
        elif isinstance(value, (list, tuple)):
            value = ",".join(str(item) for item in value)
        elif name == "access_log":
            value = value is not None
        if type(value) is type(getattr(settings, name)):
            values[name] = value
    return dataclasses.replace(settings, **values)


def take_ours(settings: Settings, environ: Mapping[str, str], cfg: Any) -> list[str]:
    """Tell gunicorn those of our settings that are set and not too late; returns the names of the others that are set.

    For a gunicorn with a configuration of its own. WEB_CONCURRENCY is a name that gunicorn reads itself.
    """
    ignored = []
    for name, gunicorns in NAMES.items():
        if name == "web_concurrency" or not environ.get(environment_name(name), "").strip():
            continue
        if name in LATE_ENOUGH:
            cfg.set(gunicorns, getattr(settings, name))
        elif getattr(in_force(settings, cfg), name) != getattr(settings, name):
            ignored.append(f"{environment_name(name)} (gunicorn's name is {gunicorns})")
    return ignored
