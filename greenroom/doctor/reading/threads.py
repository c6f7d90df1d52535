"""Rules about threads, executors and processes that requests start or wait for."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from .functions import Function
from .names import keyword, last, number
from .project import Project

FEW_THREADS = 50


def find(project: Project) -> Iterator[Finding]:
    yield from executors(project)
    yield from threads(project)
    yield from programs(project)


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
                "concurrent.futures.ThreadPoolExecutor",
                "concurrent.futures.thread.ThreadPoolExecutor",
            )
            or is_thread_class(project, name)
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
            elif last(name) == "ThreadPoolExecutor" and _is_closed(function, call):
                continue
            elif not _is_waited_for(function) and not _is_lazy_start(function, call):
                yield Finding(
                    "thread-per-request",
                    function.source.shown,
                    call.lineno,
                    f"{function.name}() starts a thread in each request that nobody waits for or bounds: they pile up, "
                    "and are lost when the worker ends.",
                    "Hand the work to a job queue (Celery, RQ), or to one executor with a bound.",
                )


def programs(project: Project) -> Iterator[Finding]:
    """Programs that a request starts, and of which it keeps nothing by which it could wait for them."""
    for function, call, name in project.request_calls():
        if name == "subprocess.Popen" and any(
            isinstance(node, ast.Expr) and node.value is call for node in function.nodes
        ):
            yield Finding(
                "thread-per-request",
                function.source.shown,
                call.lineno,
                f"{function.name}() starts a program in each request that nobody waits for or bounds: they pile up, "
                "and stay as zombies when they have ended.",
                "Hand the work to a job queue (Celery, RQ), or wait for it: `subprocess.run(timeout=...)`.",
            )


def is_thread_class(project: Project, name: str) -> bool:
    """Whether `name` is an own class that is made of `threading.Thread` or `Timer`, however many classes between."""
    seen: set[str] = set()
    waiting = [last(name)]
    while waiting:
        one = waiting.pop()
        if one in seen:
            continue
        seen.add(one)
        for source, cls in project.classes.get(one, []):
            bases = [project.dotted(base, source, None) for base in cls.bases]
            if any(base in ("threading.Thread", "threading.Timer") for base in bases):
                return True
            waiting += [last(base) for base in bases]
    return False


def _is_waited_for(function: Function) -> bool:
    """Whether the same function joins what it starts: then it is bounded by the request."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in ("join", "joinall", "is_alive")
        and not isinstance(node.value, ast.Constant)
        for node in function.nodes
    )


def _is_closed(function: Function, call: ast.Call) -> bool:
    """Whether an executor ends with the request, which waits for it then, or is kept for all of them."""
    if any(isinstance(node, ast.Attribute) and node.attr in ("shutdown", "result", "map") for node in function.nodes):
        return True
    for node in function.nodes:
        if isinstance(node, ast.With) and any(item.context_expr is call for item in node.items):
            return True
        if isinstance(node, ast.Assign) and node.value is call:
            names = [one.id for one in node.targets if isinstance(one, ast.Name)]
            if len(names) < len(node.targets) or any(name in function.globals for name in names):
                return True
        if isinstance(node, ast.Return) and node.value is call:
            return True
    return False


def _is_lazy_start(function: Function, call: ast.Call) -> bool:
    """Whether the thread is started once: under a condition about something that outlives the request."""
    for node in function.nodes:
        if isinstance(node, ast.If) and any(inner is call for inner in ast.walk(node)):
            test = ast.unparse(node.test)
            if "self." in test or any(re.search(rf"\b{name}\b", test) for name in function.globals):
                return True
    return False
