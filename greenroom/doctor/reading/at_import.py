"""Rules about what runs while the application is imported, or made by its factory."""

import ast
from collections.abc import Iterator

from ..findings import Finding
from ..wording import duration
from . import known
from .functions import Function
from .names import last
from .project import Project
from .sources import Source

THREADS = ("threading.Thread", "threading.Timer", "_thread.start_new_thread")
PROCESSES = ("os.fork", "multiprocessing.Process", "multiprocessing.Pool", "os.system")
PROGRAMS = ("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_call", "subprocess.check_output")
SCHEDULERS = ("BackgroundScheduler", "GeventScheduler", "APScheduler")


def find(project: Project) -> Iterator[Finding]:
    for source, function, call, name in calls_at_import(project):
        yield from judge(source.shown, call.lineno, name, function, project, call, source)


def judge(
    file: str, line: int, name: str, function: Function | None, project: Project, call: ast.Call, source: Source
) -> Iterator[Finding]:
    if known.SLEEPS.fullmatch(name):
        yield sleeps(file, line)
    elif known.HTTP.fullmatch(name) and not name.endswith("ServerProxy"):
        yield talks(file, line, f"{name.replace('()', '')}()")
    elif name in THREADS and _is_started(project, call, source, function):
        yield thread(file, line, name)
    elif last(name) == "start" and any(scheduler in name for scheduler in SCHEDULERS):
        yield thread(file, line, name.replace("()", ""))
    elif name in PROCESSES:
        yield process(file, line, name)
    elif name in PROGRAMS:
        yield process(file, line, name)


def sleeps(file: str, line: int, seconds: float | None = None) -> Finding:
    said = f"for {duration(seconds)} " if seconds is not None else ""
    return Finding(
        "sleep-at-import",
        file,
        line,
        f"The import sleeps {said}here: each worker, reload and command waits for it.",
        "Wait for what is needed where it is needed, with a bound.",
        cost=seconds or 0.0,
    )


def talks(file: str, line: int, what: str, *, is_prepared_for: bool = False) -> Finding:
    """A note where the import goes on without the other side."""
    return Finding(
        "io-at-import",
        file,
        line,
        f"The import talks to the network: {what}. "
        + (
            "An error of it is dealt with; each worker and command waits for the answer."
            if is_prepared_for
            else "Without the other side no worker starts."
        ),
        "Do it in the first request that needs it, or in a command before the server.",
        level="note" if is_prepared_for else "",
    )


def is_prepared_for(project: Project, stack: list[str]) -> bool:
    """Whether an own line of `stack` (`file:line name`) stands where an error ends in a handler, and not the import."""
    lines = {one.partition(" ")[0] for one in stack}
    for source in project.sources:
        here = {int(number) for file, _, number in (one.rpartition(":") for one in lines) if file == source.shown}
        for node in ast.walk(source.tree) if here else ():
            if _copes(node) and any(
                (statement.end_lineno or statement.lineno) >= line >= statement.lineno
                for statement in node.body  # type: ignore[attr-defined]
                for line in here
            ):
                return True
    return False


def _copes(node: ast.AST) -> bool:
    if isinstance(node, ast.With):
        return any("suppress(" in ast.unparse(item.context_expr) for item in node.items)
    return isinstance(node, ast.Try) and any(
        not any(isinstance(inner, ast.Raise) for inner in ast.walk(handler)) for handler in node.handlers
    )


def thread(file: str, line: int, what: str) -> Finding:
    return Finding(
        "thread-at-import",
        file,
        line,
        f"The import starts a thread ({what}): every worker and every command has its own, and with preload_app it is "
        "lost in the fork.",
        "Run schedulers and consumers as processes of their own; start a helper with its first use.",
    )


def process(file: str, line: int, what: str) -> Finding:
    return Finding(
        "process-at-import",
        file,
        line,
        f"The import starts a process ({what}): every worker, reload and command does.",
        "Do it at build time, or start it beside the server.",
    )


def calls_at_import(project: Project) -> Iterator[tuple[Source, Function | None, ast.Call, str]]:
    """Calls at module level, in functions that are called there, and in the factory that the command line names."""
    roots: list[Function] = [
        function
        for function in project.functions
        if function.name == project.entry and function.owner is None and function.outer is None
    ]
    for source in project.sources:
        nodes = [node for node in project.top_nodes[source.module] if not _is_main_guard(source, node)]
        for node in nodes:
            if isinstance(node, ast.Call):
                yield source, None, node, project.called(node, source, None)
                if isinstance(node.func, ast.Name):
                    module, _, attribute = source.imports.get(
                        node.func.id, f"{source.module}.{node.func.id}"
                    ).rpartition(".")
                    roots += [
                        one
                        for one in project.by_name.get(attribute, [])
                        if one.source.module == module and one.owner is None
                    ]
                elif isinstance(node.func, ast.Attribute):
                    made = project.dotted(node.func.value, source, None)
                    if last(made) in project.classes:
                        roots += [
                            one
                            for one in project.by_name.get(node.func.attr, [])
                            if one.owner is not None and one.owner.name == last(made)
                        ]
    for function in _called_at_once(project, roots):
        for call in function.calls:
            yield function.source, function, call, project.called(call, function.source, function)


def _called_at_once(project: Project, roots: list[Function]) -> list[Function]:
    """`roots` and what they call by name; not what they only define, register or hand on."""
    seen = dict.fromkeys(roots)
    waiting = list(seen)
    while waiting:
        function = waiting.pop()
        for call in function.calls:
            targets = []
            if isinstance(call.func, ast.Name):
                targets = list(project._named(call.func.id, function))
            elif isinstance(call.func, ast.Attribute):
                targets = list(project._method(call.func, function))
            for target in targets:
                if target not in seen and len(seen) < 500:
                    seen[target] = None
                    waiting.append(target)
    return list(seen)


def _is_main_guard(source: Source, node: ast.AST) -> bool:
    for statement in source.tree.body:
        if isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test):
            if any(inner is node for inner in ast.walk(statement)):
                return True
    return False


def _is_started(project: Project, call: ast.Call, source: Source, function: Function | None) -> bool:
    """Whether the thread that is made is started in the same scope."""
    scope: list[ast.AST] = function.nodes if function is not None else project.top_nodes[source.module]
    for node in scope:
        if isinstance(node, ast.Attribute) and node.attr == "start":
            if node.value is call:
                return True
            if isinstance(node.value, ast.Name):
                binding = project.lookup(node.value.id, source, function)
                if binding is not None and binding.value is call:
                    return True
    return False
