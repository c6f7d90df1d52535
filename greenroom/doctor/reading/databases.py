"""Rules about databases: drivers that can't wait, URLs, pools, connections held, statements in loops."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from ..findings import Finding
from . import known
from .project import Function, Project, keyword, last, number, text
from .sharing import settings_of
from .sources import Source
from .waits import called_functions

# From this release on `postgresql://` is psycopg (3).
PSYCOPG3_SINCE = (2, 1)
FEW_CONNECTIONS = 5
POOLS = re.compile(
    r"(?:psycopg2\.pool\.\w*Pool|psycopg_pool\.\w*Pool|redis\.BlockingConnectionPool|mysql\.connector\.pooling\.\w+"
    r"|dbutils\.pooled_db\.PooledDB)"
)
NETWORKED = re.compile(r"(?:postgres|mysql|mariadb|mssql|oracle)")


def find(project: Project) -> Iterator[Finding]:
    yield from drivers(project)
    yield from urls(project)
    yield from pools(project)
    yield from held(project)
    yield from statements_in_loops(project)
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
        docs = _docstrings(source)
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
            if beginning == "sqlite://" and not memory_only:
                in_memory = url in ("sqlite://", "sqlite:///:memory:")
                yield _sqlite(source.shown, node.lineno, in_memory)
    for source, _, call, name in project.all_calls():
        if re.fullmatch(r"sqlite3(?:\.dbapi2)?\.connect", name):
            path = text(call.args[0]) if call.args else ""
            yield _sqlite(source.shown, call.lineno, path == ":memory:")


def _is_url_part(url: str) -> bool:
    return url.endswith("://")


def _is_memory(source: Source) -> bool:
    """Whether a file is about tests only."""
    return bool(re.search(r"(?:^|[/_.])(?:tests?|conftest)(?:[/_.]|$)", source.shown))


def _docstrings(source: Source) -> set[int]:
    return {
        id(node.value)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


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
    return True


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
        "SQLite is used unless something else is set: one writer at a time for all workers, on one machine, and it "
        "waits for its lock in C.",
        "Let production fail without a DATABASE_URL of PostgreSQL; keep SQLite for tests.",
    )


def installed(package: str) -> tuple[int, ...] | None:
    """The version's first two numbers, None if the package is not installed."""
    try:
        found = version(package)
    except PackageNotFoundError:
        return None
    return tuple(int(part) for part in re.findall(r"\d+", found)[:2])


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
    """What SQLALCHEMY_ENGINE_OPTIONS, `engine_options=` and SQLALCHEMY_POOL_SIZE say of a pool: file, line, sizes."""
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


def held(project: Project) -> Iterator[Finding]:
    """A query, then a call to an upstream, in one function and without an end of the transaction in between."""
    for function in project.functions:
        if function not in project.in_request:
            continue
        query: ast.Call | None = None
        for call in sorted(function.calls, key=lambda one: (one.lineno, one.col_offset)):
            name = project.called(call, function.source, function)
            if known.RELEASES.fullmatch(name):
                query = None
            elif _is_query(project, function, call, name):
                query = call
            elif query is not None:
                place = _upstream_place(project, function, call, name)
                if place is not None:
                    if not _is_released_between(function, query, call):
                        yield from held_pair(function.source.shown, query.lineno, *place)
                    query = None


def held_pair(used_file: str, used: int, file: str, line: int, more: str = "", cost: float = 0.0) -> Iterator[Finding]:
    """Two findings: at the call, where the change is made, and at the query that it is about."""
    there = f"line {used}" if used_file == file else f"{used_file}:{used}"
    yield Finding(
        "held-connection",
        file,
        line,
        f"The database connection that {there} used stays in its transaction while this line waits for an upstream"
        + (more or ": the pool serves only as many requests as it has connections."),
        "`db.session.commit()` or `rollback()` (or leave the `with` block) before the call; read what is needed first.",
        cost=cost,
    )
    yield Finding(
        "held-connection",
        used_file,
        used,
        f"The connection that this line uses is kept while {file}:{line} waits for an upstream.",
        "See there.",
        level="note",
    )


def _is_query(project: Project, function: Function, call: ast.Call, name: str) -> bool:
    if known.HTTP.fullmatch(name) or "requests" in name or "redis" in name.lower() or "cache" in name.lower():
        return False
    if ".query." in name or name.endswith((".execute", ".scalars", ".scalar", ".get_or_404", ".fetchall", ".fetchone")):
        return True
    if re.search(r"(?:session|db)\.(?:get|query|scalar)$", name):
        return "flask.session" not in name
    return bool(re.search(r"(?:sqlalchemy|sessionmaker|psycopg|pymysql).*\.(?:get|query|execute)$", name))


def _upstream_place(
    project: Project, function: Function, call: ast.Call, name: str, depth: int = 0
) -> tuple[str, int] | None:
    """File and line of the innermost own call that waits for an upstream, if `call` comes to one."""
    if known.HTTP.fullmatch(name):
        return function.source.shown, call.lineno
    if depth > 3:
        return None
    for target in called_functions(project, function, call):
        if target is function:
            continue
        for inner in target.calls:
            inner_name = project.called(inner, target.source, target)
            found = _upstream_place(project, target, inner, inner_name, depth + 1)
            if found is not None:
                return found
    return None


def _is_released_between(function: Function, query: ast.Call, call: ast.Call) -> bool:
    """Whether the `with` that the query stands in ends before the call."""
    for node in function.nodes:
        if isinstance(node, ast.With) and any(inner is query for inner in ast.walk(node)):
            is_connection = any(
                re.search(r"connect|begin|session|conn|engine|cursor|pool", ast.unparse(item.context_expr), re.I)
                for item in node.items
            )
            if is_connection and not any(inner is call for inner in ast.walk(node)):
                return True
    return False


def statements_in_loops(project: Project) -> Iterator[Finding]:
    """A loop over rows that asks the database in each turn."""
    for function in project.functions:
        if function not in project.in_request:
            continue
        seen: set[int] = set()
        for node in function.nodes:
            bodies: list[ast.AST] = []
            if isinstance(node, ast.For):
                bodies = [*node.body]
            elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp):
                bodies = [node.elt]
            elif isinstance(node, ast.DictComp):
                bodies = [node.key, node.value]
            for body in bodies:
                for call in ast.walk(body):
                    if not isinstance(call, ast.Call) or call.lineno in seen:
                        continue
                    if isinstance(node, ast.For) and any(
                        isinstance(inner, ast.Call) and inner is call for inner in ast.walk(node.iter)
                    ):
                        continue
                    name = project.called(call, function.source, function)
                    if name.endswith((".fetchone", ".fetchall", ".scalar_one", ".scalars")):
                        continue
                    if _is_query(project, function, call, name) and _uses_loop_variable(node, call):
                        seen.add(call.lineno)
                        yield Finding(
                            "n-plus-one",
                            function.source.shown,
                            call.lineno,
                            f"{function.name}() asks the database once for each turn of the loop at line "
                            f"{node.lineno}.",  # type: ignore[attr-defined]
                            "Load them together: selectinload() or joinedload(), `WHERE id IN (...)`, or a join.",
                        )


def _uses_loop_variable(node: ast.AST, call: ast.Call) -> bool:
    targets: list[ast.expr] = []
    if isinstance(node, ast.For):
        targets = [node.target]
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp):
        targets = [generator.target for generator in node.generators]
    names = {one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)}
    return any(isinstance(one, ast.Name) and one.id in names for one in ast.walk(call))


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
        "CONN_MAX_AGE keeps a database connection for each thread, and under gevent each request is one: connections "
        "are kept and not used again, until the database has no more.",
        "CONN_MAX_AGE = 0, and a pool: `OPTIONS = {'pool': {...}}` of Django 5.1 with psycopg 3, or PgBouncer.",
    )
