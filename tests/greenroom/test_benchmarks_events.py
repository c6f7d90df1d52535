"""benchmarks/events.py: server-sent events, as they arrive."""

from collections.abc import Iterator

from benchmarks.events import read_events


def test_events_come_with_name_and_data() -> None:
    lines = ["event: source", 'data: {"name":"a"}', "", "event: done", "data: {}", ""]

    assert list(read_events(lines)) == [("source", '{"name":"a"}'), ("done", "{}")]


def test_comments_and_empty_events_are_left_out() -> None:
    assert list(read_events([": heartbeat", "", "event: nothing", "", "data:x", ""])) == [("message", "x")]


def test_data_of_several_lines_is_joined() -> None:
    assert list(read_events(["data: one", "data:  two", ""])) == [("message", "one\n two")]


def test_an_event_that_was_cut_off_is_none() -> None:
    assert list(read_events(["event: done", "data: {}"])) == []


def test_an_event_is_given_before_the_next_line_is_there() -> None:
    def lines() -> Iterator[str]:
        yield from ("data: first", "")
        raise AssertionError("asked for more than was needed")

    assert next(read_events(lines())) == ("message", "first")
