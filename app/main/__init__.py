"""The core: health checks and the pages of the boards."""

from flask import Blueprint

blueprint = Blueprint("main", __name__)

from . import health  # noqa: E402,F401 - registers its views on the blueprint
