"""The blueprint of the pages, which they register on."""

from flask import Blueprint

blueprint = Blueprint("main", __name__)
