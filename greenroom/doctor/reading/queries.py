"""Rules about queries: connections that are held across calls, statements in loops."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from . import known
from .functions import Function
from .project import Project
from .waits import called_functions

# `Model.objects`: MongoEngine has no transaction to keep, and Django gives its connection to nobody in between.
MANAGER = re.compile(r"\.objects\b")


def find(project: Project) -> Iterator[Finding]:
    yield from held(project)
    yield from statements_in_loops(project)


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
            elif _is_query(project, function, call, name) and not MANAGER.search(name):
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
