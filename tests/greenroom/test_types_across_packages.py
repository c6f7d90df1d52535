"""What one package of Greenroom gives to another has a type: no `Any` in it.

A package is a folder of modules; one within another is a package of its own. What no other package imports may have an
`Any`: a C function's argument, say, or an object of a library without types.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Place and reason. Nothing so far: an object of a library without types gets a Protocol, see gunicorns_parts.
ALLOWED: dict[str, str] = {}


def sources() -> dict[str, tuple[str, bool]]:
    """Each module's source, and whether it is a package."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): (
            path.read_text(encoding="utf-8"),
            path.name == "__init__.py",
        )
        for path in (ROOT / "greenroom").rglob("*.py")
    }


def package_of(module: str, modules: Iterable[str]) -> str:
    """`greenroom.waits.http` of `greenroom.waits.http.pool`; a module right under `greenroom` is of no package."""
    above = module if any(one.startswith(module + ".") for one in modules) else module.rpartition(".")[0]
    return above if "." in above else ""


def used_elsewhere(trees: dict[str, ast.Module], packages: set[str]) -> set[tuple[str, str]]:
    """(module, name) of all that a module of another package imports, or takes from the module."""
    of = {module: package_of(module, trees) for module in trees}
    found = set()
    for module, tree in trees.items():
        here = module.split(".") if module in packages else module.split(".")[:-1]
        imported: dict[str, str] = {}
        nodes = [one for one in ast.walk(tree) if isinstance(one, ast.Import | ast.ImportFrom | ast.Attribute)]
        for node in nodes:
            if isinstance(node, ast.ImportFrom):
                above = here[: len(here) - node.level + 1] if node.level else []
                base = ".".join((*above, *filter(None, [node.module])))
                for alias in node.names:
                    if (whole := f"{base}.{alias.name}") in trees:
                        imported[alias.asname or alias.name] = whole
                    elif base in trees and of[base] != of[module]:
                        found.add((base, alias.name))
            elif isinstance(node, ast.Import):
                imported |= {alias.asname or alias.name: alias.name for alias in node.names if alias.name in trees}
        for node in nodes:
            if isinstance(node, ast.Attribute):
                owner = imported.get(dotted(node.value))
                if owner is not None and of[owner] != of[module]:
                    found.add((owner, node.attr))
    return found


def dotted(node: ast.expr) -> str:
    """`a.b` of a name or an attribute; "" of anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def has_any(annotation: ast.expr | None) -> bool:
    if annotation is None:
        return False
    names = {dotted(node) for node in ast.walk(annotation) if isinstance(node, ast.Name | ast.Attribute)}
    quoted = [node.value for node in ast.walk(annotation) if isinstance(node, ast.Constant)]
    return bool(names & {"Any", "typing.Any"}) or any(isinstance(one, str) and "Any" in one for one in quoted)


def annotations(statement: ast.stmt) -> list[ast.expr | None]:
    if isinstance(statement, ast.AnnAssign):
        return [statement.annotation]
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        return []
    its = statement.args
    arguments = [*its.posonlyargs, *its.args, *its.kwonlyargs, *filter(None, [its.vararg, its.kwarg])]
    return [statement.returns, *(one.annotation for one in arguments)]


def public(statement: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    """A function, a variable with a type, or a class's methods and attributes; without private names."""
    if isinstance(statement, ast.ClassDef):
        for inner in statement.body:
            for name, one in public(inner):
                yield f"{statement.name}.{name}", one
        return
    target = statement.target if isinstance(statement, ast.AnnAssign) else None
    name = target.id if isinstance(target, ast.Name) else getattr(statement, "name", "_")
    if not name.startswith("_") or name == "__init__":
        yield name, statement


def untyped(texts: dict[str, tuple[str, bool]]) -> set[str]:
    """`module:name` of what is used by another package and has an `Any`."""
    trees = {module: ast.parse(text) for module, (text, _) in texts.items()}
    wanted = defaultdict(set)
    for module, name in used_elsewhere(trees, {module for module, (_, is_package) in texts.items() if is_package}):
        wanted[module].add(name)
    return {
        f"{module}:{name}"
        for module, names in wanted.items()
        for statement in trees[module].body
        for name, one in public(statement)
        if name.partition(".")[0] in names and any(map(has_any, annotations(one)))
    }


def test_no_any_crosses_a_package() -> None:
    assert untyped(sources()) == set(ALLOWED)


@pytest.mark.parametrize(
    "text",
    [
        "def take(one: Any) -> None: ...",
        "def take(*more: 'list[Any]') -> None: ...",
        "class take:\n    def look(self) -> dict[str, typing.Any]: ...",
        "take: Callable[[Any], int] = len",
    ],
)
@pytest.mark.parametrize(
    "user", ["from ..a.one import take", "from ..a import one\none.take", "import p.a.one\np.a.one.take"]
)
def test_an_any_that_crosses_is_seen(text: str, user: str) -> None:
    texts = {"p": ("", True), "p.a": ("", True), "p.a.one": (text, False), "p.b": ("", True), "p.b.two": (user, False)}

    assert [found.partition(".")[0] for found in untyped(texts)] == ["p"]
    assert untyped({**texts, "p.b.two": ("", False), "p.a.three": (user, False)}) == set()
