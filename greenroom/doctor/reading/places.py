"""Files as findings name them: relative to the working directory where they are below it."""

from pathlib import Path


def shown_of(path: str, folder: Path | None = None) -> str:
    try:
        return str(Path(path).resolve().relative_to((folder or Path.cwd()).resolve()))
    except ValueError:
        return path
