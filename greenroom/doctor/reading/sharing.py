"""Rules about what requests share: variables, sessions, locks, executors, caches, threads."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from . import known
from .project import Binding, Function, Project, keyword, last, number
from .waits import waits_in

CONTAINERS = (
    "dict",
    "list",
    "set",
    "collections.defaultdict",
    "collections.OrderedDict",
    "collections.Counter",
    "collections.deque",
    "defaultdict",
    "OrderedDict",
    "Counter",
    "deque",
)
GROWING = ("append", "add", "extend", "insert", "setdefault", "update", "appendleft", "put")
SHRINKING = ("pop", "popitem", "popleft", "clear", "remove", "discard", "get_nowait", "expire", "evict")
STATE_NAMES = re.compile(
    r"cache|limit|session|count|hits|visits|store|memo|seen|rate|bucket|tokens|users|online|stats"
    r"|attempts|lock|queue|jobs|results|history|state|registry|connections|clients",
    re.IGNORECASE,
)
REQUEST_DATA = re.compile(r"(?:flask\.)?(?:request|g|session|current_user)\b")
FEW_THREADS = 50


def find(project: Project) -> Iterator[Finding]:
    yield from shared_variables(project)
    yield from containers(project)
    yield from memory_backends(project)
    yield from sessions(project)
    yield from locks(project)
    yield from executors(project)
    yield from threads(project)


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
                is_personal = _comes_from_request(function, node.value)
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
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        holder = target.value.id
        if holder in ("self", "cls", "g", "session", "request", "response"):
            return ""
        if holder in function.parameters or holder in function.local_values:
            return ""
        module = function.source.imports.get(holder, "")
        if module in project.module_values and target.attr in project.module_values[module]:
            return f"{holder}.{target.attr}"
        if holder in project.classes:
            return f"{holder}.{target.attr}"
        binding = project.lookup(holder, function.source, function)
        if binding is not None and project.is_shared(binding) and isinstance(binding.value, ast.Call):
            made = last(project.dotted(binding.value.func, binding.source, binding.function))
            if made in project.classes and not _is_local_kind(project, made):
                return f"{holder}.{target.attr}"
            if made in ("SimpleNamespace", "Namespace"):
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
    name = shared.rpartition(".")[2]
    for function in project.in_request:
        for node in function.nodes:
            if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load):
                if function is writer or name not in function.local_values:
                    return True
            if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Load):
                return True
    return False


def containers(project: Project) -> Iterator[Finding]:
    """Dicts, lists and sets at module level that requests write: one for each worker, and mostly without an end."""
    changed: dict[tuple[str, str, str], list[tuple[Function, ast.AST, str]]] = {}
    shrunk: set[tuple[str, str, str]] = set()
    bindings: dict[tuple[str, str, str], Binding] = {}
    for function in project.functions:
        for node in function.nodes:
            target, how = _mutation(node)
            if target is None:
                continue
            binding = project.binding(target, function.source, function)
            if binding is None or not project.is_shared(binding) or not _is_container(project, binding):
                continue
            bindings[binding.key] = binding
            if how == "shrink":
                shrunk.add(binding.key)
            elif function in project.in_request:
                changed.setdefault(binding.key, []).append((function, node, how))
    for key, places in changed.items():
        binding = bindings[key]
        function, node, how = places[0]
        there = "" if function.source is binding.source else f" of {function.source.shown}"
        is_bounded = key in shrunk or _has_bound(binding) or _is_measured(project, binding)
        constant_keys = all(how == "store" and _is_constant_key(place) for _, place, how in places)
        if STATE_NAMES.search(binding.name) or constant_keys or how == "store":
            yield Finding(
                "per-worker-state",
                binding.source.shown,
                binding.line,
                f"`{binding.name}` lives in the memory of one worker: requests write it (line {line_of(node)}{there}), "
                "and other workers do not see it.",
                "Keep it in Redis, the database, or a cache that all workers share; what each worker may have for "
                "itself, as a cache of unchanging values, can be `functools.lru_cache(maxsize=...)`.",
            )
        if not is_bounded and not constant_keys:
            yield Finding(
                "grows",
                function.source.shown,
                line_of(node),
                f"`{binding.name}` grows with requests and nothing takes away from it: the worker's memory has no end.",
                "Bound it: `deque(maxlen=...)`, `functools.lru_cache(maxsize=...)`, or keep it outside of the process.",
            )


def _mutation(node: ast.AST) -> tuple[ast.expr | None, str]:
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        for target in targets:
            if isinstance(target, ast.Subscript):
                return _base(target.value), "store"
    if isinstance(node, ast.Delete):
        for target in node.targets:
            if isinstance(target, ast.Subscript):
                return _base(target.value), "shrink"
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr in GROWING:
            return _base(node.func.value), "grow"
        if node.func.attr in SHRINKING:
            return _base(node.func.value), "shrink"
    return None, ""


def _base(node: ast.expr) -> ast.expr:
    """`x` of `x[...][...]` and of `x[...].append`: what is inside of a container counts as the container."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def _is_container(project: Project, binding: Binding) -> bool:
    value = binding.value
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp):
        return True
    if isinstance(value, ast.Call):
        return project.dotted(value.func, binding.source, binding.function) in CONTAINERS
    return False


def _has_bound(binding: Binding) -> bool:
    return isinstance(binding.value, ast.Call) and (
        keyword(binding.value, "maxlen") is not None or len(binding.value.args) > 1
    )


def _is_measured(project: Project, binding: Binding) -> bool:
    """Whether somebody looks at its length, or slices it: there is a bound, most likely."""
    for node in ast.walk(binding.source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "len" and node.args:
            if ast.unparse(node.args[0]) == binding.name:
                parents = [one for one in ast.walk(binding.source.tree) if isinstance(one, ast.Compare)]
                if any(node in ast.walk(one) for one in parents):
                    return True
    return False


def _is_constant_key(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign | ast.AugAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return all(isinstance(one, ast.Subscript) and isinstance(one.slice, ast.Constant) for one in targets)
    return False


def memory_backends(project: Project) -> Iterator[Finding]:
    """Flask-Caching, Flask-Limiter, cachelib and others with their storage in memory."""
    storage_set = any(
        isinstance(node, ast.Constant) and node.value == "RATELIMIT_STORAGE_URI"
        for source in project.sources
        for node in ast.walk(source.tree)
    )
    for source, _, call, name in project.all_calls():
        what = ""
        if last(name) in ("SimpleCache",) and "cache" in name.lower():
            what = "cachelib's SimpleCache is"
        elif name.endswith("flask_limiter.Limiter") or name == "flask_limiter.Limiter":
            storage = keyword(call, "storage_uri")
            uri = storage.value if isinstance(storage, ast.Constant) else None
            if (storage is None and not storage_set) or (isinstance(uri, str) and uri.startswith("memory:")):
                what = "the rate limit is counted"
        elif name.startswith("limits.storage.") and last(name) == "MemoryStorage":
            what = "the rate limit is counted"
        elif name.startswith("cachetools.") and last(name) in ("TTLCache", "LRUCache", "LFUCache", "Cache"):
            what = "" if last(name) != "TTLCache" else "the TTLCache is"
        elif last(name) == "LocMemCache":
            what = "the cache is"
        if what:
            yield _in_memory(source.shown, call.lineno, what)
    for source in project.sources:
        for node in ast.walk(source.tree):
            for key, value in _settings_of(node):
                if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
                    continue
                setting = value.value.rpartition(".")[2]
                if key == "CACHE_TYPE" and setting.lower() in ("simplecache", "simple"):
                    yield _in_memory(source.shown, value.lineno, "Flask-Caching's cache is")
                elif key in ("RATELIMIT_STORAGE_URI", "RATELIMIT_STORAGE_URL") and value.value.startswith("memory:"):
                    yield _in_memory(source.shown, value.lineno, "the rate limit is counted")
                elif key == "BACKEND" and setting == "LocMemCache":
                    yield _in_memory(source.shown, value.lineno, "Django's cache is")


def _in_memory(file: str, line: int, what: str) -> Finding:
    return Finding(
        "per-worker-state",
        file,
        line,
        f"{what[0].upper()}{what[1:]} in the memory of one worker: with several workers each has its own, and users "
        "see now one and now the other.",
        "Name a storage that all workers share, Redis for example.",
    )


def _settings_of(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """`X = v`, `config["X"] = v`, `{"X": v}`, `dict(X=v)`."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                yield str(target.slice.value), node.value
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                yield str(key.value), value
    elif isinstance(node, ast.Call):
        for one in node.keywords:
            if one.arg is not None:
                yield one.arg, one.value


settings_of = _settings_of


def line_of(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))


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


def locks(project: Project) -> Iterator[Finding]:
    """`with LOCK:` round a wait; two locks in two orders."""
    orders: dict[tuple[str, str], tuple[Function, int]] = {}
    for function in project.functions:
        if function not in project.in_request:
            continue
        for node in function.nodes:
            if not isinstance(node, ast.With):
                continue
            names = [name for item in node.items if (name := _lock_name(project, function, item.context_expr))]
            if not names:
                continue
            waits = waits_in(project, function, within=node)
            if waits:
                yield Finding(
                    "lock-held",
                    function.source.shown,
                    node.lineno,
                    f"The lock `{names[0]}` is held while line {waits[0].lineno} waits: requests pass here one after "
                    "the other.",
                    "Wait first; take the lock only for what changes shared data.",
                )
            inner = [
                (one, name)
                for one in ast.walk(node)
                if isinstance(one, ast.With) and one is not node
                for item in one.items
                if (name := _lock_name(project, function, item.context_expr))
            ]
            pairs = [(names[0], name, one.lineno) for one, name in inner]
            pairs += [(names[0], name, node.lineno) for name in names[1:]]
            for outer, name, line in pairs:
                other = orders.get((name, outer))
                orders.setdefault((outer, name), (function, line))
                if other is not None and outer != name:
                    for place, place_line, first, second, there in (
                        (function, line, outer, name, other),
                        (other[0], other[1], name, outer, (function, line)),
                    ):
                        yield Finding(
                            "deadlock",
                            place.source.shown,
                            place_line,
                            f"`{second}` is taken while `{first}` is held, and in the other order at "
                            f"{there[0].source.shown}:{there[1]}: when both run, each waits for the other for ever.",
                            "Take the locks in one order everywhere.",
                        )


def _lock_name(project: Project, function: Function, node: ast.expr) -> str:
    binding = project.binding(node, function.source, function)
    if binding is None or not project.is_shared(binding) and "self" not in ast.unparse(node):
        return ""
    made = project.dotted(binding.value, binding.source, binding.function)
    if re.fullmatch(
        r"(?:threading|multiprocessing|gevent\.lock|gevent)\.(?:R?Lock|Semaphore|BoundedSemaphore"
        r"|Condition)\(\)",
        made,
    ):
        if "Semaphore" in made and isinstance(binding.value, ast.Call):
            size = number(binding.value.args[0] if binding.value.args else keyword(binding.value, "value"))
            if size is not None and size > 1:
                return ""
        return ast.unparse(node)
    return ""


def executors(project: Project) -> Iterator[Finding]:
    """An executor for the whole process with few threads, in which requests wait."""
    seen: set[tuple[str, str, str]] = set()
    for function in project.in_request:
        waits = any(
            isinstance(node, ast.Attribute) and node.attr in ("result", "map", "exception") for node in function.nodes
        ) or any(
            last(project.called(call, function.source, function)) in ("wait", "as_completed") for call in function.calls
        )
        for call in function.calls:
            if not (isinstance(call.func, ast.Attribute) and call.func.attr in ("submit", "map")):
                continue
            binding = project.binding(call.func.value, function.source, function)
            if binding is None or not project.is_shared(binding) or binding.key in seen:
                continue
            if not isinstance(binding.value, ast.Call):
                continue
            made = project.dotted(binding.value.func, binding.source, binding.function)
            if last(made) == "ProcessPoolExecutor":
                seen.add(binding.key)
                yield Finding(
                    "multiprocessing",
                    binding.source.shown,
                    binding.line,
                    f"`{binding.name}` forks processes from a worker: each copies its open connections.",
                    "Give it `mp_context=multiprocessing.get_context('spawn')`, or hand the work to a job queue.",
                )
            if last(made) != "ThreadPoolExecutor" or not (waits or call.func.attr == "map"):
                continue
            given = keyword(binding.value, "max_workers") or (binding.value.args[0] if binding.value.args else None)
            size = number(given)
            if given is not None and (size is None or size >= FEW_THREADS):
                continue
            seen.add(binding.key)
            said = f"{size:.0f} threads" if size is not None else "min(32, cores + 4) threads"
            yield Finding(
                "executor-full",
                binding.source.shown,
                binding.line,
                f"`{binding.name}` has {said} for all requests of a worker, and {function.name}() waits for it (line "
                f"{call.lineno}): more requests than that stand in line.",
                "Give max_workers as many as requests may be in flight (threads are greenlets here), or make the call "
                "in the request.",
            )


def threads(project: Project) -> Iterator[Finding]:
    for function, call, name in project.request_calls():
        if (
            name
            in (
                "threading.Thread",
                "threading.Timer",
                "_thread.start_new_thread",
                "gevent.spawn",
                "multiprocessing.Process",
                "multiprocessing.context.Process",
            )
            or (name.startswith("multiprocessing") and last(name) in ("Process", "Pool"))
            or name in ("concurrent.futures.ProcessPoolExecutor", "os.fork", "os.forkpty")
        ):
            if "multiprocessing" in name or "Process" in name or name.startswith("os.fork"):
                yield Finding(
                    "multiprocessing",
                    function.source.shown,
                    call.lineno,
                    f"{function.name}() starts a process by {name}() in each request: a copy of the worker with its "
                    "open connections, that nobody bounds.",
                    "Hand the work to a job queue (Celery, RQ), or start a program with `subprocess.run(timeout=...)`.",
                )
            elif not _is_waited_for(function) and not _is_lazy_start(function, call):
                yield Finding(
                    "thread-per-request",
                    function.source.shown,
                    call.lineno,
                    f"{function.name}() starts a thread in each request that nobody waits for or bounds: they pile up, "
                    "and are lost when the worker ends.",
                    "Hand the work to a job queue (Celery, RQ), or to one executor with a bound.",
                )


def _is_waited_for(function: Function) -> bool:
    """Whether the same function joins what it starts: then it is bounded by the request."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("join", "joinall", "is_alive")
        and not isinstance(node.value, ast.Constant)
        for node in function.nodes
    )


def _is_lazy_start(function: Function, call: ast.Call) -> bool:
    """Whether the thread is started once: under a condition about something that outlives the request."""
    for node in function.nodes:
        if isinstance(node, ast.If) and any(inner is call for inner in ast.walk(node)):
            test = ast.unparse(node.test)
            if "self." in test or any(re.search(rf"\b{name}\b", test) for name in function.globals):
                return True
    return False
