"""The answer to requests that are turned away: 503 with Retry-After, made once."""

SHED_BODY = b"The server is overloaded. Try again in a moment.\n"
SHED_HEADERS = (("Retry-After", "1"), ("Content-Type", "text/plain"), ("Content-Length", str(len(SHED_BODY))))


def _shed_answer(*, is_kept: bool, is_head: bool) -> bytes:
    fields = "".join(f"{name}: {value}\r\n" for name, value in SHED_HEADERS)
    connection = "keep-alive" if is_kept else "close"
    head = f"HTTP/1.1 503 Service Unavailable\r\n{fields}Connection: {connection}\r\n\r\n"
    return head.encode() + (b"" if is_head else SHED_BODY)


# Of HTTP/1.1, by whether the connection is kept and whether the request was HEAD.
SHED_ANSWERS = {
    (is_kept, is_head): _shed_answer(is_kept=is_kept, is_head=is_head)
    for is_kept in (True, False)
    for is_head in (True, False)
}
