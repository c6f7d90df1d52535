"""A `Retry` that an application has mounted, over our pools: what urllib3's `urlopen` does with one.

    error, or a status to be tried again -> Retry.increment: raises when its count is used up -> Retry.sleep -> again

Source: urllib3.connectionpool.HTTPConnectionPool.urlopen. A call that was ended with its request is not tried again.
"""

import logging
from collections.abc import Callable
from typing import Any

from urllib3.exceptions import MaxRetryError, ProtocolError, ReadTimeoutError
from urllib3.util import Retry

from ...deadline import is_spent
from ...errors import BudgetSpent
from .answer import Answer, StreamedAnswer
from .connection import spent
from .transport import UpstreamCall

logger = logging.getLogger("urllib3.connectionpool")  # whose lines people look for


def is_none(retries: Retry) -> bool:
    """Whether it is what an adapter has that never tries again."""
    return retries.total == 0 and retries.total is not False and retries.read is False


def run(call: UpstreamCall, retries: Retry, renew: Callable[[], UpstreamCall | None]) -> Answer | StreamedAnswer:
    """The answer that is not to be tried again. `renew` makes the call anew, since less of the budget is left by then.

    Raises urllib3's errors.
    Runs on: any greenlet of the main thread; switches.
    """
    pool: Any = call.origin
    is_clean_up = is_spent()  # it has a time of its own then
    while True:
        try:
            answer = call.run()
        except (MaxRetryError, ReadTimeoutError, ProtocolError) as exc:
            if is_spent() and (was_ended(exc) or not is_clean_up):
                raise
            reason = exc.reason if isinstance(exc, MaxRetryError) else exc
            stack = exc.__traceback__
            retries = retries.increment(call.method, call.path, error=reason, _pool=pool, _stacktrace=stack)
            _sleep(call, retries, None)
            broken_by = reason.args[-1] if isinstance(reason, ProtocolError) else reason
            logger.warning("Retrying (%r) after connection broken by '%r': %s", retries, broken_by, call.path)
            call = renew() or call
            continue
        answer.retries = retries
        if not retries.is_retry(call.method, answer.status, bool(answer.headers.get("Retry-After"))):
            return answer
        try:
            retries = retries.increment(call.method, call.path, response=answer, _pool=pool)
        except MaxRetryError:
            if retries.raise_on_status:
                answer.drain_conn()
                raise
            return answer
        answer.drain_conn()
        if is_spent() and not is_clean_up:
            raise call.too_late(spent())
        _sleep(call, retries, answer)
        logger.debug("Retry: %s", call.path)
        call = renew() or call


def was_ended(exc: BaseException | None) -> bool:
    """Whether the end of the request is what failed."""
    while exc is not None and not isinstance(exc, BudgetSpent):
        exc = exc.__cause__
    return exc is not None


def _sleep(call: UpstreamCall, retries: Retry, answer: Answer | StreamedAnswer | None) -> None:
    try:
        retries.sleep(answer)
    except BudgetSpent as exc:
        raise call.too_late(exc) from exc
