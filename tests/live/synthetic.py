"""Starting the server of known behaviour, tests/live/apps/synthetic.py."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parent / "apps" / "synthetic.py"


@contextmanager
def synthetic(*arguments: str) -> Iterator[str]:
    """The host and port of one that runs until the end of the block."""
    server = subprocess.Popen([sys.executable, str(PROGRAM), *arguments], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield f"127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


def has_ended_as(expected: int, code: int, said: dict[str, Any]) -> bool:
    """Whether a run has ended with this exit code.

    On a busy machine the generator itself may be late, and says so. Then it ends with 3, for that reason alone.
    """
    if said["valid"]:
        return code == expected
    return code == 3 and all("other programs took the CPU" in problem for problem in said["problems"])
