"""Environments with the wheel of this checkout and a set of versions."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live.conftest import ROOT, clean_environment

from .sets import Set

INSTALL_SECONDS = 900
QUIETLY = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


def run(*command: str, cwd: Path) -> str:
    """What it prints. Nothing of this checkout is found by its path."""
    environ = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_of(version: str) -> str:
    """An interpreter of this version: this one, one on the PATH, or one of pyenv's."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        names = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout.split()
        for name in names:
            if name.startswith(f"{version}."):
                folder = subprocess.run(["pyenv", "prefix", name], capture_output=True, text=True).stdout.strip()
                candidates.append(f"{folder}/bin/python")
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    pytest.fail(f"no Python {version} is on the PATH, and pyenv has none: install one for the matrix")


def make_wheel(folder: Path) -> Path:
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT), cwd=folder)
    return next(folder.glob("*.whl"))


def make_environment(versions: Set, wheel: Path, temporary: Path) -> Path:
    """The interpreter of the set's environment. pip resolves the application's versions and our ranges together."""
    parent = Path(os.environ.get("MATRIX_FOLDER") or temporary)
    home = parent / versions.environment.replace(" ", "-")
    python = home / "bin" / "python"
    wanted = "\n".join((versions.python, *versions.requirements))
    made = home / "made-of.txt"
    if not made.exists() or made.read_text() != wanted:
        run(python_of(versions.python), "-m", "venv", "--clear", str(home), cwd=parent)
        run(str(python), *QUIETLY, str(wheel), f"gunicorn=={versions.gunicorn}", *versions.requirements, cwd=parent)
        made.write_text(wanted)
    else:
        run(str(python), *QUIETLY, "--no-deps", "--force-reinstall", str(wheel), cwd=parent)
        run(str(python), *QUIETLY, f"gunicorn=={versions.gunicorn}", cwd=parent)
    run(str(python), "-m", "pip", "check", cwd=parent)
    return python
