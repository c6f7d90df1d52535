"""Where a function waits, as far as its text says: upstreams, sleeps, programs, databases."""

import ast

from . import known
from .functions import Function
from .names import decorator_name, last
from .project import Project

DEEPEST = 4


def waits_in(
    project: Project, function: Function, within: ast.AST | None = None, after: int = 0, depth: int = 0
) -> list[ast.Call]:
    """The calls of `function` that wait, in order; only those inside of a statement, or behind a line.

    A call of an own function that waits is such a call.
    """
    inside = {id(node) for node in ast.walk(within)} if within is not None else None
    found = []
    for call in function.calls:
        if (inside is not None and id(call) not in inside) or call.lineno <= after:
            continue
        if is_wait(project, function, call) or (
            depth < DEEPEST
            and any(
                target is not function and waits_in(project, target, depth=depth + 1)
                for target in called_functions(project, function, call)
            )
        ):
            found.append(call)
    return sorted(found, key=lambda call: call.lineno)


def is_wait(project: Project, function: Function, call: ast.Call) -> bool:
    name = project.called(call, function.source, function)
    return bool(known.HTTP.fullmatch(name) or known.WAITS.fullmatch(name) or known.DATABASE_WAITS.fullmatch(name))


def called_functions(project: Project, function: Function, call: ast.Call) -> list[Function]:
    node = call.func
    if isinstance(node, ast.Name):
        decorator = function.outer
        while decorator is not None and node.id not in decorator.parameters:
            decorator = decorator.outer
        if decorator is not None and node.id not in function.parameters:
            return decorated_with(project, decorator)
        return list(project._named(node.id, function))
    if isinstance(node, ast.Attribute):
        return list(project._method(node, function))
    return []


def decorated_with(project: Project, decorator: Function) -> list[Function]:
    """Own functions that stand under an own decorator, or under what one is made by (`@limited(3)`)."""
    names = {decorator.name} | ({decorator.outer.name} if decorator.outer is not None else set())
    return [
        one for one in project.functions if any(last(decorator_name(by)) in names for by in one.node.decorator_list)
    ]
