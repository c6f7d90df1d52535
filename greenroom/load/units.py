"""Lengths of time, rates and shares, as people write them: `300ms`, `2m`, `200/s`, `0.1%`."""

import re

from ..errors import GreenroomError

SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_NUMBER = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([^\s0-9.]*)\s*")


class LoadError(GreenroomError):
    """The load cannot be run as it was asked for; the message says what to change."""


def seconds(text: str) -> float:
    """`30s`, `500ms`, `2m`, `1m30s`. Raises LoadError, also when the unit is missing."""
    total, at = 0.0, 0
    while at < len(text):
        found = _NUMBER.match(text, at)
        if found is None or found[2] not in SECONDS:
            missing = found is not None and not found[2]
            hint = f"which unit? write {text.strip()}s or {text.strip()}ms" if missing else "write 500ms, 30s or 2m"
            raise LoadError(f"{text!r} is no length of time: {hint}")
        total += float(found[1]) * SECONDS[found[2]]
        at = found.end()
    if not text.strip():
        raise LoadError("a length of time is empty: write 500ms, 30s or 2m")
    return total


def rate(text: str) -> float:
    """`200`, `200/s`, `1200/m`: how many a second. Raises LoadError."""
    number, _, unit = text.strip().partition("/")
    per = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}.get(unit.strip())
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if per is None or not 0 <= value < float("inf"):
        raise LoadError(f"{text!r} is no rate: write 200, 200/s or 1200/m")
    return value / per


def written(length: float) -> str:
    """A length of time in the unit in which it reads best."""
    if length < 0.001:
        return f"{length * 1e6:.0f} us"
    if length < 1.0:
        return f"{length * 1e3:.3g} ms"
    return f"{length:.3g} s" if length < 600 else f"{length / 60:.3g} min"
