"""Reading the settings from a mapping: the process environment, over `.env`.

`Settings.read()` returns the settings or raises SettingsError with every problem at once. A name that begins with
GREENROOM_ and is not known here is a problem too, not a shrug: a misspelt limit is a limit that is not there.
"""

import difflib
import functools
import ipaddress
import logging
import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from dotenv import dotenv_values

from ..errors import SettingsError
from ..loopback import is_loopback
from .addresses import peer_problem, webhook_problem
from .fields import GREEN_WORKER_CLASSES, PLAIN_WORKER_CLASSES, Fields
from .knobs import PREFIX, environment_name, parse

logger = logging.getLogger(__name__)

OPS_OFF = "off"
# Settings that were, and what to do about them.
GONE = {
    "GREENROOM_QUEUE_TIMEOUT_MILLISECONDS": "nobody is turned away for having waited any more; how long clients "
    "wait is GREENROOM_CLIENT_PATIENCE_MILLISECONDS",
}
SHORTEST_TOKEN = 24
# Beside the process environment; the first one counts.
ENV_FILES = (".env", ".flaskenv")
# One request may ask an upstream many things at once.
FEWEST_UPSTREAM_CONNECTIONS = 100
OFF = "off"


@dataclass(frozen=True)
class Settings(Fields):
    """The server's settings as they are read, with what follows from them."""

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """The settings in `environ`; empty values count as unset. Raises SettingsError with all problems."""
        environ = with_port(environ)
        problems: list[str] = []
        values: dict[str, Any] = {}
        for knob_field in fields(cls):
            name = environment_name(knob_field.name)
            text = environ.get(name, "").strip()
            if text:
                value, problem = parse(knob_field, text)
                if problem:
                    problems.append(f"{name} {problem} (got {text!r})")
                else:
                    values[knob_field.name] = value
        problems += unknown_names(environ)
        settings = cls(**values)
        problems += settings.conflicts()
        if problems:
            raise SettingsError(problems)
        return settings

    def conflicts(self) -> list[str]:
        """Return the conflicts between these values, a sentence each."""
        found = []
        if bool(self.tls_certificate) != bool(self.tls_key):
            found.append("GREENROOM_TLS_CERTIFICATE and GREENROOM_TLS_KEY must be set together")
        found += [
            f"{environment_name(name)} names a file that can't be read: {path}"
            for name, path in (("tls_certificate", self.tls_certificate), ("tls_key", self.tls_key))
            if path and not os.access(path, os.R_OK)
        ]
        if self.wsgi_app and not {":", "."} & set(self.wsgi_app) and not self.wsgi_app.isidentifier():
            found.append(f"WSGI_APP must look like `module:name` (got {self.wsgi_app!r})")
        if self.max_requests_jitter and not self.max_requests:
            found.append("GREENROOM_MAX_REQUESTS_JITTER has no meaning while GREENROOM_MAX_REQUESTS is 0")
        try:
            self.route_budgets_milliseconds  # noqa: B018  # whether it can be read
        except ValueError as exc:
            found.append(f"GREENROOM_ROUTE_BUDGETS must look like `/search=2000, /reports=0` (got {exc})")
        found += [
            f"{environment_name(setting)} names what can't be a function: {name!r} (`module.function`)"
            for setting in ("offload", "offload_drivers")
            for name in comma_separated(getattr(self, setting))
            if not is_dotted_name(name)
        ]
        return found + self._ops_conflicts()

    def _ops_conflicts(self) -> list[str]:
        found = []
        address = self.ops_address
        if address is None and self.ops_bind != OPS_OFF:
            found.append(
                f"GREENROOM_OPS_BIND must be an address and a port, `127.0.0.1:8001`, or `off` ({self.ops_bind!r})"
            )
        if address is not None and not self.ops_token and not is_loopback(address[0]):
            found.append(
                f"GREENROOM_OPS_TOKEN must be set where the ops page can be reached from elsewhere ({self.ops_bind})"
            )
        if self.ops_token and (
            len(self.ops_token) < SHORTEST_TOKEN or len(set(self.ops_token)) < 8 or "change" in self.ops_token.lower()
        ):
            found.append(
                f"GREENROOM_OPS_TOKEN must be a secret of {SHORTEST_TOKEN} characters or more: openssl rand -hex 32"
            )
        found += [f"GREENROOM_OPS_WEBHOOKS {why}" for why in {webhook_problem(url) for url in self.webhooks} if why]
        found += [f"GREENROOM_OPS_PEERS {why} (got {peer!r})" for peer in self.peers if (why := peer_problem(peer))]
        return found

    @property
    def webhooks(self) -> tuple[str, ...]:
        return tuple(comma_separated(self.ops_webhooks))

    @property
    def peers(self) -> tuple[str, ...]:
        return tuple(comma_separated(self.ops_peers))

    @property
    def ops_address(self) -> tuple[str, int] | None:
        """Where the ops page listens; None: nowhere."""
        host, _, port = self.ops_bind.rpartition(":")
        host = host.strip("[]")
        if not port.isdecimal() or int(port) > 65_535 or not _is_address(host):
            return None
        return "127.0.0.1" if host == "localhost" else host, int(port)

    @property
    def ops_host_names(self) -> tuple[str, ...]:
        return tuple(name.strip().lower() for name in self.ops_hosts.split(",") if name.strip())

    @property
    def priority_path_prefixes(self) -> tuple[str, ...]:
        return tuple(path.strip() for path in self.priority_paths.split(",") if path.strip())

    @property
    def route_budgets_milliseconds(self) -> dict[str, int]:
        """Path -> milliseconds. Raises ValueError with the part that says neither."""
        budgets = {}
        for part in filter(None, (part.strip() for part in self.route_budgets.split(","))):
            path, equals, number = (piece.strip() for piece in part.rpartition("="))
            if not (path.startswith("/") and number.isascii() and number.isdigit()):
                raise ValueError(repr(part))
            budgets[path] = int(number)
        return budgets

    @property
    def most_upstream_connections(self) -> int:
        """Connections of a worker to one upstream: one for each request that may be in flight, unless set."""
        in_flight = self.limit_requests or self.worker_connections
        return self.upstream_connections or max(in_flight, FEWEST_UPSTREAM_CONNECTIONS)

    @property
    def is_green(self) -> bool:
        return self.worker_class in GREEN_WORKER_CLASSES

    @property
    def worker_class_uri(self) -> str:
        """Return gunicorn's path of the worker class."""
        return {**GREEN_WORKER_CLASSES, **PLAIN_WORKER_CLASSES}[self.worker_class]


def with_port(environ: Mapping[str, str]) -> Mapping[str, str]:
    """`environ` with the address that PORT alone means to gunicorn, and to platforms that set it: every interface."""
    name, port = environment_name("bind"), environ.get("PORT", "").strip()
    if environ.get(name, "").strip() or not port.isdecimal():
        return environ
    return {**environ, name: f"0.0.0.0:{port}"}


def read_environment(env_file: Path) -> dict[str, str]:
    """The process environment over the values in `env_file`, which need not exist. Changes neither."""
    from_file = {name: value or "" for name, value in dotenv_values(env_file).items()}
    return {**from_file, **os.environ}


def read_env_file(path: Path) -> dict[str, str]:
    """Return the values of the file; none where there is no file."""
    return {key: value or "" for key, value in dotenv_values(path).items()}


def read_env_files(folder: Path) -> dict[str, str]:
    """Return the values of `.env` and `.flaskenv` in `folder`, as `flask run` reads them."""
    found: dict[str, str] = {}
    for name in reversed(ENV_FILES):
        found.update(read_env_file(folder / name))
    return found


def set_from_files(
    environ: MutableMapping[str, str], values: Mapping[str, str], before: Mapping[str, str]
) -> dict[str, str]:
    """Set in `environ` the `values` of files, but for what was set otherwise; `before` is what this returned last time.

    So a reload sees a file that has changed, and an application finds its settings as under `flask run`.
    """
    for name, value in before.items():
        if environ.get(name) == value:
            del environ[name]
    changed = {name: value for name, value in values.items() if name not in environ}
    environ.update(changed)
    return changed


def comma_separated(text: str) -> list[str]:
    """The parts of a list; none for `off`, since an empty setting means its default."""
    return [part.strip() for part in text.split(",") if part.strip() and part.strip() != OFF]


def is_dotted_name(name: str) -> bool:
    """`module.function`, `package.module.Class.method`, or `*` for the last part."""
    parts = name.split(".")
    return (
        len(parts) > 1
        and all(part.isidentifier() for part in parts[:-1])
        and (parts[-1] == "*" or parts[-1].isidentifier())
    )


def unknown_names(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each GREENROOM_ name that no setting has."""
    known = [environment_name(item.name) for item in fields(Settings)]
    found = []
    for name in environ:
        if name in GONE:
            tell_of_gone(name)
        elif name.startswith(PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            found.append(f"{name} is unknown" + (f"; did you mean {close[0]}?" if close else ""))
    return found


@functools.cache
def tell_of_gone(name: str) -> None:
    """Once: a newer version starts with the settings of an older one."""
    logger.warning("%s has no effect any more: %s", name, GONE[name])


def _is_address(host: str) -> bool:
    """Whether this is an address, or `localhost`: what a name means is not ours to find out while starting."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True
