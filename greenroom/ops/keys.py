"""Single keys of a terminal, by their names."""

import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import GreenroomError

ESCAPES = {b"\x1b[A": "up", b"\x1b[B": "down", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b": "back"}
LETTERS = {
    b"q": "quit",
    b"\x03": "quit",
    b"p": "pause",
    b" ": "pause",
    b"s": "sort",
    b"v": "turn",
    b"\t": "turn",
    b"k": "up",
    b"j": "down",
    b"\r": "look",
    b"\n": "look",
    b"\x7f": "back",
}


@contextmanager
def keys() -> Iterator[Callable[[float], list[str]]]:
    """Reads single keys from the terminal, which is put back as it was."""
    try:
        import termios
        import tty
    except ModuleNotFoundError as exc:
        raise GreenroomError("top needs a Unix terminal; `python -m greenroom stacks` works everywhere") from exc
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield lambda seconds: _read_keys(descriptor, seconds)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _read_keys(descriptor: int, seconds: float) -> list[str]:
    """The names of the keys pressed, as soon as there are any; none within that time is []."""
    if not select.select([descriptor], [], [], seconds)[0]:
        return []
    typed = os.read(descriptor, 256)
    return keys_in(typed) if typed else ["quit"]  # the terminal is gone


def keys_in(typed: bytes) -> list[str]:
    """The names of what was typed, in order; keys without a meaning are left out."""
    names = []
    while typed:
        length = next((length for length in (3, 1) if typed[:length] in ESCAPES), 1)
        name = ESCAPES.get(typed[:length]) or LETTERS.get(typed[:1])
        typed = typed[length:]
        if name:
            names.append(name)
    return names
