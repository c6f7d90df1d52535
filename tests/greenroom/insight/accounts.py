"""Requests that wait."""

from greenroom import clock
from greenroom.in_flight import Wait
from greenroom.insight.account import WAITING, Account


def wait_in(account: Account, wait: Wait | None, since: float | None = None) -> None:
    """Let the request wait in this, and in nothing else; None: in what nobody has named."""
    account._state = WAITING
    account.waits.clear()
    if wait is not None:
        wait.record, wait.greenlet = account, account.greenlet
        wait.since = clock.now() if since is None else since
        account.waits[wait] = None
