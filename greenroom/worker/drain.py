"""Draining: everybody who is being served, or about to be, gets an answer that says `Connection: close`.

    what                                  what becomes of it
    running and queued requests           answered; the head says close if it was not sent yet
    connections that wait in the kernel   accepted and answered, unless siblings go on accepting: then left to them
    idle for LINGER_SECONDS or longer     closed at once
    idle for less                         kept that long: a client under way with its next request would get a reset
    half a head                           may be completed, within the usual time
    HTTP/2                                told to open no more streams; closed when the last is answered
    a last answer that is being read      waited for, where the client still sends: closed, it would be cut short
    handshakes                            as idle ones
    WebSockets                            told to go away: see takeover
    requests whose client has its answer  waited for as well: their code may be in the middle of something

A close can always cross a request on the wire; TCP has no way to take that back. Most clients under load send their
next request soon after an answer, so the short linger makes it rare, and a last look at the socket before each close
leaves a window of one round trip.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import clock

if TYPE_CHECKING:
    from .listener import Listener
    from .serving import Serving

LINGER_SECONDS = 0.5
TURN_SECONDS = 0.02
# How long connections that keep coming are accepted when nobody else will: the rest finds a closed door.
LONGEST_ACCEPT_SECONDS = 1.0


class Drain:
    """The end of a worker's serving. `someone_else_serves` is asked again and again: siblings drain, too.

    `window_seconds`: how long to go on accepting at first, for load balancers that have to notice.
    """

    def __init__(
        self,
        serving: "Serving",
        listeners: "list[Listener]",
        someone_else_serves: Callable[[], bool],
        window_seconds: float = 0.0,
        now: Callable[[], float] = clock.now,
    ) -> None:
        self.serving = serving
        self.listeners = listeners
        self.someone_else_serves = someone_else_serves
        self.now = now
        self.window_ends_at = now() + window_seconds
        self.accept_until = self.window_ends_at + LONGEST_ACCEPT_SECONDS
        self.last_seen_at = now()
        self._timer = serving.loop.timer(0.0, repeat=TURN_SECONDS)

    @property
    def is_over(self) -> bool:
        """Whether nobody is left."""
        return not (self._is_serving() or self.serving.timeouts.lingering)

    def _is_serving(self) -> bool:
        """Whether somebody is left besides clients that have their answer and still send what nobody reads."""
        serving = self.serving
        return bool(self.listeners or serving.connections or serving.in_flight or serving.timeouts.taking)

    def start(self) -> None:
        for listener in self.listeners:
            listener.turn = None
        for request in self.serving.in_flight.values():
            request.force_close()
        for connection in list(self.serving.connections):
            connection.begin_to_drain()
        self._timer.start(self.turn)

    def stop(self) -> None:
        """Close the idle connections: a request on one would be answered with a reset once the process is gone."""
        self._close_idle(self.now())
        self._timer.stop()
        self._timer.close()

    def turn(self) -> None:
        """Runs on: hub."""
        now = self.now()
        if now < self.window_ends_at:
            return
        self.serving.tell_takers()
        for listener in list(self.listeners):
            if self.someone_else_serves() or now > self.accept_until or not listener.accept():
                listener.close()
                self.listeners.remove(listener)
        self._close_idle(now - LINGER_SECONDS)
        if self._is_serving():
            self.last_seen_at = now
        elif now - self.last_seen_at > LINGER_SECONDS:
            self.serving.timeouts.end_lingering(now)

    def _close_idle(self, until: float) -> None:
        waiting: tuple[dict[Any, float], ...] = (self.serving.timeouts.idle, self.serving.timeouts.greeting)
        for some in waiting:
            for connection, since in list(some.items()):
                if since > until:
                    break  # the first is the oldest
                connection.close_if_idle()
