"""Accounts: sign up, sign in, sign out, reset a password, API tokens. Take it to the next project."""

from flask import Blueprint

blueprint = Blueprint("auth", __name__)
