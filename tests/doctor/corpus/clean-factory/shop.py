"""A factory with blueprints, configuration and error handlers."""

import logging
import os
from pathlib import Path

from flask import Blueprint, Flask, g, request

logger = logging.getLogger(__name__)
pages = Blueprint("pages", __name__)
HERE = Path(__file__).parent


@pages.before_app_request
def remember():
    g.language = request.accept_languages.best_match(["en", "de"]) or "en"


@pages.get("/")
def index():
    return {"language": g.language, "name": (HERE / "shop.py").name}


@pages.get("/search")
def search():
    return {"asked": request.args.get("q", "")}


def create_app():
    application = Flask(__name__)
    application.config["SECRET_KEY"] = os.environ.get("SECRET_KEY", "for development only")
    application.register_blueprint(pages)

    @application.errorhandler(404)
    def missing(error):
        logger.info("not found")
        return {"error": "not found"}, 404

    return application


app = create_app()
