"""The JSON API: boards and their results."""

from flask import Blueprint

blueprint = Blueprint("api", __name__)
