"""The application runs unchanged under every server: the promise that `app/` is plain blocking code."""

from collections.abc import Callable

import pytest
import requests

from .conftest import PYTHON_MODULE, Server

GUNICORN = (*PYTHON_MODULE, "gunicorn")
# Neither Greenroom's configuration nor its package: gunicorn as anybody would start it.
PLAIN_GTHREAD = (
    *GUNICORN, "-c", "python:gunicorn.config", "-k", "gthread", "--threads", "16",
    "-b", "127.0.0.1:{port}", "--no-control-socket", "app:create_app()",
)  # fmt: skip
SERVERS = {
    "flask run": ({}, (*PYTHON_MODULE, "flask", "--app", "app", "run", "--port", "{port}")),
    "plain gunicorn gthread": ({}, PLAIN_GTHREAD),
    "gunicorn.conf.py, gthread": ({"GREENROOM_WORKER_CLASS": "gthread"}, GUNICORN),
    "gunicorn.conf.py, greenroom": ({}, GUNICORN),
    "gunicorn.conf.py, gevent": ({"GREENROOM_WORKER_CLASS": "gevent"}, GUNICORN),
    "gunicorn.conf.py, gevent_pywsgi": ({"GREENROOM_WORKER_CLASS": "gevent_pywsgi"}, GUNICORN),
    "greenroom serve": ({}, (*PYTHON_MODULE, "greenroom", "serve")),
}


@pytest.mark.parametrize("name", SERVERS)
def test_the_application_answers_the_same_under_every_server(
    start: Callable[..., Server], database_url: str, name: str
) -> None:
    environ, command = SERVERS[name]
    server = start({**environ, "DATABASE_URL": database_url}, command).wait_ready()

    health = requests.get(server.url + "/healthz", timeout=30)
    missing = requests.get(server.url + "/api/boards/missing", timeout=30)
    page = requests.get(server.url + "/", timeout=30)
    slow = requests.get(server.url + "/demo/delay/50", timeout=30)

    assert health.json() == {"status": "ok"}
    assert (missing.status_code, missing.headers["Content-Type"]) == (404, "application/problem+json")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert slow.json() == {"delay_ms": 50}
    assert server.stop() == (0 if name != "flask run" else -15)  # werkzeug leaves by the signal itself
