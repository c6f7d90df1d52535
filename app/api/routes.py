"""The blueprint of the API, which its views register on."""

from flask import Blueprint

from ..extensions import csrf

blueprint = Blueprint("api", __name__)
# Bearer calls need no CSRF token, and sessions are checked in auth.py, where it is known which of the two it is.
csrf.exempt(blueprint)
