"""Small questions about single nodes."""

import ast


def last(dotted: str) -> str:
    return dotted.removesuffix("()").rpartition(".")[2]


def decorator_name(node: ast.expr) -> str:
    return ast.unparse(node.func if isinstance(node, ast.Call) else node)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((one.value for one in call.keywords if one.arg == name), None)


def has_unpacking(call: ast.Call) -> bool:
    return any(one.arg is None for one in call.keywords) or any(isinstance(one, ast.Starred) for one in call.args)


def number(node: ast.expr | None) -> float | None:
    """A literal number; None if it is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    return None


def text(node: ast.AST | None) -> str:
    """A literal string, the beginning of an f-string, or the default in `os.environ.get("X", "...")`; else ""."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        return text(node.values[0])
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return text(node.left)
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.Or):
        return next((found for one in reversed(node.values) if (found := text(one))), "")
    if isinstance(node, ast.Call) and len(node.args) == 2 and last(ast.unparse(node.func)) in ("get", "getenv", "str"):
        return text(node.args[1])
    return ""
