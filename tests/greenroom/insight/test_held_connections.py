"""Which connections count as kept, on connections that are made up."""

from types import SimpleNamespace
from typing import Any

import pytest

from greenroom.in_flight import Wait
from greenroom.insight.account import Account
from greenroom.insight.held_connections import Held

from .accounts import wait_in

IDLE, IN_TRANSACTION, IN_ERROR = 0, 2, 3


class Connection:
    """psycopg2's, as far as it is asked."""

    def __init__(self) -> None:
        self.status = IDLE
        self.closed = 0
        self.autocommit = False
        self.line = SimpleNamespace(sql="SELECT 1", note=None)

    def get_transaction_status(self) -> int:
        return self.status


class Waiting:
    gr_frame = None


class Requests:
    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.held = Held(clock.now)

    def begin(self) -> Account:
        account = Account(self.clock.now())
        account.environ = {}
        return account

    def query(self, account: Account, connection: Connection, status: int = IN_TRANSACTION) -> None:
        self.held.used(account, connection, connection.line)
        self.clock.advance(0.01)
        connection.status = status

    def wait(self, account: Account, seconds: float) -> bool:
        """Wait for an upstream; whether a connection is kept meanwhile."""
        account.keeps = self.held.suspended(account, "api.example:443", Waiting)
        account.since = self.clock.now()
        self.clock.advance(seconds)
        wait_in(account, Wait("upstream", "api.example:443"))
        account.slept(self.clock.now())
        return account.keeps is not None

    def end(self, account: Account) -> None:
        account.ended = self.clock.now()
        self.held.finish(account)


@pytest.fixture
def requests(clock: Any) -> Requests:
    return Requests(clock)


@pytest.mark.parametrize("status", [IN_TRANSACTION, IN_ERROR])
def test_connection_in_a_transaction_is_kept(requests: Requests, status: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        account, connection = requests.begin(), Connection()
        requests.query(account, connection, status)
        assert requests.wait(account, 0.3)
        requests.query(account, connection, IDLE)  # COMMIT
        requests.end(account)

    (pair,) = requests.held.as_list()
    assert pair["count"] == 3
    assert pair["seconds"] == pytest.approx(0.9)
    assert pair["held_seconds"] == pytest.approx(0.93, abs=0.03)
    assert pair["rate"] == pytest.approx(1 / 0.31, rel=0.05)
    assert pair["gain"] > 20
    assert pair["host"] == "api.example:443"
    assert pair["used"].startswith("tests/greenroom/insight/test_held_connections.py:")
    assert len([message for message in caplog.messages if message.startswith("held: ")]) == 1


def test_connection_after_commit_is_not_kept(requests: Requests) -> None:
    account, connection = requests.begin(), Connection()
    requests.query(account, connection)
    requests.query(account, connection, IDLE)

    assert not requests.wait(account, 0.3)
    requests.end(account)
    assert requests.held.as_list() == []


def test_connection_that_another_request_has_now_is_not_this_ones(requests: Requests) -> None:
    first, second, connection = requests.begin(), requests.begin(), Connection()
    requests.query(first, connection, IDLE)
    requests.query(second, connection)

    assert not requests.wait(first, 0.3)
    assert requests.wait(second, 0.3)


def test_line_is_that_of_the_last_statement_and_not_of_the_begin_or_commit(requests: Requests) -> None:
    account, connection = requests.begin(), Connection()
    requests.query(account, connection)
    (hold,) = account.holds or ()
    code, instruction = hold.code, hold.instruction
    connection.line.sql = "COMMIT"
    requests.query(account, connection)

    assert (hold.code, hold.instruction) == (code, instruction)
    assert hold.last > hold.since
    assert requests.wait(account, 0.3)  # PostgreSQL has refused it


def test_connection_goes_from_request_to_request_with_one_note(requests: Requests) -> None:
    connection, notes = Connection(), []
    for _ in range(2):
        account = requests.begin()
        requests.query(account, connection)
        assert requests.wait(account, 0.3)
        notes += account.holds or ()
        requests.end(account)

    assert notes[0] is notes[1] is connection.line.note
    assert notes[0].account is None


def test_closed_and_forgotten_connections_are_not_kept(requests: Requests) -> None:
    account, connection = requests.begin(), Connection()
    requests.query(account, connection)
    connection.closed = 1
    assert not requests.wait(account, 0.3)
    del connection
    assert not requests.wait(account, 0.3)


def test_autocommit_outside_of_a_pool_is_not_kept(requests: Requests) -> None:
    account, connection = requests.begin(), Connection()
    connection.autocommit = True
    requests.query(account, connection, IDLE)

    assert not requests.wait(account, 0.3)


def test_short_waits_are_no_reason_to_write_other_code(requests: Requests) -> None:
    account, connection = requests.begin(), Connection()
    requests.query(account, connection)
    requests.wait(account, 0.001)
    requests.end(account)

    assert requests.held.as_list() == []


def test_queries_outside_of_requests_are_nobodys(requests: Requests) -> None:
    connection = Connection()
    requests.held.used(None, connection, connection.line)

    assert connection.line.note is None
