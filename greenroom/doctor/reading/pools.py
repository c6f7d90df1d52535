"""Rules about pools of connections: too small, of nobody's size, and too large together."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from .names import keyword, number, text
from .project import Project
from .sources import Source
from .values import settings_of

FEW_CONNECTIONS = 5
# max_connections of PostgreSQL, where nobody has set it.
POSTGRESQL_CONNECTIONS = 100
POOLS = re.compile(
    r"(?:psycopg2\.pool\.\w*Pool|psycopg_pool\.\w*Pool|redis\.BlockingConnectionPool|mysql\.connector\.pooling\.\w+"
    r"|dbutils\.pooled_db\.PooledDB)"
)
NETWORKED = re.compile(r"(?:postgres|mysql|mariadb|mssql|oracle)")


def find(project: Project) -> Iterator[Finding]:
    yield from pools(project)


def pools(project: Project) -> Iterator[Finding]:
    """Pools that are smaller than what a worker runs at once; those that nobody has sized."""
    options = _engine_options(project)
    for source, _, call, name in project.all_calls():
        if re.fullmatch(r"sqlalchemy\.(?:.*\.)?create_engine", name):
            url = project_url(project, source, call)
            size = number(keyword(call, "pool_size"))
            overflow = number(keyword(call, "max_overflow"))
            names = {one.arg for one in call.keywords}
            if size is not None:
                yield from _small(source.shown, call.lineno, size, overflow)
            elif not names & {"pool_size", "poolclass", None, "creator"} and NETWORKED.match(url):
                yield _default(source.shown, call.lineno)
        elif re.fullmatch(r"sqlalchemy\.(?:.*\.)?engine_from_config", name) and call.args:
            keys = dict(settings_of(call.args[0]))
            url = next((text(value) for key, value in keys.items() if key.endswith("url")), "")
            if NETWORKED.match(url) and not any(key.endswith(("pool_size", "poolclass")) for key in keys):
                yield _default(source.shown, call.lineno)
        elif POOLS.fullmatch(name):
            given = _named_number(call, "maxconn", "max_size", "max_connections", "pool_size", "maxconnections")
            if given is None and name.startswith("psycopg2.pool") and len(call.args) > 1:
                given = number(call.args[1])
            if given is not None and given <= 2 * FEW_CONNECTIONS:
                yield _too_small(source.shown, call.lineno, given)
        elif name.endswith("flask_sqlalchemy.SQLAlchemy") or name == "flask_sqlalchemy.SQLAlchemy":
            has_options = any(one.arg == "engine_options" for one in call.keywords) or bool(options)
            line = _configured_url(project)
            if not has_options and line is not None:
                yield _default(*line)
    for file, line_number, size, overflow in options:
        if size is not None:
            yield from _small(file, line_number, size, overflow)


def _named_number(call: ast.Call, *names: str) -> float | None:
    return next((found for name in names if (found := number(keyword(call, name))) is not None), None)


def _configured_url(project: Project) -> tuple[str, int] | None:
    """Where SQLALCHEMY_DATABASE_URI is set to a database on the network, as far as the text says."""
    for source in project.sources:
        for node in ast.walk(source.tree):
            for key, value in settings_of(node):
                if key == "SQLALCHEMY_DATABASE_URI" and NETWORKED.match(text(value)):
                    return source.shown, value.lineno
    return None


def _engine_options(project: Project) -> list[tuple[str, int, float | None, float | None]]:
    """Yield each pool of SQLALCHEMY_ENGINE_OPTIONS, `engine_options=`, SQLALCHEMY_POOL_SIZE: file, line, sizes."""
    found = []
    for source in project.sources:
        for node in ast.walk(source.tree):
            for key, value in settings_of(node):
                if key in ("SQLALCHEMY_ENGINE_OPTIONS", "engine_options"):
                    sizes = dict(settings_of(value))
                    size_node = sizes.get("pool_size")
                    line = size_node.lineno if size_node is not None else value.lineno
                    found.append((source.shown, line, number(size_node), number(sizes.get("max_overflow"))))
    return found


def _small(file: str, line: int, size: float, overflow: float | None) -> Iterator[Finding]:
    total = size + (10 if overflow is None else overflow)
    if size > 0 and (overflow is None or overflow >= 0) and total <= 2 * FEW_CONNECTIONS:
        yield _too_small(file, line, total)


def _too_small(file: str, line: int, size: float) -> Finding:
    return Finding(
        "pool-too-small",
        file,
        line,
        f"The pool has {size:.0f} connection{'s' if size > 1 else ''} at most, and a worker of Greenroom runs dozens "
        "of requests at once: the others wait for one, or get an error.",
        "Size it by what is in flight (requests/s times how long each keeps a connection), as far as the database's "
        "max_connections allows for all workers.",
        cost=100.0 / size,
    )


def above_default(project: Project, workers: int) -> Iterator[Finding]:
    """Pools that are larger together than what PostgreSQL allows unless it is told otherwise; nobody was asked."""
    places = [
        (source.shown, call.lineno, number(keyword(call, "pool_size")), number(keyword(call, "max_overflow")))
        for source, _, call, name in project.all_calls()
        if re.fullmatch(r"sqlalchemy\.(?:.*\.)?create_engine", name)
    ]
    for file, line, size, overflow in [*places, *_engine_options(project)]:
        if size is None:
            continue
        together = (size + (10 if overflow is None else max(0.0, overflow))) * workers
        if together > POSTGRESQL_CONNECTIONS:
            yield Finding(
                "pools-above-max-connections",
                file,
                line,
                f"{workers} workers may open {together:.0f} connections together; PostgreSQL allows "
                f"{POSTGRESQL_CONNECTIONS} unless it is told otherwise.",
                "Make pool_size and max_overflow smaller, or put PgBouncer in between.",
                level="warning",
                cost=together / POSTGRESQL_CONNECTIONS,
            )


def _default(file: str, line: int) -> Finding:
    return Finding(
        "default-pool",
        file,
        line,
        "The engine has SQLAlchemy's default pool, 5 connections and 10 more in each worker.",
        "Say pool_size (20 is a start), max_overflow=0 and pool_timeout (a few seconds); workers times pool_size must "
        "stay below the database's max_connections.",
    )


def project_url(project: Project, source: Source, call: ast.Call) -> str:
    """The URL that an engine is given, as far as the text says."""
    if not call.args:
        return ""
    given = text(call.args[0])
    if not given:
        binding = project.binding(call.args[0], source, None)
        given = text(binding.value) if binding is not None else ""
    return given
