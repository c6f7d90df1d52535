"""When to ask gunicorn's parser about a head that is not complete: it can be wrong already.

Its request line, in its first piece; lines that end without CR; its length, and a PROXY line before it. Reading a head
of 700 KB takes 4 ms, so not for each piece: a client that sends byte by byte must not keep the worker busy. A long one
is judged when it has doubled, when it is too long, and when nothing more will come.
"""

from gunicorn.http.errors import InvalidProxyLine, LimitRequestHeaders

from .head import HEAD_END, HeadParser, has_bare_line_feed

LONGEST_PROXY_LINE_BYTES = 107  # the PROXY protocol says so; gunicorn would wait for the end of the line for ever
Head = bytes | bytearray


def must_be_judged(head: Head, searched_from: int, parser: HeadParser, *, is_new: bool, may_be_proxied: bool) -> bool:
    """Whether gunicorn is to look at `head`, of which all before `searched_from` has been searched for its end.

    `is_new`: it is a first piece. `may_be_proxied`: a PROXY line may come first.
    """
    if has_bare_line_feed(head, searched_from):
        return True
    if is_new and head.find(b"\r\n", 1) > 0:
        return True
    size = len(head)
    if size <= parser.plain_bytes:
        return may_be_proxied
    known = searched_from + len(HEAD_END) - 1
    return known <= parser.plain_bytes or size.bit_length() > known.bit_length() or is_too_long(head, parser)


def is_too_long(head: Head, parser: HeadParser) -> bool:
    """Whether there is more after the request line than all header fields may have."""
    longest = parser.longest_head_bytes
    if len(head) <= longest:
        return False
    line_end = head.find(b"\r\n", 1)
    return 0 < line_end < len(head) - 2 - longest


def demand_limits(head: Head, parser: HeadParser, *, may_be_proxied: bool) -> None:
    """Refuse what is too long and not complete: gunicorn looks at these lengths only while it reads."""
    if is_too_long(head, parser) and HEAD_END not in head:
        raise LimitRequestHeaders("max buffer headers")
    if may_be_proxied and head[:6] == b"PROXY ":
        if len(head) > LONGEST_PROXY_LINE_BYTES and b"\r\n" not in head[:LONGEST_PROXY_LINE_BYTES]:
            raise InvalidProxyLine("the line does not end")
