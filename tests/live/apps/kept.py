"""Applications that keep a connection for each thread: Django with CONN_MAX_AGE, and a plain threading.local."""

import os
import threading
from typing import Any

import psycopg2
import psycopg2.extensions

URL = os.environ["KEPT_DATABASE_URL"]
kept = threading.local()


def plain() -> Any:
    """One connection for each thread, for as long as it lives."""
    if not hasattr(kept, "connection"):
        kept.connection = psycopg2.connect(URL, application_name="kept")
        kept.connection.autocommit = True
    return kept.connection


def plain_application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    with plain().cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.005)")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def in_a_circle(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """The same, kept by objects that refer to each other, as those of many libraries do."""
    if not hasattr(kept, "wrapper"):
        kept.wrapper = {"connection": psycopg2.connect(URL, application_name="kept")}
        kept.wrapper["itself"] = kept.wrapper
    with kept.wrapper["connection"].cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.005)")
    kept.wrapper["connection"].rollback()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ok"]


def django() -> Any:
    from django.conf import settings
    from django.core.wsgi import get_wsgi_application
    from django.db import connection
    from django.http import HttpResponse
    from django.urls import path

    parts = psycopg2.extensions.parse_dsn(URL)
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts["dbname"],
        **{name.upper(): parts.get(name, "") for name in ("user", "password", "host", "port")},
        "CONN_MAX_AGE": 600,
        "OPTIONS": {"application_name": "kept"},
    }

    def view(request: Any) -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(0.005)")
        return HttpResponse("ok")

    settings.configure(
        ALLOWED_HOSTS=["*"], DATABASES={"default": database}, ROOT_URLCONF=(path("", view), path("django", view)),
        SECRET_KEY="for tests only",
    )  # fmt: skip
    return get_wsgi_application()


APPLICATIONS = {"/plain": plain_application, "/circle": in_a_circle}
if os.environ.get("KEPT_DJANGO"):
    APPLICATIONS["/django"] = django()


def app(environ: dict[str, Any], start_response: Any) -> Any:
    return APPLICATIONS.get(environ["PATH_INFO"], ready)(environ, start_response)


def ready(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"ready"]
