"""The line at a server's start: what is on, what is off, and why."""

import logging
from collections.abc import Iterable

from . import __version__, replacements
from .replacements import State
from .settings import Settings


def say(logger: logging.Logger, settings: Settings) -> None:
    """A warning where a version that is installed turns something off, or may not work. Runs on: arbiter."""
    found = replacements.states(settings)
    is_complete = all(state.state != "off" and not state.reason for state in replacements.states() if state.version)
    replacements.announce(lambda _: None)  # it is in this line; workers don't repeat it
    logger.log(logging.INFO if is_complete else logging.WARNING, "%s", line(found))


def line(states: Iterable[State]) -> str:
    """`greenroom 0.2.0 is on for Python 3.11.7, requests 2.34.2; off: async views of Flask 1.1 (why)`.

    A version that turns several features off is named once.
    """
    states = list(states)
    on = dict.fromkeys(f"{state.package} {state.version}" for state in states if state.state == "on")
    off: dict[str, list[State]] = {}
    for state in states:
        if state.state == "off":
            off.setdefault(state.cause or state.reason, []).append(state)
    doubts = dict.fromkeys(state.reason for state in states if state.state == "on" and state.reason)
    said = [f"greenroom {__version__} is on for {', '.join(on) or 'nothing'}"]
    if off:
        said.append("off: " + "; ".join(_off(together) for together in off.values()))
    return "; ".join([*said, *doubts])


def _off(states: list[State]) -> str:
    what = ", ".join(f"{state.feature} of {state.package} {state.version}" for state in states)
    return f"{what} ({states[0].reason if len(states) == 1 else states[0].cause or states[0].reason})"
