import logging

import pytest

from greenroom import __version__, start_line
from greenroom.replacements import State
from greenroom.replacements.registry import Problem
from greenroom.settings import Settings


def test_what_is_on_is_named_once_and_what_is_off_with_its_reason() -> None:
    said = start_line.line(
        [
            State("gevent", "26.9.0", "locks", "on", ""),
            State("gevent", "26.9.0", "processes", "on", ""),
            State("requests", "2.28.0", "one pool", "off", "requests 2.28.0: unknown to us, its own adapter is used"),
            State("Django", "", "connections", "absent", "Django is not installed"),
        ]
    )

    assert said == (
        f"greenroom {__version__} is on for gevent 26.9.0; off: one pool of requests 2.28.0 "
        "(requests 2.28.0: unknown to us, its own adapter is used)"
    )


def test_version_that_turns_several_features_off_is_named_once() -> None:
    cause = "gevent 99.1: unknown to us (tested: 24.10.3 to 26.9)"

    said = start_line.line(
        [
            State("gevent", "99.1", "locks", "off", f"{cause}, gevent's own are used", cause),
            State("requests", "2.34.2", "one pool", "on", ""),
            State("Python", "3.13.0", "processes", "off", f"{cause}, they block the worker", cause),
        ]
    )

    assert said == (
        f"greenroom {__version__} is on for requests 2.34.2; off: locks of gevent 99.1, processes of Python 3.13.0 "
        f"({cause})"
    )


def test_version_that_may_not_work_is_named() -> None:
    doubt = "gunicorn 99.0: unknown to us (tested: 23.0 to 27.0), it may not work"

    said = start_line.line([State("gunicorn", "99.0", "workers replaced", "on", doubt)])

    assert said == f"greenroom {__version__} is on for gunicorn 99.0; {doubt}"


def test_what_the_settings_turn_off_is_said_without_alarm(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    start_line.say(logging.getLogger("test"), Settings(patch_requests=False))

    [record] = caplog.records
    assert "off: one pool of connections for all sessions of requests" in record.getMessage()
    assert record.levelno == logging.INFO


def test_cause_of_several_is_named_without_what_is_used_instead() -> None:
    problem = Problem("", "this system has no descriptors of processes (pidfd)")

    assert problem.sentence("") == "this system has no descriptors of processes (pidfd)"
    assert problem.sentence("gevent's own are used").endswith("(pidfd), gevent's own are used")
