"""Rules about locks: held while something waits, taken in two orders."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from .functions import Function
from .names import keyword, number
from .project import Project
from .waits import waits_in


def find(project: Project) -> Iterator[Finding]:
    yield from locks(project)


def locks(project: Project) -> Iterator[Finding]:
    """`with LOCK:` round a wait; two locks in two orders."""
    yield from _acquired(project)
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
            waits = [call for call in waits_in(project, function, within=node) if not _is_once(node, call)]
            if waits and not _is_preparation(project, function):
                yield _held_lock(function, node.lineno, names[0], waits[0].lineno)
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


def _acquired(project: Project) -> Iterator[Finding]:
    """`LOCK.acquire()`, a wait, `LOCK.release()`."""
    for function in project.in_request:
        for call in function.calls:
            if not (isinstance(call.func, ast.Attribute) and call.func.attr == "acquire"):
                continue
            name = _lock_name(project, function, call.func.value)
            released = [
                node.lineno
                for node in function.nodes
                if isinstance(node, ast.Attribute) and node.attr == "release" and ast.unparse(node.value) == name
            ]
            if not name or not released:
                continue
            waits = [one for one in waits_in(project, function, after=call.lineno) if one.lineno < max(released)]
            if waits:
                yield _held_lock(function, call.lineno, name, waits[0].lineno)


def _held_lock(function: Function, line: int, name: str, wait_line: int) -> Finding:
    return Finding(
        "lock-held",
        function.source.shown,
        line,
        f"The lock `{name}` is held while line {wait_line} waits: requests pass here one after the other.",
        "Wait first; take the lock only for what changes shared data.",
    )


def _is_once(node: ast.With, call: ast.Call) -> bool:
    """`with lock: if x is None: x = make()`: it waits for the first request only."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.If) and any(one is call for one in ast.walk(inner)):
            test = ast.unparse(inner.test)
            assigned = [
                ast.unparse(target) for one in ast.walk(inner) if isinstance(one, ast.Assign) for target in one.targets
            ]
            if any(re.search(rf"(?<![\w.]){re.escape(name)}(?!\w)", test) for name in assigned):
                return True
    return False


def _is_preparation(project: Project, function: Function) -> bool:
    """Whether a function sets a flag when it is done, and its callers ask for the flag: it runs once."""
    flags = {
        target.attr if isinstance(target, ast.Attribute) else target.id
        for node in function.nodes
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and node.value.value is True
        for target in node.targets
        if isinstance(target, ast.Attribute) or (isinstance(target, ast.Name) and target.id in function.globals)
    }
    return any(
        isinstance(node, ast.If) and re.search(rf"\bnot\b.*\b{re.escape(flag)}\b", ast.unparse(node.test))
        for flag in flags
        for one in project.functions
        for node in one.nodes
    )


def _lock_name(project: Project, function: Function, node: ast.expr) -> str:
    binding = project.binding(node, function.source, function)
    if binding is None or not project.is_shared(binding):
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
