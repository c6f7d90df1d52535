"""`greenroom run -- COMMAND`: any program, patched first of all.

    greenroom run -- newrelic-admin run-program gunicorn -k greenroom.Worker shop:app
    greenroom run -- opentelemetry-instrument gunicorn -k greenroom.Worker shop:app
    greenroom run -- celery -A shop worker --pool threads

For programs that import something before a configuration of ours could patch, agents above all. Children that
COMMAND starts itself are not patched.
"""

import os
import shutil
from collections.abc import Sequence

from . import early_hook
from .errors import GreenroomError


def run(arguments: Sequence[str]) -> int:
    """Become the program. Raises GreenroomError when there is none."""
    command = list(arguments[1:] if arguments[:1] == ["--"] else arguments)
    if not command or command[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if command else 2
    program = shutil.which(command[0])
    if program is None:
        raise GreenroomError(f"there is no program {command[0]!r} on PATH: is it installed in this environment?")
    environ = dict(os.environ)
    early_hook.put_first(environ)
    os.execve(program, command, environ)
