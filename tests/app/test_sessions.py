import hashlib
import pickle
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
from flask import Flask, session
from sqlalchemy import insert, text

from app import create_app
from app.extensions import db
from app.models import StoredSession, utc_now
from app.sessions import MessagePack, renew_id
from tests.support import PASSWORD

MakeApp = Callable[..., Flask]
ID = "a" * 43


class Detonator:
    """Unpickling this raises the alarm."""

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return pytest.fail, ("stored bytes were unpickled",)


@pytest.fixture(scope="module")
def _make_app(_app: Flask, postgres_url: str, instance_path: Path) -> Iterator[MakeApp]:
    made: dict[Any, Flask] = {}

    def make(instance: int = 1, **environ: str) -> Flask:
        key = (instance, *environ.items())
        if key not in made:
            made[key] = create_app({"DATABASE_URL": postgres_url, "INSTANCE_PATH": str(instance_path)} | environ)
            add_views(made[key])
        return made[key]

    yield make
    for app in made.values():
        with app.app_context():
            db.engine.dispose()
        if "redis" in app.extensions:
            app.extensions["redis"].close()


@pytest.fixture
def make_app(app: Flask, _make_app: MakeApp) -> MakeApp:
    """Makes instances of the application over the same, empty database; those with equal settings are made once."""
    return _make_app


def add_views(app: Flask) -> None:
    """/put stores, /get shows, /renew gives a new id, /end empties; /slow stores, and waits for another request."""

    @app.get("/put")
    def put() -> dict[str, str]:
        session["value"] = "secret value"
        return {}

    @app.get("/get")
    def get() -> dict[str, str | None]:
        return {"value": session.get("value")}

    @app.get("/renew")
    def renew() -> dict[str, str]:
        renew_id(app, session)
        return {}

    @app.get("/slow")
    def slow() -> dict[str, str]:
        session["value"] = "written after the end"
        app.extensions["meanwhile"]()
        return {}

    @app.get("/end")
    def end() -> dict[str, str]:
        session.clear()
        renew_id(app, session)
        return {}


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Redis of our own, which keeps nothing."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on this machine")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            wait_for_redis(port)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()


def wait_for_redis(port: int, timeout_seconds: float = 20.0) -> None:
    give_up_at = time.monotonic() + timeout_seconds
    with redis.Redis(port=port, socket_timeout=5) as client:
        while True:
            try:
                client.ping()
                return
            except redis.ConnectionError:
                assert time.monotonic() < give_up_at, "redis-server did not start"
                time.sleep(0.02)


@pytest.fixture(params=["postgres", "redis"])
def stored(request: pytest.FixtureRequest, make_app: MakeApp) -> MakeApp:
    """Makes applications whose sessions are in PostgreSQL, and again in Redis."""
    environ = {}
    if request.param == "redis":
        environ["REDIS_URL"] = request.getfixturevalue("redis_url")
    return lambda **more: make_app(**environ, **more)


def cookie_of(client: object) -> str | None:
    cookie = client.get_cookie("session")
    return cookie.value if cookie else None


def test_what_is_put_into_a_session_is_there_in_the_next_request(stored: MakeApp) -> None:
    client = stored().test_client()

    client.get("/put")

    assert client.get("/get").json == {"value": "secret value"}


def test_instances_of_the_application_share_sessions(stored: MakeApp) -> None:
    one, two = stored(instance=1).test_client(), stored(instance=2).test_client()

    one.get("/put")
    two.set_cookie("session", cookie_of(one))

    assert two.get("/get").json == {"value": "secret value"}


def test_the_cookie_is_a_random_id_and_nothing_else(stored: MakeApp) -> None:
    client = stored().test_client()

    header = client.get("/put").headers["Set-Cookie"]

    value, *attributes = header.split("; ")
    assert len(value) == len("session=") + 43  # 32 random bytes in base 64
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} < set(attributes)
    assert "Secure" not in attributes  # development


def test_the_cookie_is_secure_in_production(make_app: MakeApp) -> None:
    app = make_app(APP_ENV="production", SECRET_KEY="k" * 32, PUBLIC_URL="https://boards.example", MAIL_SERVER="mail")

    header = app.test_client().get("/put", base_url="https://boards.example").headers["Set-Cookie"]

    assert "; Secure; HttpOnly;" in header


def test_visitors_who_store_nothing_get_no_session(stored: MakeApp) -> None:
    response = stored().test_client().get("/get")

    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("forged", [ID, "short", "a" * 3000, "ü\x7f", "' OR 1=1 --", "../../etc/passwd"])
def test_an_id_that_we_did_not_give_out_is_not_adopted(stored: MakeApp, forged: str) -> None:
    client = stored().test_client()
    client.set_cookie("session", forged)

    client.get("/put")

    assert cookie_of(client) != forged
    assert client.get("/get").json == {"value": "secret value"}


def test_a_new_id_replaces_the_old_one_which_is_worth_nothing_from_then_on(stored: MakeApp) -> None:
    app = stored()
    client, thief = app.test_client(), app.test_client()
    client.get("/put")
    old = cookie_of(client)

    client.get("/renew")
    thief.set_cookie("session", old)

    assert cookie_of(client) != old
    assert client.get("/get").json == {"value": "secret value"}
    assert thief.get("/get").json == {"value": None}


def test_an_ended_session_is_gone_from_browser_and_store(stored: MakeApp) -> None:
    app = stored()
    client, thief = app.test_client(), app.test_client()
    client.get("/put")
    old = cookie_of(client)

    client.get("/end")
    thief.set_cookie("session", old)

    assert cookie_of(client) is None
    assert thief.get("/get").json == {"value": None}


def test_a_request_that_runs_while_its_session_is_ended_does_not_bring_it_back(stored: MakeApp) -> None:
    app = stored()
    client, other_tab = app.test_client(), app.test_client()
    client.get("/put")
    other_tab.set_cookie("session", cookie_of(client))
    old = cookie_of(client)
    app.extensions["meanwhile"] = lambda: other_tab.get("/end")

    client.get("/slow")

    client.set_cookie("session", old)
    assert client.get("/get").json == {"value": None}


def test_a_session_is_over_after_its_lifetime(stored: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    app = stored()
    monkeypatch.setitem(app.config, "PERMANENT_SESSION_LIFETIME", timedelta(milliseconds=100))
    client = app.test_client()
    client.get("/put")
    kept = cookie_of(client)

    give_up_at = time.monotonic() + 10
    while client.get("/get").json["value"] is not None and time.monotonic() < give_up_at:
        time.sleep(0.02)
        client.set_cookie("session", kept)  # a browser would have dropped it by now; a thief does not

    client.set_cookie("session", kept)
    assert client.get("/get").json == {"value": None}


def test_the_table_holds_no_id_that_could_be_used(make_app: MakeApp) -> None:
    app = make_app()
    client = app.test_client()
    client.get("/put")

    with app.app_context(), db.engine.connect() as connection:
        [stored_id] = connection.scalars(text("SELECT id FROM sessions"))

    assert stored_id == hashlib.sha256(f"session:{cookie_of(client)}".encode()).hexdigest()


def test_redis_holds_no_id_that_could_be_used(make_app: MakeApp, redis_url: str) -> None:
    app = make_app(REDIS_URL=redis_url)
    app.extensions["redis"].flushdb()
    client = app.test_client()
    client.get("/put")

    [key] = app.extensions["redis"].keys()

    assert cookie_of(client) not in key.decode()
    assert 0 < app.extensions["redis"].ttl(key) <= 14 * 86_400


@pytest.mark.parametrize(
    "stored_bytes",
    [pickle.dumps({"value": Detonator()}), b"", b"\xc1", b"[1]", msgspec.json.encode({"a": 1}), b"\x93\x01"],
)
def test_stored_bytes_that_are_not_ours_make_an_empty_session(make_app: MakeApp, stored_bytes: bytes) -> None:
    app = make_app()
    with app.app_context(), db.engine.begin() as connection:
        store_id = app.session_interface._get_store_id(ID)
        expires_at = utc_now() + timedelta(hours=1)
        connection.execute(insert(StoredSession).values(id=store_id, data=stored_bytes, expires_at=expires_at))
    client = app.test_client()
    client.set_cookie("session", ID)

    assert client.get("/get").json == {"value": None}
    client.get("/put")
    assert cookie_of(client) != ID


def test_pickled_bytes_in_redis_are_not_loaded(make_app: MakeApp, redis_url: str) -> None:
    app = make_app(REDIS_URL=redis_url)
    app.extensions["redis"].set(app.session_interface._get_store_id(ID), pickle.dumps({"value": Detonator()}))
    client = app.test_client()
    client.set_cookie("session", ID)

    assert client.get("/get").json == {"value": None}


def test_the_serializer_is_the_one_without_pickle(stored: MakeApp) -> None:
    assert type(stored().session_interface.serializer) is MessagePack


def test_an_account_works_with_redis_sessions_and_limits(
    make_app: MakeApp, make_user: Callable[..., int], redis_url: str
) -> None:
    make_user("ann@example.org")
    app = make_app(REDIS_URL=redis_url, SIGN_IN_LIMIT="2")
    app.extensions["redis"].flushdb()
    client = app.test_client()

    def sign_in(password: str) -> int:
        with client.session_transaction():
            pass
        token = client.get("/sign-in").text.partition('name="csrf_token" type="hidden" value="')[2].partition('"')[0]
        form = {"csrf_token": token, "email": "ann@example.org", "password": password}
        return client.post("/sign-in", data=form).status_code

    assert [sign_in("wrong password") for _ in range(3)] == [422, 422, 429]
    app.extensions["redis"].delete(*app.extensions["redis"].keys("LIMITS*"))
    assert sign_in(PASSWORD) == 302
    assert client.get("/tokens").status_code == 200
    with app.app_context(), db.engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM sessions")) == 0


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none", "DB_CONNECT_TIMEOUT_SECONDS": "1"},
        {"REDIS_URL": "redis://127.0.0.1:1/0"},
    ],
)
def test_a_store_that_is_down_is_a_503_page_for_people_and_a_problem_for_programs(
    make_app: MakeApp, environ: dict[str, str]
) -> None:
    app = make_app(**environ)
    client = app.test_client()
    client.set_cookie("session", ID)

    page, problem = client.get("/tokens"), client.get("/api/boards")

    assert page.status_code == problem.status_code == 503
    assert "did not answer" in page.text
    assert page.headers["Retry-After"] == "5"
    assert problem.content_type == "application/problem+json"
    assert "Content-Security-Policy" in page.headers


def test_a_store_that_fails_when_the_session_is_saved_is_a_503_too(
    make_app: MakeApp,
) -> None:
    app = make_app(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", DB_CONNECT_TIMEOUT_SECONDS="1")

    response = app.test_client().get("/put")  # no cookie, so nothing is read; only the save fails

    assert response.status_code == 503
    assert "Set-Cookie" not in response.headers


@pytest.mark.parametrize("path", ["/healthz", "/static/boards.css", "/demo/delay/0"])
def test_paths_without_sessions_work_while_the_store_is_down(make_app: MakeApp, path: str) -> None:
    app = make_app(REDIS_URL="redis://127.0.0.1:1/0")
    client = app.test_client()
    client.set_cookie("session", ID)

    with client.get(path) as response:
        assert response.status_code == 200


def test_answers_that_depend_on_the_session_are_not_cached_for_others(stored: MakeApp) -> None:
    response = stored().test_client().get("/get")

    assert response.headers["Cache-Control"] == "private, no-cache"
    assert "Cookie" in response.headers["Vary"]
