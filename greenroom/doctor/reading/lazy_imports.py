"""Modules that requests import: which, and which of them take long."""

import ast
from collections.abc import Iterator, Mapping

from ..findings import Finding
from .at_import import calls_at_import
from .functions import Function
from .project import Project

LAZY_IMPORT_SECONDS = 0.1


def names(project: Project) -> list[str]:
    """Modules that functions of requests import, and no function that runs at import does."""
    found = dict.fromkeys(name for name, _, _ in _imports(project))
    return [name for name in found if not name.startswith(("greenroom", "gevent"))][:40]


def heavy(project: Project, seconds_of: Mapping[str, float]) -> list[Finding]:
    """Heavy modules that are imported by whichever request needs them first."""
    return [
        Finding(
            "import-in-request",
            function.source.shown,
            line,
            f"{name} is imported by the first request that needs it: {seconds:.2f} s in which the loop stands, in "
            "every worker.",
            "Import it at the top of the module.",
            cost=seconds,
        )
        for name, function, line in _imports(project)
        if (seconds := seconds_of.get(name, 0.0)) >= LAZY_IMPORT_SECONDS
    ]


def _imports(project: Project) -> list[tuple[str, Function, int]]:
    """Module, function and line of each import that a request may be the first to make."""
    # An `init_app` that imports the same module has the same reason to, and comes first.
    at_import = {function for _, function, _, _ in calls_at_import(project) if function is not None}
    sooner = {name for function in at_import for name, _ in _modules(function)}
    found: dict[tuple[str, Function, int], None] = {}
    for function in project.in_request:
        for name, line in _modules(function):
            if name and name not in sooner:
                found[name, function, line] = None
    return list(found)


def _modules(function: Function) -> Iterator[tuple[str, int]]:
    loaded = {
        id(inner)
        for node in function.nodes
        if isinstance(node, ast.If) and "in sys.modules" in ast.unparse(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in function.nodes:
        if id(node) in loaded:
            continue  # it is there already, if it is imported at all
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield function.source.absolute(node), node.lineno
