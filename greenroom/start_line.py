"""The line at a server's start: what is on, what is off, and why."""

import logging
from collections.abc import Iterable

from . import __version__, replacements
from .replacements import State
from .settings import Settings


def say(logger: logging.Logger, settings: Settings) -> None:
    """A warning where a version that is installed turns something off, else information. Runs on: arbiter."""
    found = replacements.states(settings)
    is_complete = all(state.state != "off" for state in replacements.states())
    replacements.announce(lambda _: None)  # it is in this line; workers don't repeat it
    logger.log(logging.INFO if is_complete else logging.WARNING, "%s", line(found))


def line(states: Iterable[State]) -> str:
    """`greenroom 0.2.0 is on for Python 3.11.7, requests 2.34.2; off: async views of Flask 1.1 (why)`."""
    states = list(states)
    on = dict.fromkeys(f"{state.package} {state.version}" for state in states if state.state == "on")
    off = [
        f"{state.feature} of {state.package} {state.version} ({state.reason})"
        for state in states
        if state.state == "off"
    ]
    said = f"greenroom {__version__} is on for {', '.join(on)}" if on else f"greenroom {__version__} is on for nothing"
    return f"{said}; off: {'; '.join(off)}" if off else said
