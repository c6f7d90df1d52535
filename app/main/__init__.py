"""The core: health checks and the pages of the boards."""

from flask import Blueprint

blueprint = Blueprint("main", __name__)

from . import editor, filters, health, pages  # noqa: E402,F401 - they register themselves on the blueprint
