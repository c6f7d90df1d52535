"""Whether somebody has put a hand to http.client or urllib3, to see or to change what is sent: then it goes their way.

Sentry replaces methods of HTTPConnection, vcrpy its classes, tracers `urlopen`; `debuglevel` is set to see what is
sent. Our transport calls none of that. So all that a request goes through there is compared with what it was, for each
request anew: a tool can come with a test or a setting, and go again.
"""

import http.client
import logging
import socket
from collections.abc import Callable
from operator import attrgetter, is_
from types import BuiltinMethodType, FunctionType
from typing import Any

import requests.adapters
import urllib3.connection
import urllib3.connectionpool
import urllib3.poolmanager

logger = logging.getLogger(__name__)

connection: Any = urllib3.connection
connectionpool: Any = urllib3.connectionpool
poolmanager: Any = urllib3.poolmanager
CLASSES: tuple[Any, ...] = (
    http.client.HTTPConnection, http.client.HTTPSConnection, connection.HTTPConnection, connection.HTTPSConnection,
    connectionpool.HTTPConnectionPool, connectionpool.HTTPSConnectionPool, poolmanager.PoolManager,
)  # fmt: skip
# The names by which these are found.
NAMES: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (http.client, ("HTTPConnection", "HTTPSConnection", "HTTPResponse")),
    (connection, ("HTTPConnection", "HTTPSConnection")),
    (connectionpool, ("HTTPConnection", "HTTPSConnection", "HTTPConnectionPool", "HTTPSConnectionPool")),
    (poolmanager, ("HTTPConnectionPool", "HTTPSConnectionPool", "PoolManager")),
    (requests.adapters, ("PoolManager",)),
    (socket, ("socket",)),
)
FILES = {module.__file__ for module in (http.client, connection, connectionpool, poolmanager)}
PACKAGES = ("http", "urllib3", "socket", "gevent")


class Hooks:
    """The functions that a request goes through, as they were when this was made."""

    def __init__(self) -> None:
        self._looks = [_Look(owner, names) for owner, names in (*((each, _methods(each)) for each in CLASSES), *NAMES)]
        self._told: set[str] = set()

    def are_there(self) -> bool:
        """Whether anything is replaced; told in the log, once for each place.

        Runs on: any greenlet or thread; never switches.
        """
        # By identity: wrappers say that they are equal to what they wrap.
        for look in self._looks:
            if not all(map(is_, look.get(look.owner), look.expected)):
                self._tell(look)
                return True
        return False

    def _tell(self, look: "_Look") -> None:
        if look.place in self._told:
            return
        self._told.add(look.place)
        found = zip(look.names, look.get(look.owner), look.expected, strict=True)
        replaced = [f"{name} ({_shown(value)})" for name, value, expected in found if value is not expected]
        logger.info(
            "%s was changed by somebody, %s: requests sends its own way, with connections for each session",
            look.place,
            ", ".join(replaced),
        )


def _methods(owner: Any) -> tuple[str, ...]:
    """Return the methods that tools replace in a class: how it does things, what it makes, how much it logs."""
    return tuple(
        name
        for name, value in vars(owner).items()
        if name == "__init__" or not name.startswith("__") and (callable(value) or name == "debuglevel")
    )


class _Look:
    """At these names of a class or a module."""

    def __init__(self, owner: Any, names: tuple[str, ...]) -> None:
        self.owner = owner
        self.names = (*names, "__name__")  # two at least, or the getter would give one value and no tuple
        self.get: Callable[[Any], tuple[Any, ...]] = attrgetter(*self.names)
        self.expected = tuple(value if _is_genuine(value) else object() for value in self.get(owner))
        self.place = f"{owner.__module__}.{owner.__qualname__}" if isinstance(owner, type) else owner.__name__


def _is_genuine(value: Any) -> bool:
    """Whether `value` is http.client's or urllib3's own, and not somebody's who came before us."""
    if isinstance(value, type):
        return value.__module__.partition(".")[0] in PACKAGES
    if isinstance(value, FunctionType):
        return value.__code__.co_filename in FILES
    return not callable(value) or isinstance(value, BuiltinMethodType)


def _shown(value: Any) -> str:
    if isinstance(value, (type, FunctionType)):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value) if isinstance(value, (int, str)) else f"a {type(value).__module__}.{type(value).__qualname__}"
