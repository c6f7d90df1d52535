"""The corpus: small applications, each with what is to be found in it, marked in the text: `# <- rule`.

`clean-*` have nothing. A marker with a question mark is a finding that may be made as well.
"""

import re
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
MARKER = re.compile(r"# <- ([\w-]+)(\?)?")
Place = tuple[str, str, int]
NAMES = sorted(folder.name for folder in CORPUS.iterdir() if (folder / "shop.py").is_file())
CLEAN = [name for name in NAMES if name.startswith("clean-")]
PLANTED = [name for name in NAMES if name not in CLEAN]
# Applications whose fault shows only when they run.
ONLY_DRIVEN = ("big-digest", "endless-cache", "heavy-import", "n-plus-one", "password-hash", "python-loop", "regex")


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
