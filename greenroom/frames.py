"""Which line of the application is being run, asked so often that it has to be cheap.

Each look at `f_back` makes an object of a frame that would have needed none, and a dozen of a framework's stand between
a query and the line that asked for it. Whoever asks next is mostly as far up as whoever asked last: there one look is
enough.
"""

import sys
from collections.abc import Callable
from types import CodeType, FrameType


class Innermost:
    """Finds the innermost frame above that is the application's own. `is_foreign` says of a frame that it is not.

    Looked for first where it was last found. That could be wrong only where the application's code was called back from
    within a library, by other code of its own in just the same distance: then that line is named instead.
    """

    __slots__ = ("distance", "foreign", "is_foreign", "own")

    def __init__(self, is_foreign: Callable[[FrameType], bool]) -> None:
        self.is_foreign = is_foreign
        self.distance = 1
        # By their ids, which is cheaper to ask; and kept, so that no other code gets the same number.
        self.own: dict[int, CodeType] = {}
        self.foreign: dict[int, CodeType] = {}

    def find(self) -> FrameType | None:
        """Of the caller and whoever called it. Runs on: any greenlet; never switches."""
        distance = self.distance
        try:
            frame = sys._getframe(distance)
        except ValueError:
            return self._search(sys._getframe(1))
        if id(frame.f_code) in self.own and (distance == 1 or id(sys._getframe(distance - 1).f_code) in self.foreign):
            return frame
        return self._search(sys._getframe(1))

    def _search(self, frame: FrameType | None) -> FrameType | None:
        distance = 1
        while frame is not None:
            code = frame.f_code
            if id(code) not in self.foreign:
                if not self.is_foreign(frame):
                    self.own[id(code)] = code
                    self.distance = distance
                    return frame
                self.foreign[id(code)] = code
            distance += 1
            frame = frame.f_back
        return None


def line_of(code: CodeType, instruction: int) -> int:
    """The line of an `f_lasti`: to be asked when it is to be shown, because it takes a while in a long function."""
    for begin, end, line in code.co_lines():
        if begin <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
