"""Clean-up of frameworks goes on when the budget is spent: a teardown that stops half-way leaves its session behind.

Flask-SQLAlchemy, for one, keeps sessions by id(application context): one that is not removed is given to a later
request. So Flask's teardowns are shielded, the closing of its answers, and what SQLAlchemy does to end a transaction,
whatever the driver; psycopg2's own COMMIT and ROLLBACK are so in waits/postgres.py. It is bounded all the same, by
CLEAN_UP_SECONDS.
"""

import functools
from collections.abc import Callable
from operator import attrgetter
from types import ModuleType
from typing import Any

from ...deadline import SHIELD
from ...on_import import when_imported
from ...record import CLEAN_UP, CURRENT

# Each with what it calls: the application's functions, and who is connected to a signal.
TEARDOWNS = {
    "do_teardown_request": ("teardown_request_funcs", "request_tearing_down"),
    "do_teardown_appcontext": ("teardown_appcontext_funcs", "appcontext_tearing_down"),
}
ENDS_OF_TRANSACTIONS = (
    "do_commit",
    "do_rollback",
    "do_close",
    "do_terminate",
    "do_commit_twophase",
    "do_rollback_twophase",
)


def install() -> None:
    when_imported("flask.app", shield_flask)
    when_imported("werkzeug.wsgi", shield_werkzeug)
    when_imported("sqlalchemy.engine.default", shield_sqlalchemy)


def shield_flask(module: ModuleType) -> None:
    for name, (functions, signal) in TEARDOWNS.items():
        plain = getattr(module.Flask, name, None)
        if plain is not None and not hasattr(plain, "__shielded__"):
            setattr(module.Flask, name, shielded_teardown(plain, attrgetter(functions), getattr(module, signal)))


def shield_werkzeug(module: ModuleType) -> None:
    """What an answer does when it is closed: ends its generator, calls what `Response.call_on_close` was given."""
    shield_methods(module.ClosingIterator, ("close",))


def shield_sqlalchemy(module: ModuleType) -> None:
    shield_methods(module.DefaultDialect, ENDS_OF_TRANSACTIONS)


def shield_methods(owner: Any, names: tuple[str, ...]) -> None:
    for name in names:
        plain = getattr(owner, name, None)
        if plain is not None and not hasattr(plain, "__shielded__"):
            setattr(owner, name, shielded(plain))


def shielded(plain: Callable[..., Any]) -> Callable[..., Any]:
    """As `with deadline.shield()`, which costs more."""

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if CURRENT.get() is None or SHIELD.get() >= CLEAN_UP:
            return plain(*args, **kwargs)
        token = SHIELD.set(CLEAN_UP)
        try:
            return plain(*args, **kwargs)
        finally:
            SHIELD.reset(token)

    call.__shielded__ = True  # type: ignore[attr-defined]
    return call


def shielded_teardown(plain: Callable[..., Any], functions: Callable[[Any], Any], signal: Any) -> Callable[..., Any]:
    """Of a Flask application; where nobody has asked for a teardown, nothing can wait and nothing is shielded."""
    with_shield = shielded(plain)

    @functools.wraps(with_shield)
    def call(app: Any, *args: Any, **kwargs: Any) -> Any:
        if functions(app) or signal.receivers:
            return with_shield(app, *args, **kwargs)
        return plain(app, *args, **kwargs)

    return call
