"""The body of a source's answer, as a value that can be shown, stored and written as JSON again."""

import codecs
import json
import math
from typing import Any

import requests

from .lanes import SourceError

# The deepest nesting a board shows. More than anybody sends; far less than json.dumps() can write back.
JSON_DEPTH = 100
# Text is read in these encodings only: punycode, for one, takes minutes for a megabyte.
TEXT_ENCODINGS = ("utf", "ascii", "iso8859", "cp125", "koi8", "euc", "shift_jis", "gb", "big5", "mac-roman")


def charset(response: requests.Response) -> str:
    """The encoding the source names, else UTF-8; requests' own guess for text, ISO-8859-1, is hardly ever right."""
    named = "charset=" in response.headers.get("Content-Type", "").lower()
    return (named and response.encoding) or "utf-8"


def decode_body(content: bytes, encoding: str) -> Any:
    """The JSON value in `content` if it is strict JSON, else its text. Raises SourceError when it is neither."""
    codec = readable_codec(encoding)
    if codec is None:
        raise SourceError(f"the answer is in the encoding {encoding[:40]}, which is not read here")
    try:
        text = content.decode(codec)
    except ValueError as exc:
        raise SourceError(f"the answer is not valid {encoding[:40]} text") from exc
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_float=_finite)
    except (ValueError, RecursionError):  # not JSON, or JSON nobody could read: NaN, too deep, too many digits
        return text
    return text if is_deeper(value, JSON_DEPTH) else value


def readable_codec(encoding: str) -> str | None:
    """Python's name for `encoding`, None if it is none of ours; UTF-8 may begin with a byte order mark."""
    try:
        known = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return None
    if known == "utf-8":
        return "utf-8-sig"
    return known if known.startswith(TEXT_ENCODINGS) else None


def is_deeper(value: Any, limit: int) -> bool:
    """True if lists and objects in `value` are nested more than `limit` deep. Goes level by level: no recursion."""
    level = [value] if isinstance(value, list | dict) else []
    for _ in range(limit):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, list | dict)
        ]
        if not level:
            return False
    return True


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError("the number is too large")  # it would be written back as Infinity, which is not JSON
    return number
