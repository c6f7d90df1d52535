"""Where HTTP/2 frames begin: how many are handled at once, and how many of them carry nothing for a request.

    a piece        PIECE_FRAMES frames at most, whatever they are; the loop turns before the next
    quiet frames   SETTINGS, PING, PRIORITY, WINDOW_UPDATE, empty DATA, unknown ones. Real clients send a handful, and
                   a few for each frame of an answer; MOST_QUIET more in WINDOW_SECONDS are a flood
    resets         RST_STREAM: a real client cancels some requests, and not MOST_RESETS in WINDOW_SECONDS

They are counted on the wire and not by what h2 makes of them: of frames on streams that are over it tells nothing.
"""

from collections.abc import Callable, Iterator

from ... import clock

PIECE_FRAMES = 64
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES = 9
DATA, HEADERS, RST_STREAM, CONTINUATION = 0, 1, 3, 9
END_STREAM = 1
WINDOW_SECONDS = 10.0
MOST_QUIET = 1000
MOST_RESETS = 200
# How many quiet ones each DATA frame of ours may be answered with: two updates of windows, and some.
QUIET_PER_SENT = 4
MOST_CREDIT = 4000


class Floods:
    """Counts of one client's recent frames that carry nothing."""

    __slots__ = ("_ends_at", "now", "quiet", "resets")

    def __init__(self, now: Callable[[], float] = clock.now) -> None:
        self.now = now
        self.quiet = self.resets = 0
        self._ends_at = now() + WINDOW_SECONDS

    def sent_data(self) -> None:
        """A DATA frame has been sent."""
        self.quiet = max(self.quiet - QUIET_PER_SENT, -MOST_CREDIT)

    def are_too_many(self) -> bool:
        if self.quiet <= MOST_QUIET and self.resets <= MOST_RESETS:
            return False
        now = self.now()
        if now >= self._ends_at:
            self.quiet = self.resets = 0
            self._ends_at = now + WINDOW_SECONDS
            return False
        return True


class Frames:
    """Cuts what comes into pieces, and counts for `floods`."""

    __slots__ = ("_head", "_left", "floods")

    def __init__(self, floods: Floods) -> None:
        self.floods = floods
        self._left = len(PREFACE)  # of the frame that has begun
        self._head = b""  # of the next one, as far as it has come

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """`data`, whole and in order. Frames are counted when their piece is asked for."""
        start = position = frames = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            if frames == PIECE_FRAMES:
                yield data[start:position]
                start, frames = position, 0
            step = min(FRAME_HEAD_BYTES - len(self._head), len(data) - position)
            self._head += data[position : position + step]
            position += step
            if len(self._head) == FRAME_HEAD_BYTES:
                self._begin(self._head)
                self._head = b""
                frames += 1
        if start < len(data):
            yield data[start:]

    def _begin(self, head: bytes) -> None:
        self._left = int.from_bytes(head[:3], "big")
        kind = head[3]
        if kind == RST_STREAM:
            self.floods.resets += 1
        elif kind not in (DATA, HEADERS, CONTINUATION) or (
            kind == DATA and not self._left and not head[4] & END_STREAM
        ):
            self.floods.quiet += 1
