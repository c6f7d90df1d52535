"""The blueprint of the accounts, which their views register on."""

from flask import Blueprint

blueprint = Blueprint("auth", __name__)
