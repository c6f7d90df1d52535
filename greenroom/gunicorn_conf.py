"""The configuration file that `greenroom serve` gives gunicorn: ours, and over it the team's own, if there is one.

gunicorn runs it anew on HUP, so a reload reads new settings.
"""

import os
import sys
from pathlib import Path

from greenroom import own_configuration
from greenroom.chaining import chained
from greenroom.configuration import configure, named_app
from greenroom.errors import GreenroomError
from greenroom.hooks import running
from greenroom.serving_command import OWN_CONFIGURATION
from greenroom.settings import read_env_files, set_from_files

running.from_files = set_from_files(os.environ, read_env_files(Path.cwd()), running.from_files)
ours = configure(os.environ, wsgi_app=named_app(os.environ))
try:
    theirs = own_configuration.read(path) if (path := os.environ.get(OWN_CONFIGURATION)) else {}
except GreenroomError as exc:
    sys.exit(f"Error: {exc}")
globals().update(chained(ours, {name: value for name, value in theirs.items() if not name.startswith("_")}))
