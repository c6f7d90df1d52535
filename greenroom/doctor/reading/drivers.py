"""Rules about database drivers and URLs: which can't wait, which have changed their meaning, SQLite, Django."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ..findings import Finding
from ..shapes import Engine
from . import known
from .functions import Function
from .names import last, text
from .project import Project
from .sources import Source
from .values import settings_of

# From this release on `postgresql://` is psycopg (3).
PSYCOPG3_SINCE = (2, 1)
# Names of configurations that are for one developer, or for tests.
NOT_PRODUCTION = re.compile(r"(?:dev|develop|development|tests?|testing|local)(?:config\w*|settings|$)", re.IGNORECASE)


def find(project: Project) -> Iterator[Finding]:
    yield from drivers(project)
    yield from urls(project)
    yield from django(project)


def drivers(project: Project) -> Iterator[Finding]:
    seen: set[tuple[str, str]] = set()
    for source in project.sources:
        for module, line, _ in source.import_lines():
            driver = known.DRIVERS.get(module.partition(".")[0])
            if module.startswith("oracledb"):
                continue  # waits in the loop, unless it is told not to: below
            if driver is None or (source.shown, driver.name) in seen:
                continue
            if driver.name == "grpcio" and _calls(project, "init_gevent"):
                continue
            if driver.name == "cassandra-driver" and _mentions(project, "GeventConnection"):
                continue
            seen.add((source.shown, driver.name))
            if driver.name == "cassandra-driver" and not _names_another_loop(project):
                yield _cassandra(source.shown, line)
            else:
                yield _driver(source.shown, line, driver)
    for source, _, call, name in project.all_calls():
        if name == "oracledb.init_oracle_client":
            yield Finding(
                "driver-cannot-wait",
                source.shown,
                call.lineno,
                "oracledb in thick mode waits in Oracle's client library: each query stops all requests of the worker.",
                "Leave init_oracle_client() out: thin mode is plain Python and waits in the loop. Where thick mode is "
                'needed: GREENROOM_OFFLOAD_DRIVERS="oracledb.connect, oracledb.Connection.*, oracledb.Cursor.*".',
            )


def _names_another_loop(project: Project) -> bool:
    return any(_mentions(project, f"{name}Connection") for name in ("Libev", "Asyncio", "Asyncore", "Twisted"))


def _cassandra(file: str, line: int) -> Finding:
    return Finding(
        "driver-cannot-wait",
        file,
        line,
        "cassandra-driver takes gevent's loop by itself where it is imported after patching, as under Greenroom; a "
        "`connection_class` of another loop would stop all requests.",
        "Leave `connection_class` out, or name cassandra.io.geventreactor.GeventConnection.",
        level="note",
    )


def _driver(file: str, line: int, driver: known.Driver) -> Finding:
    return Finding(
        "driver-cannot-wait",
        file,
        line,
        f"{driver.name} {driver.why}: each call stops all requests of the worker until it is answered.",
        driver.do[0].upper() + driver.do[1:],
        level=driver.level,
    )


def _calls(project: Project, name: str) -> bool:
    return any(last(called) == name for _, _, _, called in project.all_calls())


def _mentions(project: Project, name: str) -> bool:
    return any(name in (one.rpartition(".")[2] for one in source.imports.values()) for source in project.sources)


def urls(project: Project) -> Iterator[Finding]:
    """Database URLs in the text: their driver, and SQLite."""
    sqlalchemy_version = installed("SQLAlchemy")
    for source in project.sources:
        docs, own_machine = _docstrings(source), _for_developers(source)
        memory_only = _is_memory(source)
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docs:
                continue
            url = node.value
            beginning = url.partition("://")[0] + "://" if "://" in url[:40] else ""
            if beginning in known.URLS:
                driver = known.DRIVERS[known.URLS[beginning]]
                if url != beginning or _is_url_part(url):
                    yield _driver(source.shown, node.lineno, driver)
            if beginning == "postgresql://" and _is_given_to_sqlalchemy(project, source, node):
                if sqlalchemy_version is None or sqlalchemy_version >= PSYCOPG3_SINCE:
                    yield from _postgresql(project, source, node.lineno)
            if beginning == "sqlite://" and not memory_only and id(node) not in own_machine:
                in_memory = url in ("sqlite://", "sqlite:///:memory:")
                yield _sqlite(source.shown, node.lineno, in_memory)
    for source, function, call, name in project.all_calls():
        if re.fullmatch(r"sqlite3(?:\.dbapi2)?\.connect", name):
            given = call.args[0] if call.args else None
            if function is not None and _is_somebodys_file(given, function):
                yield _sqlite_file(source.shown, call.lineno)
            else:
                yield _sqlite(source.shown, call.lineno, text(given) == ":memory:")


def _is_somebodys_file(path: ast.expr | None, function: Function) -> bool:
    """Whether the file is what the function was given, and no database of the application's own."""
    while isinstance(path, ast.Attribute):
        path = path.value
    return isinstance(path, ast.Name) and path.id in function.parameters - {"self", "cls", "app"}


def _sqlite_file(file: str, line: int) -> Finding:
    return Finding(
        "sqlite",
        file,
        line,
        "A file is read as a SQLite database: its calls wait in C, and Greenroom lets them do so in threads.",
        "Nothing, if it is somebody's file; a database of the application's own is better one that all workers share.",
        level="note",
    )


def _is_url_part(url: str) -> bool:
    return url.endswith("://")


def _is_memory(source: Source) -> bool:
    """Whether a file is about tests only."""
    return bool(re.search(r"(?:^|[/_.])(?:tests?|conftest)(?:[/_.]|$)", source.shown))


def _for_developers(source: Source) -> set[int]:
    """Texts in configurations that are somebody's own machine: `class Development`, `class TestingConfig`."""
    return {
        id(inner)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ClassDef) and NOT_PRODUCTION.match(node.name)
        for inner in ast.walk(node)
    }


def _docstrings(source: Source) -> set[int]:
    """Texts that only people read: docstrings, and examples, help and descriptions of fields and options."""
    found = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found.add(id(node.value))
        elif isinstance(node, ast.keyword) and node.arg in ("example", "examples", "help", "description", "doc"):
            found |= {id(inner) for inner in ast.walk(node.value)}
    return found


def _is_given_to_sqlalchemy(project: Project, source: Source, node: ast.Constant) -> bool:
    """Whether the URL is SQLAlchemy's to read: psycopg2.connect() and psycopg.connect() take the same one."""
    uses = {name.partition(".")[0] for one in project.sources for name in one.imports.values()}
    if not uses & {"sqlalchemy", "flask_sqlalchemy", "flask_migrate", "alembic", "sqlmodel"}:
        return False
    for other in ast.walk(source.tree):
        if isinstance(other, ast.Call) and any(inner is node for inner in ast.walk(other)):
            name = project.dotted(other.func, source, None)
            if known.CONNECTS.fullmatch(name):
                return False
            if last(name) in ("replace", "startswith", "removeprefix"):
                return False  # the spelling is being changed
    # A function's result may go anywhere: the engines that the import makes say more.
    return not any(
        isinstance(other, ast.Return) and other.value is not None and any(inner is node for inner in ast.walk(other))
        for other in ast.walk(source.tree)
    )


def engines_seen(project: Project, engines: list[Engine], found: list[Finding]) -> Iterator[Finding]:
    """Yield a finding for an engine whose URL names no driver, where only the running application shows it."""
    if any(one.rule == "postgresql-url-driver" for one in found):
        return
    if not any(one["dialect"] == "postgresql" and not one["names_driver"] for one in engines):
        return
    if (installed("SQLAlchemy") or PSYCOPG3_SINCE) < PSYCOPG3_SINCE:
        return
    for source, _, call, name in project.all_calls():
        if re.fullmatch(r"sqlalchemy\.(?:.*\.)?create_engine|(?:.*\.)?flask_sqlalchemy\.SQLAlchemy", name):
            yield from _postgresql(project, source, call.lineno)
            return


def _postgresql(project: Project, source: Source, line: int) -> Iterator[Finding]:
    is_replaced = any(
        isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(("postgresql+psycopg", "postgresql+pg8000"))
        for node in ast.walk(source.tree)
    )
    if is_replaced:
        return
    has_psycopg3 = find_spec("psycopg") is not None
    yield Finding(
        "postgresql-url-driver",
        source.shown,
        line,
        "`postgresql://` means the driver psycopg (3) since SQLAlchemy 2.1"
        + (", not psycopg2." if has_psycopg3 else ", which is not installed here: the engine can't be made."),
        "Name the driver: `postgresql+psycopg2://` or `postgresql+psycopg://`.",
    )


def _sqlite(file: str, line: int, in_memory: bool) -> Finding:
    if in_memory:
        return Finding(
            "sqlite",
            file,
            line,
            "A SQLite database in memory is one for each worker, and gone with it.",
            "Fine for tests; in production a database that all workers share.",
            level="note",
        )
    return Finding(
        "sqlite",
        file,
        line,
        "SQLite is used unless something else is set: one writer at a time for all workers, on one machine.",
        "Let production fail without a DATABASE_URL of PostgreSQL; keep SQLite for tests.",
    )


def installed(package: str) -> tuple[int, ...] | None:
    """The version's first two numbers, None if the package is not installed."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return None
    return tuple(int(part) for part in re.findall(r"\d+", found)[:2])


def django(project: Project) -> Iterator[Finding]:
    for source in project.sources:
        for node in ast.walk(source.tree):
            for key, value in settings_of(node):
                if key == "CONN_MAX_AGE" and not (isinstance(value, ast.Constant) and value.value in (0, "0")):
                    yield _conn_max_age(source.shown, value.lineno)
                elif (
                    key == "conn_max_age"
                    and isinstance(node, ast.Call)
                    and "dj_database_url" in ast.unparse(node.func)
                    and not (isinstance(value, ast.Constant) and value.value == 0)
                ):
                    yield _conn_max_age(source.shown, value.lineno)
                elif key == "ENGINE" and isinstance(value, ast.Constant) and value.value in known.ENGINES:
                    yield _driver(source.shown, value.lineno, known.DRIVERS[known.ENGINES[value.value]])
                elif key == "ENGINE" and text(value) == "django.db.backends.sqlite3":
                    yield _sqlite(source.shown, value.lineno, False)


def _conn_max_age(file: str, line: int) -> Finding:
    return Finding(
        "conn-max-age",
        file,
        line,
        "CONN_MAX_AGE keeps a database connection for its thread's next request, and under gevent each request is a "
        "thread of its own. Greenroom closes it with its request, so each request opens one; gevent alone leaves all "
        "of them open, until the database has no more.",
        "CONN_MAX_AGE = 0, and a pool: `OPTIONS = {'pool': {...}}` of Django 5.1 with psycopg 3, or PgBouncer.",
    )
