"""Imports point one way: ground floor, then mechanisms, then hooks, ops and tools. No module needs itself."""

import ast
import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GROUND_FLOOR = ("clock", "errors", "redaction", "settings", "slowing", "in_flight")
MECHANISMS = ("deadline", "insight", "replacements", "waits", "worker")
TOOLS = ("cli", "doctor", "load", "ops", "pytest", "testing", "tune")


def modules_of(package: str) -> dict[str, Path]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in (ROOT / package).rglob("*.py")
    }


def statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run while a module is imported."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from statements(statement.orelse)
        elif not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody"):
                yield from statements(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                yield from statements(handler.body)


def needed_by(name: str, source: str, modules: Iterable[str], *, is_package: bool = False) -> set[str]:
    """The modules among `modules` that `name` needs to be done when it is itself imported."""
    package = name.split(".") if is_package else name.split(".")[:-1]
    found = set()
    for statement in statements(ast.parse(source).body):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            above = package[: len(package) - statement.level + 1] if statement.level else []
            base = ".".join((*above, *filter(None, [statement.module])))
            # A name that is no module is made by the package itself.
            found |= {one if (one := f"{base}.{alias.name}") in modules else base for alias in statement.names}
    return found & set(modules) - {name}


@functools.cache
def graph_of(package: str) -> dict[str, set[str]]:
    modules = modules_of(package)
    return {
        name: needed_by(name, path.read_text(), modules, is_package=path.name == "__init__.py")
        for name, path in modules.items()
    }


def without_free(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The modules that need themselves, and those that need such a module."""
    while free := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in free}
    return graph


def room_of(module: str) -> str:
    return (*module.split("."), "")[1]


@pytest.mark.parametrize("package", ["greenroom", "devdb", "benchmarks"])
def test_there_are_no_import_cycles(package: str) -> None:
    assert without_free(graph_of(package)) == {}


@pytest.mark.parametrize(("rooms", "above"), [(GROUND_FLOOR, (*MECHANISMS, *TOOLS)), (MECHANISMS, TOOLS)])
def test_imports_point_one_way(rooms: tuple[str, ...], above: tuple[str, ...]) -> None:
    wrong = {
        (name, needed)
        for name, all_needed in graph_of("greenroom").items()
        for needed in all_needed
        if room_of(name) in rooms and room_of(needed) in above
    }

    assert wrong == set()


def test_a_cycle_is_seen() -> None:
    sources = {"p.a": "from .b import x", "p.b": "try:\n    from . import c\nfinally:\n    pass", "p.c": "import p.a"}

    assert (
        without_free({name: needed_by(name, source, sources) for name, source in sources.items()}).keys()
        == sources.keys()
    )


def test_an_import_that_waits_until_it_is_called_is_no_cycle() -> None:
    source = "if TYPE_CHECKING:\n    from .b import x\ndef call():\n    from .b import x"

    assert needed_by("p.a", source, ["p.a", "p.b"]) == set()
