"""One knob: how it is declared, what it is called in the environment, and what may be said there."""

from dataclasses import Field, field
from typing import Any

PREFIX = "GREENROOM_"
# Names that other programs made common; everything else of ours carries the prefix.
COMMON_NAMES = {"wsgi_app": "WSGI_APP", "web_concurrency": "WEB_CONCURRENCY"}
TRUE = ("1", "true", "yes", "on")
FALSE = ("0", "false", "no", "off")


def knob(
    default: Any,
    *,
    about: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    is_secret: bool = False,
) -> Any:
    """A field of Settings. `low` and `high` are included in the range; `choices` lists the only values allowed.

    Secrets do not show when settings are printed.
    """
    return field(
        default=default,
        repr=not is_secret,
        metadata={"about": about, "low": low, "high": high, "choices": choices},
    )


def environment_name(field_name: str) -> str:
    return COMMON_NAMES.get(field_name, PREFIX + field_name.upper())


def parse(knob_field: Field[Any], text: str) -> tuple[Any, str]:
    """(value, "") or (None, what is wrong with `text`)."""
    if isinstance(knob_field.default, bool):
        return _parse_bool(text)
    if isinstance(knob_field.default, int):
        return _parse_int(text, knob_field)
    choices = knob_field.metadata["choices"]
    if choices and text not in choices:
        return None, f"must be one of {', '.join(choices)}"
    return text, ""


def _parse_bool(text: str) -> tuple[bool | None, str]:
    lowered = text.lower()
    if lowered in TRUE:
        return True, ""
    if lowered in FALSE:
        return False, ""
    return None, "must be yes or no"


def _parse_int(text: str, knob_field: Field[Any]) -> tuple[int | None, str]:
    try:
        value = int(text)
    except ValueError:
        return None, f"must be a whole number, {allowed(knob_field)}"
    low, high = knob_field.metadata["low"], knob_field.metadata["high"]
    if not low <= value <= high:
        return None, f"must be a whole number, {allowed(knob_field)}"
    return value, ""


def allowed(knob_field: Field[Any]) -> str:
    """The range or the choices, as documentation shows them; "" where any text will do."""
    if isinstance(knob_field.default, bool):
        return "yes, no"
    if isinstance(knob_field.default, int):
        return f"{knob_field.metadata['low']} to {knob_field.metadata['high']}"
    return ", ".join(knob_field.metadata["choices"])


def shown(default: object) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return str(default)
