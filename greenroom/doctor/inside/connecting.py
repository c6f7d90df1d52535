"""Connections that drivers open in C, where Python's audit hooks see no socket: seen at the drivers' own functions."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from ...on_import import when_imported

# (the module, the function within it that opens a connection, what it connects to)
DRIVERS = (
    ("psycopg2", "_connect", "PostgreSQL"),
    ("psycopg.generators", "connect", "PostgreSQL"),
    ("MySQLdb.connections", "Connection.__init__", "MySQL"),
    ("pymssql", "connect", "SQL Server"),
    ("pyodbc", "connect", "ODBC"),
)


def watch(note: Callable[[str], None]) -> Callable[[], None]:
    """Call `note(what)` for each connection of these drivers; what is returned ends that."""
    undone: list[Callable[[], None]] = []
    for module, path, what in DRIVERS:
        when_imported(module, _wrapping(path, what, note, undone))

    def end() -> None:
        while undone:
            undone.pop()()

    return end


def _wrapping(
    path: str, what: str, note: Callable[[str], None], undone: list[Callable[[], None]]
) -> Callable[[ModuleType], None]:
    def wrap(module: ModuleType) -> None:
        *owners, name = path.split(".")
        owner: Any = module
        for each in owners:
            owner = getattr(owner, each, None)
        plain = getattr(owner, name, None)
        if plain is None:
            return

        def connect(*arguments: Any, **named: Any) -> Any:
            note(what)
            return plain(*arguments, **named)

        def unwrap() -> None:
            if getattr(owner, name, None) is connect:
                setattr(owner, name, plain)

        setattr(owner, name, connect)
        undone.append(unwrap)

    return wrap
