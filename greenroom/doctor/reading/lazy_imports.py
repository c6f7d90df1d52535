"""Modules that requests import: which, and which of them take long."""

import ast
from collections.abc import Mapping

from ..findings import Finding
from .project import Project

LAZY_IMPORT_SECONDS = 0.1


def names(project: Project) -> list[str]:
    """Modules that functions of requests import, and nothing else does."""
    found: dict[str, None] = {}
    for function in project.in_request:
        for node in function.nodes:
            if isinstance(node, ast.Import):
                found.update(dict.fromkeys(alias.name for alias in node.names))
            elif isinstance(node, ast.ImportFrom):
                found[function.source.absolute(node)] = None
    return [name for name in found if name and not name.startswith(("greenroom", "gevent"))][:40]


def heavy(project: Project, seconds_of: Mapping[str, float]) -> list[Finding]:
    """Heavy modules that are imported by whichever request needs them first."""
    found = []
    for function in project.in_request:
        for node in function.nodes:
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = [function.source.absolute(node)]
            for name in modules:
                seconds = seconds_of.get(name, 0.0)
                if seconds >= LAZY_IMPORT_SECONDS:
                    found.append(
                        Finding(
                            "import-in-request",
                            function.source.shown,
                            node.lineno,  # type: ignore[attr-defined]
                            f"{name} is imported by the first request that needs it: {seconds:.2f} s in which the loop "
                            "stands, in every worker.",
                            "Import it at the top of the module.",
                            cost=seconds,
                        )
                    )
    return found
