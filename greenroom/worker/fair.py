"""Turns for all: a reader or writer whose peer is always ready gives way after a bounded piece of work.

A client that sends as fast as we read, or reads as fast as we write, is never waited for; without this its request, or
its connection, would hold the loop for as long as there is something to do. The piece is counted and not timed, so that
it is the same on every machine:

    bytes       PIECE_BYTES of a body that came, or of an answer that went
    operations  each counts as OPERATION_BYTES at least: a chunk of one byte costs what a system call or a line of a
                parser costs, not what a byte does
    frames      of HTTP/2: see http2/frames
    requests    of a client that pipelines: each in a turn of its own
    handshakes  MOST_HANDSHAKES in a turn: signing takes a millisecond
"""

from collections.abc import Iterator

from ..waits.giving_way import OPERATION_BYTES, turn
from ..waits.threads import is_loop_thread
from .load import Turns

PIECE_BYTES = 131_072


class Piece:
    """The work done for this client since the loop last turned for it. Runs on: any greenlet, any thread."""

    __slots__ = ("work",)

    def __init__(self) -> None:
        self.work = 0

    def did(self, size: int) -> None:
        """`size` bytes have been moved, at once. Switches when the piece is done."""
        self.work += size if size > OPERATION_BYTES else OPERATION_BYTES
        if self.work >= PIECE_BYTES:
            self.work = 0
            give_way()

    def waited(self) -> None:
        self.work = 0


class PerTurn:
    """`most` of something that takes long in each turn of the loop. Runs on: hub.

    For watchers of sockets, which come again in the next turn if nothing is read.
    """

    __slots__ = ("_count", "_turn", "most", "turns")

    def __init__(self, turns: Turns, most: int) -> None:
        self.turns = turns
        self.most = most
        self._turn = self._count = 0

    def may_go_on(self) -> bool:
        if self._turn != self.turns.count:
            self._turn, self._count = self.turns.count, 0
        self._count += 1
        return self._count <= self.most


def give_way() -> None:
    """Let the loop ask its sockets and run all that is ready. No end of a request breaks in.

    In other threads the interpreter takes care of this.
    """
    if is_loop_thread():
        turn()


def fair(chunks: Iterator[bytes], piece: Piece) -> Iterator[bytes]:
    """gunicorn's parser of a chunked body, giving way between chunks: thousands of them come at once."""
    for chunk in chunks:
        yield chunk
        piece.did(len(chunk))
