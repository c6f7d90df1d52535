"""The promise that `app/` is plain blocking code, kept by a machine."""

import ast
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2] / "app"
FORBIDDEN_PACKAGES = {"gevent", "greenlet", "greenroom", "asyncio"}
ASYNC_SYNTAX = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
MODULES = sorted(APP.rglob("*.py"))


def broken_promises(source: str) -> list[str]:
    """`line N: what` for each import of a forbidden package and each piece of async syntax, in any nesting."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = ast.unparse(node.func).rpartition(".")[2]
            names = [str(node.args[0].value)] if called in ("import_module", "__import__", "find_spec") else []
        elif isinstance(node, ASYNC_SYNTAX) or (isinstance(node, ast.comprehension) and node.is_async):
            found.append(f"line {getattr(node, 'lineno', '?')}: {type(node).__name__}")
        found += [f"line {node.lineno}: {name}" for name in names if name.partition(".")[0] in FORBIDDEN_PACKAGES]
    return found


def test_there_is_something_to_read() -> None:
    assert APP / "__init__.py" in MODULES
    assert len(MODULES) > 20


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(APP)))
def test_app_is_plain_blocking_code(path: Path) -> None:
    assert broken_promises(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import gevent",
        "import gevent.monkey as m",
        "from gevent import sleep",
        "from greenlet import greenlet",
        "def view():\n    from greenroom.deadline import current",
        "import importlib\nimportlib.import_module('gevent.pool')",
        "async def view(): ...",
        "async def f():\n    await g()",
        "async def f():\n    async for x in y: ...",
        "async def f():\n    async with x: ...",
        "async def f():\n    return [x async for x in y]",
        "import asyncio",
    ],
)
def test_reader_finds_each_way_to_break_the_promise(source: str) -> None:
    assert broken_promises(source) != []


def test_reader_lets_plain_code_pass() -> None:
    assert broken_promises("from . import greenroom_words\nimport threading\ngevent = 'a word'\n") == []


def imports_of(path: Path) -> set[str]:
    """The modules of `app` that a module needs to be done when it is itself imported."""
    parts = tuple(name_of(path).split("."))
    package = parts if path.name == "__init__.py" else parts[:-1]
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join((*package[: len(package) - node.level + 1], *filter(None, [node.module])))
            # A name that is no module is made by the package itself.
            found |= {module if (module := f"{base}.{alias.name}") in NAMES else base for alias in node.names}
    return found


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(APP.parent).with_suffix("").parts).removesuffix(".__init__")


NAMES = {name_of(path): path for path in MODULES}


def test_there_are_no_import_cycles() -> None:
    graph = {name: imports_of(path) for name, path in NAMES.items()}
    while free := {name for name, needed in graph.items() if not needed & graph.keys()}:
        graph = {name: needed for name, needed in graph.items() if name not in free}

    assert graph == {}
