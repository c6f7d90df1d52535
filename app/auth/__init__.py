"""Accounts: sign up, sign in, sign out, reset a password, API tokens. Take it to the next project.

It needs the models User and ApiToken, `extensions` (db, login_manager), `sessions.renew_id`, `jobs.enqueue` for mail,
the settings SECRET_KEY, PUBLIC_URL and SIGN_IN_LIMIT, and a base template.
"""

from . import identity, tokens, views
from .routes import blueprint

__all__ = ["blueprint", "identity", "tokens", "views"]
