"""Run by test_stdlib.py in a process of its own, which is patched; prints what became of each wait.

All cases run at once, each in a greenlet of its own, whose budget ends after BUDGET_SECONDS. Work that goes on after
that has LATER_SECONDS to wait for: longer than the budget, shorter than the grace.
"""

# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

from greenroom.waits import stdlib

stdlib.install()
stdlib.install()

import json

import gevent

from . import afterwards, primitives, sockets  # noqa: F401  they register their cases
from .cases import cases, outcome


def main() -> None:
    running = {name: gevent.spawn(outcome, function) for name, function in cases.items()}
    gevent.joinall(list(running.values()), timeout=20)
    print(
        json.dumps(
            {name: greenlet.value if greenlet.ready() else None for name, greenlet in running.items()}, default=repr
        )
    )


main()
