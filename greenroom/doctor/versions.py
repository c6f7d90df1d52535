"""Versions of packages that Greenroom replaces parts of, and that nobody has tested with it."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from .findings import Finding
from .reading.places import shown_of


def untested(doubts: Sequence[tuple[str, str, bool]], folder: Path) -> Iterator[Finding]:
    """`doubts` has a package, the registry's sentence, and whether nothing works without that package."""
    for package, sentence, is_required in doubts:
        yield Finding(
            "untested-version",
            *named_in(package, folder),
            f"{sentence[:1].upper()}{sentence[1:]}.",
            "Nothing, if what Greenroom leaves out then is not missed: `greenroom patched` names it."
            if "has been replaced by" in sentence
            else "A version that is tested; `greenroom patched` lists them.",
            level="warning" if is_required else "note",
        )


def named_in(package: str, folder: Path) -> tuple[str, int]:
    """The file and line that ask for a package; its name where none does."""
    wanted = re.compile(rf"[\s\"']*{re.escape(package)}\b(?![-.\w])", re.IGNORECASE)
    for path in [*sorted(folder.glob("requirements*.txt")), folder / "pyproject.toml", folder / "Pipfile"]:
        if path.is_file():
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                if wanted.match(line):
                    return shown_of(str(path), folder), number
    return package, 0
