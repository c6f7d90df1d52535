"""Room for a new connection, made by those that have been idle or slow for longest."""

from greenroom.worker.timeouts import GREETING_SECONDS, Timeouts


class Client:
    """A connection whose client may have sent half a head, which nobody has read yet."""

    def __init__(self, timeouts: Timeouts, *, has_sent: bool = False, stays: bool = False) -> None:
        self.timeouts = timeouts
        self.has_sent = has_sent
        self.stays = stays
        self.is_open = True
        timeouts.became_idle(self)

    def close(self) -> None:
        self.timeouts.forget(self)
        self.is_open = False

    def close_if_idle(self) -> None:
        if self.has_sent:
            self.timeouts.head_started(self)
        elif not self.stays:
            self.close()

    dismiss_if_slow = close


def make_room(timeouts: Timeouts, clients: list[Client], most: int) -> list[bool]:
    timeouts.make_room(lambda: sum(client.is_open for client in clients) >= most)
    return [client.is_open for client in clients]


def some_timeouts() -> Timeouts:
    return Timeouts(keepalive_seconds=5, head_timeout_seconds=10)


def test_oldest_makes_room() -> None:
    timeouts = some_timeouts()
    clients = [Client(timeouts) for _ in range(3)]

    assert make_room(timeouts, clients, most=3) == [False, True, True]


def test_nobody_has_to_go_while_there_is_room() -> None:
    timeouts = some_timeouts()
    clients = [Client(timeouts) for _ in range(3)]

    assert make_room(timeouts, clients, most=4) == [True, True, True]


def test_room_is_made_also_when_every_idle_client_has_just_sent_half_a_head() -> None:
    timeouts = some_timeouts()
    clients = [Client(timeouts, has_sent=True) for _ in range(3)]

    assert make_room(timeouts, clients, most=3).count(True) == 2


def test_busy_clients_stay() -> None:
    timeouts = some_timeouts()
    clients = [Client(timeouts) for _ in range(3)]
    for client in clients:
        timeouts.forget(client)

    assert make_room(timeouts, clients, most=3) == [True, True, True]


def test_handshake_that_has_just_begun_is_not_pushed_out_by_those_who_come_again() -> None:
    now = [100.0]
    timeouts = Timeouts(keepalive_seconds=5, head_timeout_seconds=10, now=lambda: now[0])
    clients = [Client(timeouts) for _ in range(2)]
    for client in clients:
        timeouts.forget(client)
        timeouts.handshake_began(client)

    at_once = timeouts.can_make_room(), make_room(timeouts, clients, most=2)
    now[0] += 2 * GREETING_SECONDS
    later = timeouts.can_make_room(), make_room(timeouts, clients, most=2)

    assert at_once == (False, [True, True])
    assert later == (True, [False, True])


def test_client_that_has_been_idle_for_longer_makes_room_for_one_after_a_handshake_that_has_just_begun() -> None:
    now = [100.0]
    timeouts = Timeouts(keepalive_seconds=5, head_timeout_seconds=10, now=lambda: now[0])
    idle = Client(timeouts)
    now[0] += 2 * GREETING_SECONDS
    greeting = Client(timeouts)
    timeouts.forget(greeting)
    timeouts.handshake_began(greeting)

    assert make_room(timeouts, [idle, greeting], most=2) == [False, True]


def test_client_that_cannot_go_now_is_asked_once() -> None:
    timeouts = some_timeouts()
    clients = [Client(timeouts, stays=True), Client(timeouts)]

    assert make_room(timeouts, clients, most=2) == [True, True]
