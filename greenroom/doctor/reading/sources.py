"""The application's own files, found by following its imports from the module that is served. Nothing is imported."""

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

LONGEST_FILE = 2_000_000
DEEPEST_TREE = 300
MOST_FILES = 2000
NOT_OWN = ("site-packages", "node_modules", "__pycache__", ".git", ".tox", ".nox")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Source:
    """One file. `imports` has what its import statements bind, anywhere in it: local name -> dotted name."""

    path: Path
    shown: str
    module: str
    is_package: bool
    tree: ast.Module
    imports: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    name = alias.name if alias.asname else alias.name.partition(".")[0]
                    self.imports[alias.asname or name] = name
            elif isinstance(node, ast.ImportFrom):
                base = self.absolute(node)
                for alias in node.names:
                    self.imports[alias.asname or alias.name] = f"{base}.{alias.name}" if base else alias.name

    def absolute(self, node: ast.ImportFrom) -> str:
        """The module that `from ... import` names."""
        if not node.level:
            return node.module or ""
        parts = self.module.split(".")
        parts = parts[: len(parts) - node.level + (1 if self.is_package else 0)]
        return ".".join([*parts, *([node.module] if node.module else [])])

    def import_lines(self) -> Iterator[tuple[str, int, ast.stmt]]:
        """Each imported module: its dotted name, the line, the statement."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield alias.name, node.lineno, node
            elif isinstance(node, ast.ImportFrom):
                base = self.absolute(node)
                yield base, node.lineno, node
                for alias in node.names:
                    yield f"{base}.{alias.name}", node.lineno, node


class Sources:
    """All files that were found, by module; `problems` says what could not be read."""

    def __init__(self, root: Path, search: Iterable[Path], working_directory: Path) -> None:
        self.root = root
        self.search = [*dict.fromkeys([root, *search])]
        self.working_directory = working_directory
        self.by_module: dict[str, Source] = {}
        self.problems: list[str] = []
        self._seen: set[Path] = set()
        self._entry = ""
        self._installed: dict[Path, frozenset[str]] = {}

    def __iter__(self) -> Iterator[Source]:
        return iter(list(self.by_module.values()))

    def follow(self, module: str) -> None:
        """Read `module`, the packages that it is in, and all own modules that they import, anywhere in them."""
        self._entry = self._entry or module.partition(".")[0]
        waiting = [module]
        while waiting and len(self.by_module) < MOST_FILES:
            name = waiting.pop()
            parts = name.split(".")
            for count in range(1, len(parts) + 1):
                source = self.read_module(".".join(parts[:count]))
                if source is not None:
                    waiting += [imported for imported, _, _ in source.import_lines() if imported]

    def read_module(self, name: str) -> Source | None:
        """The module's source if it is own and was not read before."""
        if name in self.by_module:
            return None
        path = self.find(name)
        return self.read(path, name) if path is not None else None

    def find(self, name: str) -> Path | None:
        if not all(part.isidentifier() for part in name.split(".")):
            return None
        first = name.partition(".")[0]
        for folder in self.search:
            if first != self._entry and first in self._installed_in(folder):
                return None
            base = folder.joinpath(*name.split("."))
            for path in (base / "__init__.py", base.with_suffix(".py")):
                if path.is_file() and not is_foreign(path):
                    return path
        return None

    def read_imported(self, path: Path, module: str) -> Source | None:
        """Read a file that the import has loaded, unless pip has installed it there."""
        parts = module.split(".")
        up = len(parts) - (0 if path.name == "__init__.py" else 1)
        folders = path.resolve().parents
        folder = folders[min(up, len(folders) - 1)]  # a module may say that it is a file of any depth
        if parts[0] != self._entry and parts[0] in self._installed_in(folder):
            return None
        return self.read(path, module)

    def _installed_in(self, folder: Path) -> frozenset[str]:
        """Names that pip has put into a folder of no environment (`pip install --target`), and so are not own."""
        if folder not in self._installed:
            self._installed[folder] = frozenset(installed_names(folder))
        return self._installed[folder]

    def read(self, path: Path, module: str = "") -> Source | None:
        path = path.resolve()
        if path in self._seen:
            return None
        self._seen.add(path)
        try:
            if path.stat().st_size > LONGEST_FILE:
                self.problems.append(f"{self.shown(path)} is larger than {LONGEST_FILE:,} bytes and was not read")
                return None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes are the application's own affair
                tree = ast.parse(path.read_bytes(), str(path))
        except (OSError, SyntaxError, ValueError, RecursionError) as exc:
            self.problems.append(f"{self.shown(path)} can't be read: {type(exc).__name__}")
            return None
        if is_deeper(tree, DEEPEST_TREE):
            self.problems.append(f"{self.shown(path)} nests deeper than {DEEPEST_TREE} levels and was not read")
            return None
        name = module or self._module_of(path)
        source = Source(path, self.shown(path), name, path.name == "__init__.py", tree)
        self.by_module[name] = source
        return source

    def shown(self, path: Path) -> str:
        try:
            return str(path.relative_to(self.working_directory))
        except ValueError:
            return str(path)

    def _module_of(self, path: Path) -> str:
        for folder in self.search:
            if path.is_relative_to(folder):
                parts = list(path.relative_to(folder).with_suffix("").parts)
                return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        return path.stem


def is_deeper(tree: ast.AST, most: int) -> bool:
    """Whether the tree has more levels: a sum of 500 texts has as many, and the rules walk down with recursion."""
    level = [tree]
    for _ in range(most):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def installed_names(folder: Path) -> Iterator[str]:
    """Return the modules and packages that the records of `*.dist-info` in a folder list."""
    for record in folder.glob("*.dist-info/RECORD"):
        try:
            lines = record.read_text(errors="replace").splitlines()
        except OSError:
            continue  # somebody else's folder: then its packages are read, and are slower to read
        for line in lines:
            first, separator, _ = line.partition(",")[0].partition("/")
            if separator and first.isidentifier():
                yield first
            elif not separator and first.endswith(".py"):
                yield first.removesuffix(".py")


def is_foreign(path: Path) -> bool:
    """Whether a file lies in an environment or a cache, as deep as it may be."""
    return any(part in NOT_OWN for part in path.parts) or any(
        (parent / "pyvenv.cfg").is_file() for parent in path.parents
    )
