"""Which frame is the application's, and its line when somebody asks later."""

import sys
from collections.abc import Callable
from types import FrameType

import pytest

from greenroom.frames import Innermost, line_of


def is_library(frame: FrameType) -> bool:
    return frame.f_code.co_name.startswith("library")


@pytest.fixture
def innermost() -> Innermost:
    return Innermost(is_library)


def library(innermost: Innermost, deep: int = 0) -> FrameType | None:
    return library(innermost, deep - 1) if deep else innermost.find()


def library_calling_back(function: Callable[[], FrameType | None]) -> FrameType | None:
    return function()


def test_frame_nearest_to_the_library_is_found_however_far_up_it_is(innermost: Innermost) -> None:
    def asking(deep: int) -> FrameType | None:
        return library(innermost, deep)

    found = [asking(deep) for deep in (0, 3, 3, 0, 900, 0)]

    assert [frame and frame.f_code for frame in found] == [asking.__code__] * 6


def test_code_that_a_library_calls_back_is_nearer_than_what_called_the_library(innermost: Innermost) -> None:
    def called_back() -> FrameType | None:
        return library(innermost)

    def asking() -> FrameType | None:
        return library(innermost, 2)

    def asking_with_callback() -> FrameType | None:
        return library_calling_back(called_back)

    found = [asking(), asking_with_callback(), asking()]

    assert [frame and frame.f_code for frame in found] == [asking.__code__, called_back.__code__, asking.__code__]


def test_code_that_is_called_back_in_the_distance_of_the_last_answer_is_found(innermost: Innermost) -> None:
    """The line that was found last may stand as far up again, with another one below it."""

    def called_back() -> FrameType | None:
        return library(innermost)

    def asking(call: Callable[[], FrameType | None]) -> FrameType | None:
        return library_calling_back(call)

    found = [asking(lambda: library(innermost)), asking(called_back)]

    assert [frame and frame.f_code.co_name for frame in found] == ["<lambda>", "called_back"]
    far = library(innermost, 1)
    near = library_calling_back(called_back)
    assert far is not None
    assert near is not None
    assert (far.f_code.co_name, near.f_code.co_name) == (sys._getframe().f_code.co_name, "called_back")


def test_where_all_is_library_nothing_is_found() -> None:
    assert Innermost(lambda frame: True).find() is None


def test_line_is_known_from_the_instruction_when_the_frame_has_gone_on() -> None:
    frame = sys._getframe()

    instruction, line = frame.f_lasti, frame.f_lineno

    assert line_of(frame.f_code, instruction) == line
    assert line_of(frame.f_code, -2) == frame.f_code.co_firstlineno
