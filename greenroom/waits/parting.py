"""Giving a connection back without waiting for the answer to its ROLLBACK.

    close -> ROLLBACK is sent -> the pool has the connection again
                              -> its answer comes, and is read in the hub
    checkout, execute, ...    -> has the answer come? else it is waited for first

A request that only reads ends in a ROLLBACK, and would wait for an answer that tells it nothing. Done only where nobody
can see the difference: SQLAlchemy closes the connection, and all that was run in its transaction were plain SELECTs, so
no row's lock and no other change is given up a moment later than before.
"""

import functools
import inspect
import re
import sys
from itertools import chain
from types import CodeType
from typing import Any

from psycopg2 import extensions

from ..on_import import when_imported
from .libpq import libpq

IN_TRANSACTION = extensions.TRANSACTION_STATUS_INTRANS
# What reads, and takes nothing but what every reader takes: no row's lock, no advisory lock, no new table, no sequence.
READS = re.compile(r"\s*SELECT\b(?!.*(\bFOR\b|\bINTO\b|lock|nextval|setval))", re.IGNORECASE | re.DOTALL)
# How far above us who closes stands: rollback, do_rollback and its shield, five of SQLAlchemy's, close.
NEAREST_FRAMES = range(2, 12)
# SQLAlchemy's own functions that close a connection right after they have rolled back, each with the name of the
# variable that says whether they do; "" where they always do.
closing: dict[CodeType, str] = {}
known: dict[int, str] = {}  # the same by id, which is cheaper to ask
last_found = [NEAREST_FRAMES[0]]  # at which distance


@functools.lru_cache(maxsize=2048)
def only_reads(sql: str) -> bool:
    """Whether a statement surely does nothing but read; what functions of your own do can't be seen."""
    return READS.match(sql) is not None


def is_closing() -> bool:
    """Whether the rollback that asks is the first half of SQLAlchemy's giving back a connection."""
    try:
        # First where the last one was: each frame that is looked at costs.
        for distance in chain(last_found, NEAREST_FRAMES):
            frame = sys._getframe(distance)
            if (condition := known.get(id(frame.f_code))) is not None:
                last_found[0] = distance
                return not condition or bool(frame.f_locals.get(condition))
    except ValueError:
        pass  # the stack has no more
    return False


def roll_back_unheard(connection: Any) -> bool:
    """Send ROLLBACK and leave the answer for later; False: nothing was done."""
    pointer = connection.pgconn_ptr
    if (
        libpq is None
        or connection.status_field is None
        or connection.get_transaction_status() != IN_TRANSACTION
        or not libpq.PQsendQuery(pointer, b"ROLLBACK")
    ):
        return False
    libpq.PQflush(pointer)  # eight bytes; should they not fit, they go when the answer is waited for
    connection.status_field.value = extensions.STATUS_READY
    connection.line.unheard = pointer
    return True


def install() -> None:
    """Know SQLAlchemy's functions, as soon as it is there."""
    when_imported("sqlalchemy.engine.base", lambda module: _learn(module.Connection.close, ""))
    when_imported("sqlalchemy.orm.session", lambda module: _learn(module.SessionTransaction.close, "autoclose"))


def _learn(function: Any, condition: str) -> None:
    closing[inspect.unwrap(function).__code__] = condition
    known.update({id(code): name for code, name in closing.items()})
