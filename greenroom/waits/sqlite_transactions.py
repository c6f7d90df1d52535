"""sqlite3's transactions of this process: which line of which request has begun one, for those who wait for its end."""

import functools
import os
import weakref
from typing import Any

from ..frames import Innermost, line_of
from ..in_flight import CURRENT
from ..insight import stacks
from .naming import request_route

MOST_FILES = 100

# Connections in a transaction, by id, weakly.
TRANSACTIONS: dict[int, Any] = {}
application = Innermost(lambda frame: stacks.is_installed(frame.f_code.co_filename))


def note(connection: Any) -> None:
    """Remember who has begun a transaction, and where; or that it is over."""
    if not connection.in_transaction:
        ended(connection)
        return
    frame = application.find()
    record = CURRENT.get()
    route = "" if record is None else request_route(record)
    connection._began = (route, frame and (frame.f_code, frame.f_lasti))
    TRANSACTIONS[id(connection)] = weakref.KeyedRef(connection, _dropped, id(connection))


def _dropped(reference: Any) -> None:
    """Its connection is no more; another one may have its id already."""
    key = reference.key
    if TRANSACTIONS.get(key) is reference:
        del TRANSACTIONS[key]


def ended(connection: Any) -> None:
    connection._began = None
    TRANSACTIONS.pop(id(connection), None)


def waits_for(connection: Any) -> str:
    """The file, and a line of this process that has begun a transaction in it, if any has."""
    name: str = connection._name
    for reference in list(TRANSACTIONS.values()):
        other = reference()
        if other is None or other is connection or other._path != connection._path or other._began is None:
            continue
        if other._turn.locked():
            continue  # it waits itself
        route, line = other._began
        place = f"{stacks.shortened(line[0].co_filename)}:{line_of(*line)}" if line else "a library"
        return f"{name}, in a transaction since {place}{f' ({route})' if route else ''}"
    return name


def file_of(database: Any) -> tuple[str, str]:
    """The path of a database's file, and its name."""
    return _absolute(database) if type(database) is str and database.startswith("/") else _found(database)


def _found(database: Any) -> tuple[str, str]:
    try:
        path = os.path.abspath(os.fsdecode(database)).partition("?")[0]
    except (TypeError, ValueError, FileNotFoundError):  # the last where the working directory has been deleted
        return "", ""
    return path, os.path.basename(path)


_absolute = functools.lru_cache(MOST_FILES)(_found)  # which does not depend on the working directory
