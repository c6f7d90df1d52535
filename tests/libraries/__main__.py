"""`python -m tests.libraries [NAME ...]`: exit status 1 where a test fails in a patched process only.

LIBRARIES_FOLDER names the folder for the environment, the sources and the reports, which are used again.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.adoption.environments import install, pip, wheel
from tests.adoption.serving import redis

from . import table
from .catalogue import ASYNCIO, LIBRARIES, Library
from .outcomes import not_allowed, read, worse

RUN_SECONDS = 900
# Flask's own tests take a name from it that 9 no longer has.
PYTEST = "pytest<9"
TEST_SECONDS = 120
PLUGINS = Path(__file__).with_name("plugins")
PLAIN: tuple[str, ...] = ()
PATCHED = ("-p", "greenroom.pytest")


def environment(folder: Path) -> Path:
    """The interpreter of an environment with all of the libraries and this checkout."""
    python = folder / "env" / "bin" / "python"
    needed = {need for library in LIBRARIES for need in library.requirements}
    alone = sorted(each for library in LIBRARIES for each in library.alone)
    ours = wheel(folder)
    wanted = "\n".join(sorted({*needed, PYTEST, "pytest-timeout"}))
    made = folder / "env" / "made"
    if not made.exists() or made.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / "env"], check=True, timeout=RUN_SECONDS)
        pip(python, "install", "--quiet", *wanted.split("\n"), f"{ours}[test]")
        pip(python, "install", "--quiet", "--no-deps", *alone)
        made.write_text(wanted)
    install(ours, python)
    return python


def source(library: Library, python: Path, folder: Path) -> Path:
    """The library's source distribution at the installed version, unpacked."""
    code = f"from importlib.metadata import version; print(version({library.distribution!r}))"
    version = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    target = folder / "sources" / f"{library.distribution}-{version}"
    if not target.exists():
        with tempfile.TemporaryDirectory() as downloads, tempfile.TemporaryDirectory(dir=folder) as unpacked:
            wanted = f"{library.distribution}=={version}"
            pip(python, "download", "--quiet", "--no-binary", ":all:", "--no-deps", "--dest", downloads, wanted)
            (archive,) = Path(downloads).iterdir()
            with tarfile.open(archive) as file:
                file.extractall(unpacked, filter="data")
            (root,) = Path(unpacked).iterdir()
            target.parent.mkdir(exist_ok=True)
            root.rename(target)
    return target


def run(library: Library, python: Path, root: Path, report: Path, options: tuple[str, ...]) -> None:
    report.unlink(missing_ok=True)
    command = [str(python), "-m", "pytest", *options, "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout"]
    command += [word for plugin in library.plugins for word in ("-p", plugin)]
    command += ["-o", "asyncio_default_fixture_loop_scope=function"] if ASYNCIO in library.plugins else []
    # A file that can't be imported, for want of what is only in the library's repository, is a difference or none.
    command += ["--continue-on-collection-errors", f"--junitxml={report}", f"--timeout={TEST_SECONDS}", *library.tests]
    environ = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(PLUGINS)}
    environ["PATH"] = os.pathsep.join([str(python.parent), environ.get("PATH", "")])  # commands of the environment's
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(report.with_suffix(".log").open("wb"))
        # What one run leaves in there, a kombu's message, is not found by the other.
        environ["TMPDIR"] = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        if any("{redis}" in option for option in library.options):
            url = redis(stack, environ["TMPDIR"])
            command += [option.replace("{redis}", url) for option in library.options]
        else:
            command += library.options
        try:
            subprocess.run(
                command, cwd=root, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=RUN_SECONDS
            )
        except subprocess.TimeoutExpired:
            log.write(b"\nended: it took too long\n")


def compare(library: Library, python: Path, folder: Path) -> bool:
    """Whether the patched run is as good as the plain one."""
    root = source(library, python, folder)
    reports = table.reports(folder, library)
    for report, options in zip(reports, (PLAIN, PATCHED), strict=True):
        run(library, python, root, report, options)
    plain, patched = map(read, reports)
    if plain and not patched:
        print(f"{root.name}: the patched run did not come to its end, see {reports[1].with_suffix('.log')}", flush=True)
        return False
    failing = worse(plain, patched)
    left = not_allowed(library.distribution, failing)
    counts = [sum(not outcome.is_bad for outcome in way.values()) for way in (plain, patched)]
    print(
        f"{root.name}: {len(plain)} tests, {counts[0]} well in a plain process, {counts[1]} in a patched one; "
        f"{len(failing)} worse, {len(failing) - len(left)} of them allowed",
        flush=True,
    )
    for name, why in left.items():
        print(f"    {name}: {why}")
    if not plain or not counts[0]:
        print(f"    nothing was compared, see {reports[0].with_suffix('.log')}")
        return False
    return not left


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.libraries", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[[], *(each.distribution for each in LIBRARIES)])
    names = parser.parse_args().names
    folder = Path(os.environ.get("LIBRARIES_FOLDER") or tempfile.mkdtemp(prefix="libraries-")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python = environment(folder)
    chosen = [each for each in LIBRARIES if not names or each.distribution in names]
    is_well = all([compare(library, python, folder) for library in chosen])
    table.write(folder)
    return 0 if is_well else 1


if __name__ == "__main__":
    sys.exit(main())
