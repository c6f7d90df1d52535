"""`greenroom load --find-capacity` on servers with a capacity that is known: `python -m benchmarks capacity`.

    python -m benchmarks capacity [--kinds slots,refusing,limited,slowing] [--for 5s]

Each has to be found within 5 %. `benchmarks/known.py` says what each is.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .servers import ROOT, upstream_running

WITHIN = 0.05
ERRORS = 0.01  # that find-capacity lets pass


@dataclass(frozen=True)
class Case:
    expect: str
    per_second: float


CASES = {
    "slots": Case("p99<200ms", 200.0),
    "refusing": Case("p99<200ms", 250.0 / (1 - ERRORS)),
    "limited": Case("p99<200ms", 300.0 / (1 - ERRORS)),
    "slowing": Case("p99<170ms", 180.0),
}


def found(kind: str, length: str) -> tuple[float, float | None]:
    """The capacity that the command says, and the lowest rate above it that did not hold."""
    with tempfile.TemporaryDirectory() as folder, upstream_running("benchmarks.known", kind) as url:
        said = Path(folder) / "said.json"
        command = [sys.executable, "-m", "greenroom", "load", url + "/", "--find-capacity", "--for", length]
        command += ["--expect", CASES[kind].expect, "--json", str(said)]
        subprocess.run(command, cwd=ROOT, check=False, stdout=subprocess.DEVNULL)
        document = json.loads(said.read_text())
    _, above = document["capacity"]["between"]
    return float(document["capacity_per_second"] or 0.0), above


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(CASES))
    parser.add_argument("--for", dest="length", default="5s")
    options = parser.parse_args()
    chosen = options.kinds.split(",")
    if unknown := [name for name in chosen if name not in CASES]:
        parser.error(f"there is no server {unknown[0]}: {', '.join(CASES)}")
    missed = 0
    for kind in chosen:
        capacity, above = found(kind, options.length)
        known = CASES[kind].per_second
        off = capacity / known - 1
        missed += abs(off) > WITHIN
        print(f"{kind:10} known {known:7.4g}/s  found {capacity:7.4g}/s (not {above}/s)  {off:+.1%}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
