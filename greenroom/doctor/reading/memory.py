"""Rules about what a worker keeps in memory: caches, limits and counters of its own, and what grows."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from .functions import Binding, Function
from .names import SETS_UP, has_unpacking, keyword, last
from .project import Project
from .values import line_of, settings_of

GROWING = ("append", "add", "extend", "insert", "setdefault", "update", "appendleft", "put")
SHRINKING = ("pop", "popitem", "popleft", "clear", "remove", "discard", "get_nowait", "expire", "evict")
CONTAINERS = (
    *("dict", "list", "set", "collections.defaultdict", "collections.OrderedDict", "collections.Counter"),
    *("collections.deque", "defaultdict", "OrderedDict", "Counter", "deque"),
)
STATE_NAMES = re.compile(
    r"cache|limit|session|count|hits|visits|store|memo|seen|rate|bucket|tokens|users|online|stats|attempts|lock|queue"
    r"|jobs|results|history|state|registry|connections|clients",
    re.IGNORECASE,
)


def find(project: Project) -> Iterator[Finding]:
    yield from containers(project)
    yield from memory_backends(project)


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
            held = _inside_of(function, target)
            if held is not target and how == "grow":
                how = "store"  # under a key
            target = held
            binding = project.binding(target, function.source, function)
            if binding is None or not project.is_shared(binding) or not is_container(project, binding):
                continue
            bindings[binding.key] = binding
            if how == "shrink":
                shrunk.add(binding.key)
            elif function in project.in_request and not _sets_up(function, binding, node):
                changed.setdefault(binding.key, []).append((function, node, how))
    renewed = _renewed(project)
    for key, places in changed.items():
        binding = bindings[key]
        if key in renewed:
            continue  # begun anew by a request: it is one's own, or told as shared state
        function, node, how = places[0]
        there = "" if function.source is binding.source else f" of {function.source.shown}"
        is_bounded = key in shrunk or _has_bound(binding) or _is_measured(project, binding)
        constant_keys = all(_is_constant_key(place) for _, place, _ in places)
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


def _sets_up(function: Function, binding: Binding, node: ast.AST) -> bool:
    """Whether a container is filled where its object is made, or by a decorator that keeps what it is put on."""
    if function.name in SETS_UP:
        is_own = bool(binding.owner) and binding.function is not None and binding.function.name in SETS_UP
        return is_own or _is_constant_key(node)
    kept = {one.id for one in getattr(node, "args", ()) if isinstance(one, ast.Name)} & function.parameters
    return any(isinstance(one, ast.Return) and getattr(one.value, "id", "") in kept for one in function.nodes)


def _renewed(project: Project) -> set[tuple[str, str, str]]:
    """Attributes that requests assign an empty container: `self.errors = {}` outside of the constructor."""
    found = set()
    for function in project.in_request:
        if function.name == "__init__":
            continue
        for node in function.node.body:  # under no condition: not made with its first use
            for target in node.targets if isinstance(node, ast.Assign) else ():
                binding = project.binding(target, function.source, function)
                if isinstance(target, ast.Attribute) and binding is not None:
                    found.add(binding.key)
    return found


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


def _inside_of(function: Function, target: ast.expr) -> ast.expr:
    """`calls` for the `seen` of `seen = calls[key]`: what is inside of a container counts as the container."""
    held = function.local_values.get(target.id) if isinstance(target, ast.Name) else None
    if isinstance(held, ast.Subscript):
        return _base(held)
    if isinstance(held, ast.Call) and isinstance(held.func, ast.Attribute) and held.func.attr in ("get", "setdefault"):
        return _base(held.func.value)
    return target


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
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault":
        return bool(node.args) and isinstance(node.args[0], ast.Constant)
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
            for key, value in settings_of(node):
                if not isinstance(value, ast.Constant) or not isinstance(value.value, str):
                    continue
                setting = value.value.rpartition(".")[2]
                if key == "CACHE_TYPE" and setting.lower() in ("simplecache", "simple"):
                    yield _in_memory(source.shown, value.lineno, "Flask-Caching's cache is")
                elif key in ("RATELIMIT_STORAGE_URI", "RATELIMIT_STORAGE_URL") and value.value.startswith("memory:"):
                    yield _in_memory(source.shown, value.lineno, "the rate limit is counted")
                elif key == "BACKEND" and setting == "LocMemCache":
                    yield _in_memory(source.shown, value.lineno, "Django's cache is")


def socket_servers(project: Project, workers: int) -> Iterator[Finding]:
    """Socket.IO whose clients one worker knows, where there are several."""
    calls = list(project.all_calls())
    managers = ("message_queue", "client_manager")
    # `init_app(app, message_queue=...)` says it as well.
    if workers < 2 or any(keyword(call, name) is not None for _, _, call, _ in calls for name in managers):
        return
    for source, _, call, name in calls:
        if re.fullmatch(r"flask_socketio\.SocketIO|socketio\.Server", name) and not has_unpacking(call):
            yield Finding(
                "per-worker-state",
                source.shown,
                call.lineno,
                f"Each of {workers} workers knows its own Socket.IO clients only: long polling meets another one with "
                "each request (`Invalid session`), and emit() reaches a part of them.",
                "One worker; or one worker for each server, sticky sessions in front, and `message_queue=` (Redis).",
            )


def _in_memory(file: str, line: int, what: str) -> Finding:
    return Finding(
        "per-worker-state",
        file,
        line,
        f"{what[0].upper()}{what[1:]} in the memory of one worker: with several workers each has its own, and users "
        "see now one and now the other.",
        "Name a storage that all workers share, Redis for example.",
    )


def is_container(project: Project, binding: Binding) -> bool:
    value = binding.value
    if isinstance(value, ast.Dict | ast.List | ast.Set | ast.DictComp | ast.ListComp):
        return True
    if isinstance(value, ast.Call):
        return project.dotted(value.func, binding.source, binding.function) in CONTAINERS
    return False
