"""The output of a connection of HTTP/2: written once a turn, as far as the kernel takes it, the rest when it does.
Answers of streams that end in one turn of the loop leave in one record, or in one system call, and not in one each.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError

from ...timers import Timer
from ..client_errors import ClientLeft
from ..fair import PIECE_BYTES
from ..progress import LOOK_SECONDS, TakesNothing, unacknowledged
from .engine import Engine
from .frames import Floods
from .response import Fields

if TYPE_CHECKING:
    from ..transport import Transport

WRITE = 2
AT_ONCE_BYTES = 16_384  # a record of TLS is full then
LEFT = "the client left before its answer was complete"
MOST_WAITING_BYTES = 65_536


class Outgoing:
    """`made_room` is called when there may be more again, `broke` when there never will: see `is_full`.

    Runs on: hub; what streams call, on their greenlets, never waits either.
    """

    def __init__(
        self,
        loop: Any,
        sock: "Transport",
        engine: Engine,
        floods: Floods,
        send_timeout_seconds: float,
        made_room: Callable[[], None],
        broke: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.sock = sock
        self.engine = engine
        self.floods = floods
        self.send_timeout_seconds = send_timeout_seconds
        self.made_room = made_room
        self.broke = broke
        self.is_closed = False
        self.waiting = bytearray()
        self._added_bytes = 0
        self._is_scheduled = False
        self._writer: Any = None
        self._progress: TakesNothing | None = None
        self._look: Timer | None = None

    @property
    def is_full(self) -> bool:
        return len(self.waiting) > MOST_WAITING_BYTES

    # --- for streams

    def room_for(self, stream_id: int) -> int:
        """How many bytes of a body may be sent now. Raises ClientLeft."""
        if self.is_full:
            return 0
        try:
            return min(self.engine.local_flow_control_window(stream_id), self.engine.max_outbound_frame_size)
        except ProtocolError as exc:
            raise ClientLeft(LEFT) from exc

    def progress(self) -> TakesNothing:
        """Whether the client takes what is under way now, and allows for more when it has read that."""
        all_taken = -self._added_bytes
        return TakesNothing(
            self.sock,
            self.send_timeout_seconds,
            lambda: max(self._left(), all_taken),
            step_bytes=self.engine.remote_settings.initial_window_size // 2,
        )

    def send_head(self, stream_id: int, fields: Fields, *, ends: bool, flushes: bool = True) -> None:
        """`flushes` False: data comes in this moment. Raises ClientLeft."""
        try:
            self.engine.respond(stream_id, fields, ends=ends)
        except (ProtocolError, KeyError) as exc:  # KeyError: h2 has forgotten the stream
            raise ClientLeft(LEFT) from exc
        if flushes:
            self.flush()

    def send_data(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        """Raises ClientLeft."""
        self.floods.sent_data()
        try:
            self.engine.respond_data(stream_id, data, ends=ends)
        except (ProtocolError, KeyError) as exc:
            raise ClientLeft(LEFT) from exc
        self.flush()

    def allow(self, stream_id: int, size: int) -> None:
        """So many more bytes of a body may come."""
        try:
            self.engine.increment_flow_control_window(size, stream_id)
        except (ProtocolError, KeyError):
            return  # it is over
        self.flush()

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        try:
            self.engine.reset_stream(stream_id, error_code=code)
        except (ProtocolError, KeyError):
            return  # it is over already
        self.flush()

    # --- for the connection

    def flush(self) -> None:
        """Send what h2 has ready."""
        data = self.engine.data_to_send()
        if data and not self.is_closed:
            self.add(data)

    def add(self, data: bytes) -> None:
        """Send `data` behind all that waits."""
        self.waiting += data
        self._added_bytes += len(data)
        if self._writer is not None:
            return
        if len(self.waiting) >= AT_ONCE_BYTES:
            self._write()
        elif not self._is_scheduled:
            self._is_scheduled = True
            self.loop.run_callback(self.write)

    def write(self) -> None:
        """Send what has been added, without waiting for the end of the turn."""
        self._is_scheduled = False
        if self._writer is None and not self.is_closed:
            self._write()

    def _write(self) -> None:
        """A piece at most: a client that reads as fast as we write must not hold the loop."""
        left = PIECE_BYTES
        while self.waiting and left > 0:
            try:
                sent = self.sock.send(self.waiting[:PIECE_BYTES])
            except BlockingIOError:
                break
            except OSError as exc:
                self.close()
                self.loop.run_callback(self.broke, str(exc))  # not within what a stream is doing
                return
            del self.waiting[:sent]
            left -= sent
        if self.waiting:
            self._wait_writable()
        else:
            self._stop_writer()

    def _left(self) -> int:
        return unacknowledged(self.sock) + len(self.waiting) - self._added_bytes

    def _wait_writable(self) -> None:
        if self._writer is None:
            self._writer = self.loop.io(self.sock.fileno(), WRITE)
            self._writer.start(self._on_writable)
            self._progress = TakesNothing(self.sock, self.send_timeout_seconds, self._left)
            self._look = Timer(self.loop, LOOK_SECONDS, "HTTP/2 answers wait to be taken", repeats=True)
            self._look.start(self._look_at_progress)

    def _stop_writer(self) -> None:
        if self._writer is not None:
            self._writer.stop()
            self._writer.close()
            assert self._look is not None
            self._look.close()
            self._writer = self._look = self._progress = None

    def _on_writable(self) -> None:
        self._write()
        if not self.is_closed and not self.is_full:
            self.made_room()

    def _look_at_progress(self) -> None:
        if self._progress is not None and self._progress.is_given_up():
            self.broke("the client takes nothing")

    def close(self) -> None:
        """Drop what waits to be sent, and send nothing more."""
        self.is_closed = True
        self.waiting.clear()
        self._stop_writer()
