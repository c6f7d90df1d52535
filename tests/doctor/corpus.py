"""The corpus: small applications, each with what is to be found in it, marked in the text: `# <- rule`.

`clean-*` have nothing. A marker with a question mark is a finding that may be made as well.
"""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
MARKER = re.compile(r"# <- ([\w-]+)(\?)?")
Place = tuple[str, str, int]
NAMES = sorted(folder.name for folder in CORPUS.iterdir() if (folder / "shop.py").is_file())
CLEAN = [name for name in NAMES if name.startswith("clean-")]
PLANTED = [name for name in NAMES if name not in CLEAN]
# Applications whose fault shows only when they run.
ONLY_DRIVEN = ("big-digest", "endless-cache", "heavy-import", "n-plus-one", "password-hash", "python-loop", "regex")


def is_runnable(name: str) -> bool:
    """Whether all that it imports is installed here; what is not can only be read."""
    folder = CORPUS / name
    own = {path.stem for path in folder.rglob("*.py")} | {path.name for path in folder.iterdir()}
    imported = {
        alias.name if isinstance(node, ast.Import) else str(node.module)
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and not node.level)
        for alias in node.names
    }
    return all(find_spec(first) is not None for module in imported if (first := module.partition(".")[0]) not in own)


def planted(name: str) -> set[Place]:
    """(rule, file, line) of all that must be found."""
    return {
        (found[1], str(path.relative_to(CORPUS / name)), number)
        for path in sorted((CORPUS / name).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for found in MARKER.finditer(line)
        if not found[2]
    }


def files(name: str) -> set[str]:
    return {str(path.relative_to(CORPUS / name)) for path in (CORPUS / name).rglob("*")}
