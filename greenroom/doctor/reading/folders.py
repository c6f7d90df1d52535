"""Rules about paths that depend on the folder that the process was started in."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from .functions import Function
from .names import decorator_name, last
from .project import Project
from .sources import Source
from .values import settings_of

FOR_FILES = re.compile(
    r"(?:open|io\.open|os\.(?:makedirs|mkdir|listdir|scandir|remove|unlink|rename|stat)|os\.path\.(?:exists|isfile"
    r"|getsize|getmtime)|shutil\.(?:copy|copyfile|move|rmtree)|sqlite3\.connect|logging\.FileHandler"
    r"|logging\.handlers\.(?:RotatingFileHandler|TimedRotatingFileHandler|WatchedFileHandler)|pathlib\.Path"
    r"|flask\.send_file)"
)
DEEPEST = 12
FOLDER_SETTINGS = re.compile(r".*(?:FOLDER|_DIR|_DIRECTORY|DIRECTORY|_PATH|ROOT)$")
NO_PATH = re.compile(r"[a-z][a-z0-9+.-]*:|<|/|~|$|\\|:memory:|%|\{", re.IGNORECASE)


def find(project: Project) -> Iterator[Finding]:
    for source, function, call, name in project.all_calls():
        if not FOR_FILES.fullmatch(name) or not call.args:
            continue
        if name == "pathlib.Path" and not _is_used_as_folder(source, call):
            continue
        if function is not None and function not in project.in_request and _is_command(function):
            continue
        path = _literal_path(project, call.args[0], source, function)
        if path and not NO_PATH.match(path):
            yield _relative(source.shown, call.lineno, path)
    for source in project.sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                continue
            for key, value in settings_of(node):
                if not FOLDER_SETTINGS.match(key) or not isinstance(value, ast.Constant):
                    continue
                if isinstance(value.value, str) and value.value and not NO_PATH.match(value.value):
                    if key in ("STATIC_ROOT", "APPLICATION_ROOT") or "/" not in value.value and "." in value.value:
                        continue
                    if value.value.lower() != key.lower() and not _is_joined(source, key):
                        yield _relative(source.shown, value.lineno, value.value)


def _is_joined(source: Source, name: str) -> bool:
    """Whether the folder is the later part of a path: `join(base, NAME)`, `base / NAME`."""
    for node in ast.walk(source.tree):
        parts: list[ast.expr] = []
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        elif isinstance(node, ast.Call) and last(ast.unparse(node.func)) in ("join", "joinpath", "safe_join"):
            parts = node.args[1:] if last(ast.unparse(node.func)) != "joinpath" else node.args
        if any(isinstance(part, ast.Name | ast.Attribute) and last(ast.unparse(part)) == name for part in parts):
            return True
    return False


def _is_command(function: Function) -> bool:
    return any(
        decorator_name(one).rpartition(".")[2] in ("command", "task", "shared_task", "fixture")
        for one in function.node.decorator_list
    )


FILE_METHODS = frozenset(
    "open read_text write_text read_bytes write_bytes mkdir exists iterdir glob rglob unlink touch rename is_file"
    " is_dir stat".split()
)


def _is_used_as_folder(source: Source, call: ast.Call) -> bool:
    """Whether `Path("x")`, or what it is assigned to, is used as it is: opened, made, listed."""
    names = {
        target.id
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Assign) and any(inner is call for inner in ast.walk(node.value))
        if not any(
            isinstance(inner, ast.Attribute) and inner.attr in ("resolve", "absolute", "expanduser")
            for inner in ast.walk(node.value)
        )
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(source.tree):
        if isinstance(node, ast.BinOp) and node.right is call:
            return False
    for node in ast.walk(source.tree):
        used: list[ast.expr] = []
        if isinstance(node, ast.Attribute) and node.attr in FILE_METHODS:
            used = [node.value]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            used = node.args[:1]
        for one in used:
            for inner in ast.walk(one):
                if inner is call or (isinstance(inner, ast.Name) and inner.id in names):
                    return True
    return False


def _literal_path(project: Project, node: ast.expr, source: Source, function: Function | None, depth: int = 0) -> str:
    if depth > DEEPEST:
        return ""  # `path = join(path, name)` leads to itself
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr) and node.values:
        first = node.values[0]
        inner = first.value if isinstance(first, ast.FormattedValue) else first
        return _literal_path(project, inner, source, function, depth + 1)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _literal_path(project, node.left, source, function, depth + 1)
    if isinstance(node, ast.Call) and project.dotted(node.func, source, None) == "os.path.join" and node.args:
        return _literal_path(project, node.args[0], source, function, depth + 1)
    if isinstance(node, ast.Name):
        binding = project.lookup(node.id, source, function)
        if binding is not None and not isinstance(binding.value, ast.Name):
            return _literal_path(project, binding.value, binding.source, binding.function, depth + 1)
    return ""


def _relative(file: str, line: int, path: str) -> Finding:
    return Finding(
        "relative-path",
        file,
        line,
        f"'{path[:60]}' is relative to the working directory, which is another one under systemd, in a container or in "
        "cron.",
        "Build it from `Path(__file__).parent`, `app.root_path` or `app.instance_path`.",
    )
