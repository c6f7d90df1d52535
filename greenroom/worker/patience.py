"""How long a body may keep its request waiting: a time that is used up by waiting and earned by bytes that come."""

from typing import Any

from gevent import get_hub
from gevent.hub import Waiter

from .. import clock
from ..errors import BudgetSpent
from ..in_flight import OWN, Wait
from .client_errors import BodyTooSlow

# A body has to come at this rate, over what body_timeout_seconds forgives: a byte now and then is no progress.
SLOWEST_BODY_BYTES_PER_SECOND = 500
TOO_SLOW = "the rest of the body did not come in time"


class Patience:
    """`most_seconds` at first, and never more."""

    __slots__ = ("left_seconds", "most_seconds")

    def __init__(self, most_seconds: float) -> None:
        self.most_seconds = self.left_seconds = most_seconds

    def begin(self) -> None:
        self.left_seconds = self.most_seconds

    def came(self, size: int) -> None:
        self.left_seconds = min(self.most_seconds, self.left_seconds + size / SLOWEST_BODY_BYTES_PER_SECOND)

    def wait(self, waiter: "Waiter[object]") -> object:
        """Return the value that `waiter`, a gevent Waiter, is switched to with. Raises BodyTooSlow.

        Runs on: request greenlet; switches.
        """
        began = clock.now()
        timer: Any = get_hub().loop.timer(self.left_seconds)
        timer.start(waiter.throw, BodyTooSlow(TOO_SLOW))
        try:
            with Wait("client", "body", OWN):
                return waiter.get()
        except BudgetSpent as exc:
            raise BodyTooSlow(f"{TOO_SLOW}: {exc}") from exc
        finally:
            timer.stop()
            timer.close()
            self.left_seconds = max(0.0, self.left_seconds - (clock.now() - began))
