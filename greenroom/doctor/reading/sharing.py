"""Rules about what requests share: variables, attributes, database connections and sessions."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from . import known
from .functions import Function
from .memory import is_container
from .names import SETS_UP, last
from .project import Project
from .waits import waits_in

REQUEST_DATA = re.compile(r"(?:flask\.)?(?:request|g|session|current_user)\b")


def find(project: Project) -> Iterator[Finding]:
    yield from shared_variables(project)
    yield from sessions(project)


def shared_variables(project: Project) -> Iterator[Finding]:
    """A request sets a global, or an attribute of a shared object, from what it was asked, and uses it later."""
    for function in project.functions:
        if function not in project.in_request:
            continue
        for node in function.nodes:
            if not isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) or node.value is None:
                continue
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                shared = _shared_target(project, function, target)
                if not shared or _is_lazy(function, node, shared):
                    continue
                if isinstance(node, ast.AugAssign) or _reads(node.value, shared):
                    yield _counter(function, node.lineno, shared)
                    continue
                waits = waits_in(project, function, after=node.lineno)
                # A constructor's arguments mostly say how something is set up, with the import.
                is_personal = function.name not in SETS_UP and _comes_from_request(function, node.value)
                if is_personal:
                    is_read = _is_read_in_requests(project, function, shared)
                    yield Finding(
                        "shared-state",
                        function.source.shown,
                        node.lineno,
                        f"{function.name}() writes `{shared}`, which all requests share, with something of one "
                        "request's"
                        + (
                            f"; it waits afterwards (line {waits[0].lineno}), and another request writes it meanwhile."
                            if waits
                            else "; another request writes it before it is read."
                        ),
                        "Keep it in a local variable, in `flask.g`, or in a ContextVar.",
                        level="error" if is_read or waits else "warning",
                    )


def _counter(function: Function, line: int, name: str) -> Finding:
    return Finding(
        "per-worker-state",
        function.source.shown,
        line,
        f"`{name}` is counted in memory: each worker has a number of its own, and forgets it when it is replaced.",
        "Count in the database or in Redis (`INCR`), or with a metrics library that sums up the workers.",
    )


def _shared_target(project: Project, function: Function, target: ast.expr) -> str:
    if isinstance(target, ast.Name):
        return target.id if target.id in function.globals else ""
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        binding = project.binding(target.value, function.source, function)
        is_shared = binding is not None and project.is_shared(binding) and is_container(project, binding)
        return ast.unparse(target) if is_shared else ""
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        holder = target.value.id
        if holder in ("self", "cls", "g", "session", "request", "response"):
            return ""
        if holder in function.parameters or holder in function.local_values:
            return ""
        module = function.source.imports.get(holder, "")
        if module == "flask.current_app":
            return f"{holder}.{target.attr}"
        if module in project.module_values and target.attr in project.module_values[module]:
            return f"{holder}.{target.attr}"
        if holder in project.classes:
            return f"{holder}.{target.attr}"
        binding = project.lookup(holder, function.source, function)
        if binding is not None and project.is_shared(binding) and isinstance(binding.value, ast.Call):
            made = last(project.dotted(binding.value.func, binding.source, binding.function))
            if made in project.classes and not _is_local_kind(project, made):
                return f"{holder}.{target.attr}"
            if made in ("SimpleNamespace", "Namespace", "Flask", "APIFlask", "Quart", "Bottle"):
                return f"{holder}.{target.attr}"
    return ""


def _is_local_kind(project: Project, name: str) -> bool:
    return any(
        last(ast.unparse(base)) in ("local", "Local", "ContextVar")
        for _, cls in project.classes[name]
        for base in cls.bases
    )


def _is_lazy(function: Function, node: ast.stmt, name: str) -> bool:
    """`if client is None: client = make()`: made once, and the same for all."""
    for other in function.nodes:
        if isinstance(other, ast.If) and any(inner is node for inner in ast.walk(other)):
            test = ast.unparse(other.test)
            if re.search(rf"\b{re.escape(name.rpartition('.')[2])}\b", test):
                return True
    return False


def _reads(value: ast.expr, name: str) -> bool:
    return any(ast.unparse(one) == name for one in ast.walk(value) if isinstance(one, ast.Name | ast.Attribute))


def _comes_from_request(function: Function, value: ast.expr, depth: int = 0) -> bool:
    for node in ast.walk(value):
        if isinstance(node, ast.Name):
            if REQUEST_DATA.fullmatch(node.id) or node.id in function.parameters - {"self", "cls", "app"}:
                return True
            held = function.local_values.get(node.id)
            if held is not None and depth < 4 and _comes_from_request(function, held, depth + 1):
                return True
    return False


def _is_read_in_requests(project: Project, writer: Function, shared: str) -> bool:
    name = shared.partition("[")[0].rpartition(".")[2]
    for function in project.in_request:
        for node in function.nodes:
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                if function is writer or name not in function.local_values:
                    return True
            if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load):
                return True
    return False


def sessions(project: Project) -> Iterator[Finding]:
    """One database connection or SQLAlchemy Session for all requests."""
    seen: set[tuple[str, str, str]] = set()
    for function in project.in_request:
        for node in function.nodes:
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name | ast.Attribute):
                continue
            binding = project.binding(node.value, function.source, function)
            if binding is None or binding.key in seen or not project.is_shared(binding):
                continue
            if not isinstance(binding.value, ast.Call):
                continue
            made = project.dotted(binding.value, binding.source, binding.function)
            if known.CONNECTS.fullmatch(made.removesuffix("()")) or re.fullmatch(
                r".*create_engine\(\)\.(?:raw_connection|connect)\(\)|.*connect\(\)\.cursor\(\)", made
            ):
                seen.add(binding.key)
                yield Finding(
                    "shared-connection",
                    binding.source.shown,
                    binding.line,
                    f"`{binding.name}` is one database connection for all requests: they share its transaction, and "
                    "two at once mix up replies or are refused.",
                    "Take one for each request from a pool: SQLAlchemy's engine, psycopg2.pool.ThreadedConnectionPool, "
                    "psycopg_pool.",
                )
            elif (
                re.fullmatch(
                    r"(?:sqlalchemy\.orm\.)?(?:.*sessionmaker\(\)\(\)|(?:sqlalchemy\.orm\.)?Session\(\))", made
                )
                and "requests" not in made
                and "flask" not in made
            ):
                seen.add(binding.key)
                yield Finding(
                    "shared-db-session",
                    binding.source.shown,
                    binding.line,
                    f"`{binding.name}` is one SQLAlchemy Session for all requests: they share a transaction, and one's "
                    "rollback undoes another's work.",
                    "`scoped_session(...)` that is removed in `teardown_appcontext`, or Flask-SQLAlchemy's "
                    "`db.session`.",
                )
