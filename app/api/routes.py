"""The blueprint of the API, which its views register on."""

from flask import Blueprint
from flask.blueprints import BlueprintSetupState

from ..extensions import csrf

blueprint = Blueprint("api", __name__)
# Bearer calls need no CSRF token, and sessions are checked in auth.py, where it is known which of the two it is.
csrf.exempt(blueprint)


@blueprint.record_once
def keep_key_order(state: BlueprintSetupState) -> None:
    """Documents keep the order they were written in; Flask would sort what the sources sent as well."""
    state.app.json.sort_keys = False  # type: ignore[attr-defined]
