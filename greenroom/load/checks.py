"""Checks of answers, as they are written on the command line.

status=200    status=2xx    body~TEXT    body!~TEXT    header.NAME=VALUE    json.KEY.KEY=VALUE    bytes<100000
"""

import json
import operator
import re
from collections.abc import Callable
from typing import Any

from .request import Answer, Check
from .units import LoadError

_BYTES = re.compile(r"bytes\s*(<=|>=|<|>)\s*(\d+)")
_STATUS = re.compile(r"status\s*(==?|!=)\s*([1-5](?:\d\d|xx))")
_NAMED = re.compile(r"(header|json)\.([^=!~\s]+)\s*(==?|!=)\s*(.*)", re.DOTALL)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def parse(text: str) -> Check:
    """Raises LoadError."""
    text = text.strip()
    if found := _STATUS.fullmatch(text):
        wanted, is_not = found[2], found[1] == "!="
        return Check(text, lambda answer: _is_status(answer.status, wanted) != is_not, reads_body=False)
    if found := _BYTES.fullmatch(text):
        compare, limit = _COMPARE[found[1]], int(found[2])
        return Check(text, lambda answer: compare(len(answer.body), limit))
    if text.startswith("body!~") and text[6:]:
        lacking = text[6:].encode()
        return Check(text, lambda answer: lacking not in answer.body)
    if text.startswith("body~") and text[5:]:
        part = text[5:].encode()
        return Check(text, lambda answer: part in answer.body)
    if found := _NAMED.fullmatch(text):
        where, name, is_not, value = found[1], found[2], found[3] == "!=", found[4]
        if where == "header":
            return Check(text, lambda answer: (answer.headers.get(name.lower()) == value) != is_not, reads_body=False)
        return Check(text, lambda answer: (_written(_inside(answer, name)) == value) != is_not)
    raise LoadError(
        f"--check {text!r} is not understood: write status=200, body~TEXT, body!~TEXT, header.NAME=VALUE, "
        "json.KEY=VALUE or bytes<10000"
    )


def _is_status(status: int, wanted: str) -> bool:
    return str(status)[0] == wanted[0] if wanted.endswith("xx") else status == int(wanted)


def _inside(answer: Answer, keys: str) -> Any:
    """Return the value under `a.b.0` in a JSON body. Raises if it is not there: the check fails."""
    value = answer.json()
    for key in keys.split("."):
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
