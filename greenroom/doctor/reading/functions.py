"""The functions and methods of a project, and the values that names are bound to."""

import ast
from dataclasses import dataclass, field
from functools import cached_property

from .sources import FunctionNode, Source


@dataclass(eq=False)
class Function:
    """A function or method. `outer` is the function that it is defined in, `owner` its class."""

    source: Source
    node: FunctionNode
    name: str
    owner: ast.ClassDef | None
    outer: "Function | None"
    calls: list[ast.Call] = field(default_factory=list)
    nodes: list[ast.AST] = field(default_factory=list)
    local_values: dict[str, ast.expr] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)

    @cached_property
    def parameters(self) -> set[str]:
        arguments = self.node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
        return {argument.arg for argument in every}

    @property
    def is_async(self) -> bool:
        return isinstance(self.node, ast.AsyncFunctionDef)


@dataclass(frozen=True)
class Binding:
    """One assignment of a name, in `function` (None: at module level). `owner`: it is an attribute of a class."""

    source: Source
    function: Function | None
    name: str
    value: ast.expr
    line: int
    owner: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.source.module, self.owner or (self.function.name if self.function else ""), self.name)


def owner_of(function: Function | None) -> ast.ClassDef | None:
    while function is not None:
        if function.owner is not None:
            return function.owner
        function = function.outer
    return None
