"""Bodies of the routes with large bodies: the ones they send, and the ones that are sent to them."""

MEGABYTE = 1_000_000
LARGE = bytes(range(250)) * (MEGABYTE // 250)
EVENTS = 100


def event(number: int) -> bytes:
    return b"id: %d\ndata: a message\n\n" % number


ALL_EVENTS = b"".join(event(number) for number in range(EVENTS))
