"""Which line of the application is being run.

Asked for each query and each checkout of a connection, with a dozen of a framework's frames between those and the line
that asked. So whether code is the application's is decided once for each code object; the frames are gone through each
time, because where the line was found last says nothing about where it is now.
"""

import sys
from collections.abc import Callable
from types import CodeType, FrameType


class Innermost:
    """Finds the innermost frame above that is the application's own. `is_foreign` says of a frame that it is not."""

    __slots__ = ("foreign", "is_foreign", "own")

    def __init__(self, is_foreign: Callable[[FrameType], bool]) -> None:
        self.is_foreign = is_foreign
        # By their ids, which is cheaper to ask; and kept, so that no other code gets the same number.
        self.own: dict[int, CodeType] = {}
        self.foreign: dict[int, CodeType] = {}

    def find(self, depth: int = 1) -> FrameType | None:
        """Find the innermost own frame among those of the caller and its callers, without the first `depth` of them.

        Each frame that is looked at costs its function a copy of it. Runs on: any greenlet; never switches.
        """
        frame: FrameType | None = sys._getframe(depth)
        own, foreign = self.own, self.foreign
        while frame is not None:
            code = frame.f_code
            key = id(code)
            if key not in foreign:
                if key in own:
                    return frame
                if not self.is_foreign(frame):
                    own[key] = code
                    return frame
                foreign[key] = code
            frame = frame.f_back
        return None


def line_of(code: CodeType, instruction: int) -> int:
    """The line of an `f_lasti`: to be asked when it is to be shown, because it takes a while in a long function."""
    for begin, end, line in code.co_lines():
        if begin <= instruction < end and line is not None:
            return line
    return code.co_firstlineno
