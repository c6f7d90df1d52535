"""Rules about loops in requests that end only when something else does: retries, and asking again and again."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from . import known
from .functions import Function
from .names import decorator_name, last
from .project import Project

CLOCKS = re.compile(r"\b(?:monotonic|perf_counter|time\.time|now|utcnow|deadline|attempts?|tries|retries)\b")


def find(project: Project) -> Iterator[Finding]:
    yield from endless_retries(project)
    yield from endless_polls(project)


def endless_retries(project: Project) -> Iterator[Finding]:
    """`while True: try: ... except Exception: sleep` in a request, with no way out of the handler."""
    for function in project.functions:
        if function not in project.in_request:
            continue
        for node in function.nodes:
            if not (isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value):
                continue
            for part in node.body:
                if not isinstance(part, ast.Try):
                    continue
                for handler in part.handlers:
                    is_broad = handler.type is None or any(
                        last(ast.unparse(one))
                        in (
                            "Exception",
                            "BaseException",
                            "RequestException",
                            "OSError",
                            "ConnectionError",
                            "Timeout",
                            "TimeoutError",
                            "OperationalError",
                        )
                        for one in (handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type])
                    )
                    leaves = any(
                        isinstance(inner, ast.Break | ast.Return | ast.Raise)
                        for statement in [*handler.body]
                        for inner in ast.walk(statement)
                    )
                    counted = any(isinstance(inner, ast.Raise | ast.AugAssign) for inner in ast.walk(node)) and any(
                        isinstance(inner, ast.Raise | ast.Break) for inner in ast.walk(node)
                    )
                    if is_broad and not leaves and not counted:
                        yield Finding(
                            "endless-retry",
                            function.source.shown,
                            node.lineno,
                            f"{function.name}() tries again for ever, whatever the error "
                            f"(line {handler.lineno}): it outlives the request's budget and its client.",
                            "Bound the attempts (`for attempt in range(3)`), and let timeout errors pass.",
                        )
                        break
                else:
                    continue
                break


def endless_polls(project: Project) -> Iterator[Finding]:
    """`while True: ask; if done: return; sleep` in a request, bounded by nothing: neither a count nor a clock."""
    for function in project.functions:
        if function not in project.in_request or _is_stream(function):
            continue
        for node in function.nodes:
            if not (isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value):
                continue
            inside = [one for statement in node.body for one in ast.walk(statement)]
            calls = [one for one in inside if isinstance(one, ast.Call)]
            sleeps = any(known.SLEEPS.fullmatch(project.called(one, function.source, function)) for one in calls)
            answers = any(isinstance(one, ast.Return) and one.value is not None for one in inside)
            is_bounded = any(isinstance(one, ast.Raise | ast.AugAssign | ast.Try) for one in inside)
            if sleeps and answers and not is_bounded and not CLOCKS.search(ast.unparse(node).replace("time.sleep", "")):
                yield Finding(
                    "endless-retry",
                    function.source.shown,
                    node.lineno,
                    f"{function.name}() asks again and again until the answer is the one it waits for: if it never is, "
                    "the request goes on for ever, after its budget and without its client.",
                    "Bound the attempts (`for attempt in range(30)`), or answer 202 and let the client ask again.",
                )


def _is_stream(function: Function) -> bool:
    """A generator, or a websocket: they are meant to go on."""
    return (
        any(isinstance(node, ast.Yield | ast.YieldFrom) for node in function.nodes)
        or not function.parameters.isdisjoint({"ws", "websocket"})
        or any(last(decorator_name(one)) == "websocket" for one in function.node.decorator_list)
    )
