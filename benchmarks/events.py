"""Reading server-sent events as they arrive (the WHATWG's `text/event-stream`, the part that boards use)."""

from collections.abc import Iterable, Iterator


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(name, data) of each event, the moment its last line is there. Comments, which keep connections alive, are left
    out; so is an event that was cut off. `lines` come without their line ends.
    """
    name, data = "message", []
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "data":
                data.append(value)
            continue
        if data:
            yield name, "\n".join(data)
        name, data = "message", []
