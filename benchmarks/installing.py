"""The peers' own environment: made, and filled with what benchmarks/requirements.txt names."""

import subprocess
import sys
import tempfile
from pathlib import Path

from .machine import ROOT
from .peers import VENV
from .servers import ServerFailed, clean_environment

REQUIREMENTS = ROOT / "benchmarks" / "requirements.txt"
NEEDS_COMPILER = "uWSGI"


def install_peers(venv: Path = VENV, requirements: Path = REQUIREMENTS) -> None:
    """Raises ServerFailed, with pip's own words, where it can't be done."""
    if not (venv / "bin" / "python").exists():
        _run([sys.executable, "-m", "venv", str(venv)])
    try:
        _install(venv, requirements)
    except ServerFailed as exc:
        print(f"{exc}\nOnce more without {NEEDS_COMPILER}, which needs a C compiler.", file=sys.stderr)
        lines = [line for line in requirements.read_text().splitlines() if not line.startswith(NEEDS_COMPILER)]
        # Beside the other one: it names a file by a path that begins there.
        with tempfile.NamedTemporaryFile("w", suffix=".txt", dir=requirements.parent) as without:
            without.write("\n".join(lines) + "\n")
            without.flush()
            _install(venv, Path(without.name))


def _install(venv: Path, requirements: Path) -> None:
    _run([str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)])


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, env=clean_environment(), check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        said = str(getattr(exc, "stderr", "") or exc).strip().splitlines()
        raise ServerFailed(f"the other servers can't be installed: {said[-1] if said else exc}") from exc
