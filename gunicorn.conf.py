"""How gunicorn runs the reference application, or any other; `gunicorn` without arguments reads this file.

Every value comes from the environment or `.env` (see .env-template); greenroom/configuration.py gives the reasons. Here
stands only what the reference application needs beside a server: its check of settings, and its companion.
"""

from pathlib import Path

from greenroom.companion import python_module
from greenroom.configuration import configure, named_app
from greenroom.importing import package_folder
from greenroom.settings import read_environment

HERE = Path(__file__).resolve().parent
REFERENCE_APP = "app:create_app()"

environ = read_environment(HERE / ".env")
served = named_app(environ) or REFERENCE_APP
# Another package may have the name of ours.
is_reference_app = package_folder(served) == HERE / "app"

globals().update(
    configure(
        environ,
        wsgi_app=served,
        check_command=python_module("app.config") if is_reference_app else None,
        companion_command=python_module("devdb.prepare") if is_reference_app else None,
    )
)
