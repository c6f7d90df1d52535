"""An application's environments: its library, what that needs, and this checkout as a wheel."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.matrix.sets import SETS as MATRIX

from .model import Application

ROOT = Path(__file__).resolve().parents[2]
INSTALL_SECONDS = 900
SETS = ("newest", "oldest")


def wheel(folder: Path) -> Path:
    """This checkout, built once for all environments."""
    built = Path(tempfile.mkdtemp(prefix="wheel-", dir=folder))
    pip(Path(sys.executable), "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(ROOT))
    (found,) = built.iterdir()
    return found


def environment(application: Application, versions: str, folder: Path, ours: Path) -> Path:
    """The interpreter of the application's environment, with `ours` (a wheel) as it is now."""
    home = folder / (application.name if versions == "newest" else f"{application.name}.{versions}")
    python = home / "bin" / "python"
    made = home / "made"
    wanted = requirements(application, versions)
    if not made.exists() or made.read_text() != "\n".join(wanted):
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True, timeout=INSTALL_SECONDS)
        pip(python, "install", "--quiet", *wanted, str(ours))
        if application.alone:
            pip(python, "install", "--quiet", "--no-deps", *application.alone)
        made.write_text("\n".join(wanted))
    install(ours, python)
    return python


def install(ours: Path, python: Path) -> None:
    """Put our wheel into an environment, unless this very one is there already."""
    digest, installed = hashlib.sha256(ours.read_bytes()).hexdigest(), python.parents[1] / "ours"
    if not installed.exists() or installed.read_text() != digest:
        pip(python, "install", "--quiet", "--no-deps", "--force-reinstall", str(ours))
        installed.write_text(digest)


def requirements(application: Application, versions: str) -> tuple[str, ...]:
    if versions == "newest":
        return ("flask", "requests", *application.requirements)
    pins = [pin for pin in MATRIX["oldest"].requirements if pin.partition("==")[0] not in application.oldest_without]
    return (*pins, *(application.oldest or application.requirements))


def version(python: Path, application: Application) -> str:
    distribution = (
        (*application.alone, *application.requirements)[0].partition("[")[0].partition("=")[0].partition(">")[0]
    )
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def pip(python: Path, *arguments: str) -> None:
    environ = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run([python, "-m", "pip", *arguments], check=True, timeout=INSTALL_SECONDS, env=environ)
