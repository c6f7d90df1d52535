"""Boards: the reference application. Plain blocking Flask; it runs unchanged under any WSGI server."""

import logging
from collections.abc import Mapping

from flask import Flask

from . import cli, database, errors, jobs, logs, security, sessions
from .api import blueprint as api
from .auth import blueprint as auth
from .config import Config, read_config
from .demo import blueprint as demo
from .extensions import csrf, login_manager, mail
from .main import blueprint as main
from .upstream import Fetcher


def create_app(environ: Mapping[str, str] | None = None) -> Flask:
    """The application, its parts joined here and nowhere else.

    `environ` holds the settings by their environment names; None reads the process environment and `.env`.
    Raises ConfigError with every wrong setting at once. With no DATABASE_URL the embedded PostgreSQL is started (or
    found running) and migrated; otherwise the database is not touched before the first request.
    """
    config = read_config(environ)
    logs.configure()
    app = Flask(__name__, instance_path=str(config.INSTANCE_PATH.resolve()))
    app.config.from_mapping(flask_settings(config))
    app.json.sort_keys = False  # type: ignore[attr-defined]  # answers of sources stay as they came
    app.extensions["config"] = config
    app.extensions["fetcher"] = Fetcher(
        allow_private=config.allow_private_sources,
        response_bytes=config.SOURCE_RESPONSE_BYTES,
        redirects=config.SOURCE_REDIRECTS,
        budget_ms=config.BOARD_BUDGET_MS,
    )

    errors.init_app(app)
    security.init_app(app, config)
    database.init_app(app, config)
    sessions.init_app(app, config)
    csrf.init_app(app)
    # The context processor of app/auth/identity.py looks the user up only where a template asks for them.
    login_manager.init_app(app, add_context_processor=False)
    mail.init_app(app)
    jobs.init_app(app, config)
    cli.init_app(app)

    app.register_blueprint(main)
    app.register_blueprint(auth)
    app.register_blueprint(api, url_prefix="/api")
    if config.demo:
        app.register_blueprint(demo, url_prefix="/demo")

    database.prepare_embedded(app, config)
    logging.getLogger(__name__).debug("application ready", extra={"app_env": config.APP_ENV})
    return app


def flask_settings(config: Config) -> dict[str, object]:
    """The settings in the names that Flask and its extensions read."""
    return {
        "SECRET_KEY": config.SECRET_KEY,
        "MAX_CONTENT_LENGTH": 1_048_576,
        "SESSION_COOKIE_HTTPONLY": True,
        "SESSION_COOKIE_SAMESITE": "Lax",
        "SESSION_COOKIE_SECURE": config.is_production,
        "SESSION_REFRESH_EACH_REQUEST": False,
        "PERMANENT_SESSION_LIFETIME": config.SESSION_LIFETIME_DAYS * 86_400,
        # Flask-WTF: the token lives in the session, so it ends with it.
        "WTF_CSRF_TIME_LIMIT": None,
        "WTF_CSRF_CHECK_DEFAULT": True,
        "MAIL_BACKEND": "smtp" if config.MAIL_SERVER else "file",
        "MAIL_FILE_PATH": str(config.INSTANCE_PATH / "outbox"),
        "MAIL_SERVER": config.MAIL_SERVER,
        "MAIL_PORT": config.MAIL_PORT,
        "MAIL_USERNAME": config.MAIL_USERNAME or None,
        "MAIL_PASSWORD": config.MAIL_PASSWORD or None,
        "MAIL_USE_TLS": config.MAIL_USE_TLS,
        "MAIL_USE_SSL": config.MAIL_USE_SSL,
        "MAIL_TIMEOUT": config.MAIL_TIMEOUT_SECONDS,
        "MAIL_DEFAULT_SENDER": config.MAIL_SENDER,
    }
