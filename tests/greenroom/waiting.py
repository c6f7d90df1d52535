"""Records of requests, and waits that end with them."""

from collections.abc import Callable
from typing import Any

import gevent

from greenroom.errors import BudgetSpent
from greenroom.in_flight import OWN, Wait

SHORT_SECONDS = 0.05
NEVER_SECONDS = 60.0


def sleep(seconds: float, ends: int = OWN) -> None:
    with Wait("sleep", "", ends):
        gevent.sleep(seconds)


def ended(function: Callable[[], Any]) -> Any:
    """Return the result of a call, or BudgetSpent where it raises that."""
    try:
        return function()
    except BudgetSpent:
        return BudgetSpent
