"""`python -m benchmarks NAME ...`: one program for all benchmarks; without a name it lists them.

Each is a module with a `main()`, so `python -m benchmarks.NAME ...` is the same.
"""

import importlib
import sys
from pathlib import Path

COMMANDS = (
    "run",
    "admission",
    "overload",
    "closed",
    "sqlite",
    "slow",
    "beside",
    "balance",
    "tls",
    "rolling",
    "deadlines",
    "idle",
    "memory",
    "steps",
    "nightly",
    "parsers",
    "generator",
    "scaling",
    "tune",
)


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(listing(), file=sys.stdout if len(sys.argv) < 2 else sys.stderr)
        return 0 if len(sys.argv) < 2 else 2
    name = sys.argv.pop(1)
    return int(importlib.import_module(f"benchmarks.{name}").main() or 0)


def listing() -> str:
    """Each command with the first sentence of its module; nothing is imported for it."""
    lines = ["usage: python -m benchmarks NAME ...", ""]
    for name in COMMANDS:
        first = (Path(__file__).with_name(f"{name}.py").read_text().split('"""')[1]).split("\n", 1)[0]
        lines.append(f"  {name:10} {first.partition(': `')[0].rstrip('.')}")
    return "\n".join([*lines, "", "Options: python -m benchmarks NAME --help"])


if __name__ == "__main__":
    sys.exit(main())
