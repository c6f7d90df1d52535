"""Small questions about the text: settings that are given, lines of nodes."""

import ast
from collections.abc import Iterator


def settings_of(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
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


def line_of(node: ast.AST) -> int:
    return int(getattr(node, "lineno", 0))
