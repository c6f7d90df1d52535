"""Rules about calls to other services: timeouts, clients, retries."""

import ast
import os
import re
from collections.abc import Iterator

from ..findings import Finding
from . import known
from .functions import Function
from .names import has_unpacking, keyword, last, number
from .project import Project
from .sources import Source

# Greenroom's default, GREENROOM_REQUEST_BUDGET_MILLISECONDS.
DEFAULT_BUDGET_SECONDS = 60.0


def find(project: Project) -> Iterator[Finding]:
    yield from without_timeout(project)
    yield from made_anew(project)
    yield from transfers(project)
    yield from too_patient(project)


def without_timeout(project: Project) -> Iterator[Finding]:
    for source, function, call, name in project.all_calls():
        if has_unpacking(call) and not _passes_on_nothing(project, call, function):
            continue
        timeout = keyword(call, "timeout")
        if timeout is not None and _is_none(project, timeout, source, function):
            is_client = re.fullmatch(r"httpx\.(?:Async)?Client", name)
            if is_client or (known.TIMEOUT_NONE.match(name) and known.HTTP.fullmatch(name)):
                says_it = isinstance(timeout, ast.Constant)
                how = "`timeout=None`" if says_it else f"`{ast.unparse(timeout)}` is None where nobody says it"
                yield _endless(source.shown, call, name, f"is told to wait for ever ({how})")
            continue
        if timeout is not None:
            continue
        for pattern, position in known.ENDLESS:
            if pattern.fullmatch(name) and not (position is not None and len(call.args) > position):
                if not _has_default(project, call, source, function):
                    yield _endless(source.shown, call, name, "has no timeout")
                break


def _is_none(project: Project, timeout: ast.expr, source: Source, function: Function | None) -> bool:
    """Whether a timeout is None: as it stands, by a name's only value, or as a default that some caller leaves."""
    if isinstance(timeout, ast.Constant):
        return timeout.value is None
    if not isinstance(timeout, ast.Name):
        return False
    if function is None or timeout.id not in function.parameters:
        held = project.lookup(timeout.id, source, function)
        return held is not None and isinstance(held.value, ast.Constant) and held.value.value is None
    position, default = _parameter(function, timeout.id)
    if not (isinstance(default, ast.Constant) and default.value is None) or timeout.id in function.local_values:
        return False
    callers = [one for _, _, one, called in project.all_calls() if last(called) == function.name]
    return not _is_handed_over(project, function) and any(
        keyword(one, timeout.id) is None and len(one.args) <= position and not has_unpacking(one) for one in callers
    )


def _parameter(function: Function, name: str) -> tuple[int, ast.expr | None]:
    """Where a parameter stands in a call (not counting `self`), and its default."""
    arguments = function.node.args
    for one, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        if one.arg == name:
            return 1_000, default
    places = [one.arg for one in [*arguments.posonlyargs, *arguments.args]]
    if name not in places:
        return 1_000, None
    from_end = places.index(name) - len(places) + len(arguments.defaults)
    is_method = function.owner is not None and places[0] in ("self", "cls")
    return places.index(name) - is_method, arguments.defaults[from_end] if from_end >= 0 else None


def _passes_on_nothing(project: Project, call: ast.Call, function: Function | None) -> bool:
    """Whether all that is unpacked are the keywords of a helper of their own, and no call of it has a timeout."""
    if function is None or function.node.args.kwarg is None or any(isinstance(one, ast.Starred) for one in call.args):
        return False
    name = function.node.args.kwarg.arg
    unpacked = [one.value for one in call.keywords if one.arg is None]
    if not all(isinstance(one, ast.Name) and one.id == name for one in unpacked):
        return False
    # `kwargs.setdefault("timeout", 3)`, or another call that may change it: nothing is known then.
    used = sum(isinstance(node, ast.Name) and node.id == name for node in function.nodes)
    callers = [one for _, _, one, called in project.all_calls() if last(called) == function.name]
    return (
        used == len(unpacked)
        and bool(callers)
        and not any(has_unpacking(one) or keyword(one, "timeout") is not None for one in callers)
        and not _is_handed_over(project, function)
    )


def _is_handed_over(project: Project, function: Function) -> bool:
    """Whether the function is used without being called: `partial(fetch, timeout=3)`, `pool.submit(fetch, ...)`."""
    called = {id(call.func) for _, _, call, _ in project.all_calls()}
    return any(
        (isinstance(node, ast.Name) and node.id == function.name and isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.Attribute) and node.attr == function.name)
        for source in project.sources
        for node in ast.walk(source.tree)
        if id(node) not in called
    )


def _endless(file: str, call: ast.Call, name: str, what: str) -> Finding:
    shown = name.replace("requests.sessions.", "requests.").replace("()", "")
    return Finding(
        "no-timeout",
        file,
        call.lineno,
        f"{shown}() {what}: an upstream that does not answer keeps a request, and what it holds, until its budget ends "
        "(a minute unless set otherwise), and a thread or a job for ever.",
        "Pass `timeout=`, for requests a pair such as `timeout=(3, 10)`: to connect, and between two pieces of the "
        "answer.",
    )


def _has_default(project: Project, call: ast.Call, source: Source, function: Function | None) -> bool:
    """Whether the object that is called was given a timeout for all its calls."""
    if not isinstance(call.func, ast.Attribute):
        return False
    binding = project.binding(call.func.value, source, function)
    made = binding.value if binding is not None else call.func.value
    if isinstance(made, ast.Call) and keyword(made, "timeout") is not None:
        return True
    if binding is None:
        return False
    # `session.request = partial(session.request, timeout=3)`, or an adapter of their own that bounds all calls.
    for node in ast.walk(binding.source.tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            target = node.targets[0]
            if (
                isinstance(target.value, ast.Name)
                and target.value.id == binding.name
                and target.attr in (*("request", "send", "get", "post"),)
            ):
                return True
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "mount"
            and len(node.args) == 2
            and last(ast.unparse(node.func.value)) == binding.name
        ):
            adapter = node.args[1].func if isinstance(node.args[1], ast.Call) else node.args[1]
            given = isinstance(node.args[1], ast.Call) and keyword(node.args[1], "timeout") is not None
            if given or last(ast.unparse(adapter)) in project.classes:
                return True
    return False


def made_anew(project: Project) -> Iterator[Finding]:
    for function, call, name in project.request_calls():
        for pattern, what in known.CLIENTS:
            if not pattern.fullmatch(name):
                continue
            has_no_pool = any(one.arg == "poolclass" and "NullPool" in ast.unparse(one.value) for one in call.keywords)
            if has_no_pool or _is_kept(call, function) or _is_personal(call, function):
                break
            if what == "a requests.Session":
                yield Finding(
                    "client-per-request",
                    function.source.shown,
                    call.lineno,
                    f"A requests.Session is made anew for each request, in {function.name}(). Greenroom keeps the "
                    "connections of all sessions in one pool; elsewhere they are opened and thrown away each time.",
                    "Nothing is needed under Greenroom.",
                    level="note",
                )
            else:
                yield Finding(
                    "client-per-request",
                    function.source.shown,
                    call.lineno,
                    f"{what[0].upper()}{what[1:]} is made anew for each request, in {function.name}(): its connections "
                    "are opened, greeted and thrown away each time.",
                    "Take it from a pool that is made once (SQLAlchemy's engine, psycopg2.pool, psycopg_pool); one "
                    "connection for all requests would be worse."
                    if what == "a database connection"
                    else "Make it once, at module level or in the factory.",
                )
            break


def _is_kept(call: ast.Call, function: Function) -> bool:
    """Whether it is made once and kept: in a global, in `self`, in `g` of a request, in a cached function."""
    if any(
        last(ast.unparse(one)).startswith(("cache", "lru_cache", "cached_property")) or "cache" in ast.unparse(one)
        for one in function.node.decorator_list
    ):
        return True
    if function.name in ("__init__", "init_app"):
        return True
    for node in function.nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(one is call for one in ast.walk(node.value)):
                for target in targets:
                    if isinstance(target, ast.Attribute | ast.Subscript):
                        return True
                    if isinstance(target, ast.Name) and target.id in function.globals:
                        return True
    return False


def _is_personal(call: ast.Call, function: Function) -> bool:
    """Whether the client carries somebody's own login: then one for all would be wrong."""
    name = next(
        (
            target.id
            for node in function.nodes
            if isinstance(node, ast.Assign | ast.With)
            for target, value in _bound(node)
            if value is call and isinstance(target, ast.Name)
        ),
        "",
    )
    if not name:
        return False
    for node in function.nodes:
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if (
                    isinstance(target, ast.Attribute)
                    and ast.unparse(target.value) == name
                    and target.attr in ("auth", "cert", "cookies")
                ):
                    return True
    return False


def _bound(node: ast.Assign | ast.With) -> list[tuple[ast.expr | None, ast.expr]]:
    if isinstance(node, ast.Assign):
        return [(target, node.value) for target in node.targets]
    return [(item.optional_vars, item.context_expr) for item in node.items]


def transfers(project: Project) -> Iterator[Finding]:
    for source, _, call, name in project.all_calls():
        if last(name) in ("upload_file", "upload_fileobj", "download_file", "download_fileobj") and "boto3" in name:
            config = keyword(call, "Config")
            if config is None or "use_threads=False" not in ast.unparse(config):
                yield Finding(
                    "boto3-threads",
                    source.shown,
                    call.lineno,
                    f"boto3's {last(name)}() moves parts in threads of its own.",
                    "`Config=TransferConfig(use_threads=False)`.",
                )


def too_patient(project: Project) -> Iterator[Finding]:
    """Calls in requests that may wait longer than the request."""
    given = os.environ.get("GREENROOM_REQUEST_BUDGET_MILLISECONDS", "")
    budget = int(given) / 1000 if given.isdigit() else DEFAULT_BUDGET_SECONDS
    for function, call, name in project.request_calls():
        seconds = timeout_of(call)
        if budget and seconds is not None and seconds > budget and known.HTTP.fullmatch(name):
            yield Finding(
                "timeouts-order",
                function.source.shown,
                call.lineno,
                f"This call may wait {seconds:g} s, and the request has a budget of {budget:g} s: the client has its "
                "504 while the call goes on.",
                "A timeout shorter than the budget, or a job and an answer at once.",
            )


def timeout_of(call: ast.Call) -> float | None:
    """The seconds that a call may wait between two pieces, where the text says so."""
    node = keyword(call, "timeout")
    if isinstance(node, ast.Tuple) and node.elts:
        return number(node.elts[-1])
    return number(node)
