"""Nothing but the list assigns to names of other packages: seen in the sources, and in a process that is patched."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "greenroom"
# Assignments into a module or class that a name stands for, and are not to the name of another package.
ALLOWED = {
    "greenroom/replacements/registry.py": ("setattr(", "delattr("),  # the one place
    "greenroom/worker/load.py": ("setattr(RequestGreenlet, ",),  # our own class
    "greenroom/on_import.py": ("module.__loader__ =", "module.__spec__.loader ="),  # gives back what was there
    "greenroom/worker/transport/tls.py": ("vars(taken)['_sslobj'] =",),  # an object of its own
    "greenroom/importing.py": ("sys.path[:",),  # a list that everybody adds to
    "greenroom/early_hook.py": ("sys.path[:", "sys.modules["),  # everybody's, too
}


def foreign_names(tree: ast.Module) -> set[str]:
    """Names that stand for something of another package: imported, or an alias of such a name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {(name.asname or name.name).partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and not (node.module or "").startswith("greenroom"):
            found |= {name.asname or name.name for name in node.names}
        elif isinstance(node, ast.arg):
            if node.arg in ("module", "owner") or (node.annotation and ast.unparse(node.annotation) == "ModuleType"):
                found.add(node.arg)
    changed = True
    while changed:
        before = len(found)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Name | ast.Attribute):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                if root(node.value) in found and not is_instance(node.value):
                    found |= {target.id for target in targets if isinstance(target, ast.Name)}
        changed = len(found) > before
    return found


def root(node: ast.expr) -> str:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def is_instance(node: ast.expr) -> bool:
    """`sys.stdout` and the like are objects, whose attributes are theirs."""
    return ast.unparse(node) in ("sys.stdout", "sys.stderr", "os.environ")


def assignments(file: Path) -> Iterator[str]:
    """Each line that assigns to an attribute of something foreign."""
    tree = ast.parse(file.read_text())
    foreign = foreign_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            yield ast.unparse(node)
        targets = node.targets if isinstance(node, ast.Assign | ast.Delete) else []
        if isinstance(node, ast.AugAssign | ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            for each in ast.walk(target):
                is_namespace = isinstance(each, ast.Subscript) and ast.unparse(each.value).startswith("vars(")
                is_attribute = (
                    isinstance(each, ast.Attribute) and not isinstance(each.ctx, ast.Load) and root(each) in foreign
                )
                if is_namespace or is_attribute:
                    yield ast.unparse(node)


# `greenroom doctor` looks at an application in a process of its own, which serves nobody and ends with it.
FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.relative_to(PACKAGE).parts[0] != "doctor")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_else_assigns_to_names_of_other_packages(file: Path) -> None:
    allowed = ALLOWED.get(str(file.relative_to(ROOT)), ())

    assert [line for line in assignments(file) if not line.startswith(allowed)] == []


@pytest.mark.parametrize(
    "code",
    [
        "import os\nos.close = close",
        "import gevent.socket\ngreen: Any = gevent.socket.socket\ngreen._wait = wait",
        "from gevent.hub import Hub\nHub.switch = switch",
        "def install(module):\n    module.name = 1",
        "def install(it: ModuleType):\n    it.name = 1",
        "import os\nsetattr(os, 'close', close)",
        "def install(module):\n    vars(module)['name'] = 1",
        "import os\ndel os.close",
    ],
)
def test_each_way_of_doing_so_is_seen(code: str, tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text(code)

    assert len(list(assignments(file))) == 1


# A function made in greenroom/ and found in a foreign module or class is on the list.
LOOK = """
import json, sys
from types import FunctionType, ModuleType
import greenroom
FOLDER = greenroom.__path__[0]
SKIPPED = ("greenroom", "__main__", "__mp_main__")


def is_ours(value):
    value = value.__func__ if type(value) in (staticmethod, classmethod) else value
    if type(value) is FunctionType:
        return value.__code__.co_filename.startswith(FOLDER)
    return isinstance(value, type) and str(value.__dict__.get("__module__")).startswith("greenroom")


def look(taken=()):
    # Where functions and classes of ours are, without those that modules have imported from where they were put.
    found, seen = set(), set()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in SKIPPED or not isinstance(module, ModuleType):
            continue
        for key, value in list(vars(module).items()):
            if any(value is each for each in taken):
                continue
            if is_ours(value):
                found.add((name, key))
            if isinstance(value, type) and id(value) not in seen and not is_ours(value):
                seen.add(id(value))
                for attribute, item in list(vars(value).items()):
                    if is_ours(item) and not any(item is each for each in taken):
                        found.add((value.__module__ + "." + value.__qualname__, attribute))
    return found
"""
PATCH = """
from greenroom import replacements
from greenroom.replacements import report
from greenroom.replacements.registry import MISSING, path_of
from greenroom.settings import Settings
before = look()
problems = report.patch_all(Settings())
"""
LISTED = """
applied = [each for live in replacements.registry.live.values() for each in live.applied]
unlisted = sorted(look([each.value for each in applied]) - before)
"""


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_that_is_ours_in_a_patched_process_is_on_the_list() -> None:
    found = json.loads(run(LOOK + PATCH + LISTED + "print(json.dumps([unlisted, len(applied), problems]))"))

    unlisted, count, problems = found
    assert (unlisted, problems) == ([], [])
    assert count > 80


def test_undoing_puts_everything_back() -> None:
    left = json.loads(
        run(
            LOOK + PATCH + "before_undo = len(look())\nreplacements.undo()\n"
            "after = [[path_of(each.owner), each.name.name] for live in replacements.registry.live.values()\n"
            "         for each in live.applied]\n"
            "import time, os, socket, requests, sqlite3, sqlalchemy, psycopg2\n"
            "ours = [what for what in (time.sleep, os.close, socket.create_connection, requests.Session.request,\n"
            "                          requests.adapters.HTTPAdapter.send, sqlite3.connect, sqlalchemy.QueuePool,\n"
            "                          psycopg2._connect) if is_ours(what)]\n"
            "print(json.dumps([after, [str(what) for what in ours]]))"
        )
    )

    assert left == [[], []]
