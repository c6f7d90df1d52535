"""A Django project's settings, kept in a file beside a plain WSGI application."""

import settings


def app(environ, start_response):
    body = f"debug={settings.DEBUG}".encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
