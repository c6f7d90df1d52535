"""Has a request of ours become dearer since the result that is kept: `python -m benchmarks nightly [--accept]`.

Two looks: the steps of a request (see steps), which are the same on a busy machine; and its CPU time beside the stock
worker's in the same run (see against), which sees what steps don't, C code and memory. The first result is kept,
outside of the repository, since it is of this machine. What is dearer fails until it is accepted.
"""

import argparse
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from . import run, steps
from .measuring import EXIT_FAILED, ending

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
RUN = ("--routes", "hello,dict", "--peers", "gevent,greenroom", "--rounds", "3", "--seconds", "2", "--clients", "64")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks nightly", description=(__doc__ or "").partition("\n")[0]
    )
    default = CACHE / "greenroom" / "benchmarks"
    parser.add_argument("--keep", type=Path, default=default, help=f"folder of the results (default: {default})")
    parser.add_argument(
        "--accept", action="store_true", help="keep this result, whatever it is, for the nights to come"
    )
    options = parser.parse_args()
    new = options.keep / "new"

    def count(last: Path | None) -> int:
        return ending(lambda: steps.measure(last, new / "steps.json"))

    def time(last: Path | None) -> int:
        return run.main([*RUN, "--output", str(new), *(("--against", str(last)) if last is not None else ())])

    codes = [
        looked(count, new / "steps.json", options.keep / "steps.json", accepts=options.accept),
        looked(time, new / "run.json", options.keep / "run.json", accepts=options.accept),
    ]
    return EXIT_FAILED if any(codes) else 0


def looked(look: Callable[[Path | None], int], new: Path, kept: Path, *, accepts: bool) -> int:
    """Look, beside the kept result if there is one, and keep the new one if there is none. The exit code."""
    new.unlink(missing_ok=True)
    code = look(kept if kept.exists() and not accepts else None)
    if code == 0 and (accepts or not kept.exists()):
        shutil.copyfile(new, kept)
        print(f"kept for the next nights: {kept}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
