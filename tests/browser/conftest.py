"""The application in a real Chromium, as somebody with a mouse, a thumb or a keyboard uses it."""

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_migrate import upgrade
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool
from werkzeug.serving import make_server

from app import create_app, seed
from app.extensions import db
from app.postgres import psycopg2_url

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",  # runs as root in containers
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
# Long enough for a slow machine, and still a bound.
TIMEOUT_MS = 15_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def outbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instance folder's outbox: where mail lands in development."""
    return tmp_path_factory.mktemp("browser-instance") / "outbox"


@pytest.fixture(scope="session")
def database_url(postgres_url: str) -> Iterator[str]:
    """A database of this ring's own, so that no other test empties its tables meanwhile."""
    name = f"browser_{os.getpid()}"
    engine = create_engine(psycopg2_url(postgres_url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield psycopg2_url(postgres_url).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def served_app(database_url: str, outbox: Path) -> Iterator[tuple[Flask, str]]:
    """The application on a free port, and its address."""
    # The server is made first, because the application must know its own address: the demo board and mails name it.
    server = make_server("127.0.0.1", 0, application := Late(), threaded=True)
    url = f"http://127.0.0.1:{server.port}"
    app = create_app(
        {
            "DATABASE_URL": database_url,
            "INSTANCE_PATH": str(outbox.parent),
            "PUBLIC_URL": url,
            "SIGN_IN_LIMIT": "1000",
            "JOBS": "thread",
        }
    )
    with app.app_context():
        upgrade()
        seed.demo_board(url)
    application.app = app
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield app, url
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
        with app.app_context():
            db.engine.dispose()


class Late:
    """A WSGI application that is filled in after the server has its port."""

    app: Flask

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        return self.app(environ, start_response)


@pytest.fixture(scope="session")
def server_url(served_app: tuple[Flask, str]) -> str:
    """Where the application under test is served."""
    return served_app[1]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for one module: Playwright keeps an event loop running in this thread for as long as it is open."""
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(CHROMIUM_NAMES)})")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """One visitor: a browser context of its own, whose pages must not complain."""

    def __init__(self, context: BrowserContext) -> None:
        self.context = context
        self.complaints: list[str] = []
        context.on("console", lambda message: self._note(message.type, message.text, message.location))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.set_default_timeout(TIMEOUT_MS)
        self.page = context.new_page()

    def _note(self, kind: str, words: str, location: Any) -> None:
        # A page that answers 4xx is an "error" in the console too; the tests that ask for one look at the page.
        if kind in ("error", "warning") and "Failed to load resource: the server responded" not in words:
            self.complaints.append(f"{words} at {location}")


@pytest.fixture
def visit(chromium: Browser, server_url: str) -> Iterator[Callable[..., Page]]:
    """`visit(viewport=PHONE, color_scheme="dark", ...)`: a new visitor's page, on the first page of the application.

    At the end no page may have logged an error or broken the Content-Security-Policy.
    """
    visits: list[Visit] = []

    def begin(**options: Any) -> Page:
        options = {"viewport": DESKTOP, "base_url": server_url, "locale": "en-GB"} | options
        visits.append(Visit(chromium.new_context(**options)))
        visits[-1].page.goto("/")
        return visits[-1].page

    yield begin
    for each in visits:
        each.context.close()
    assert [complaint for each in visits for complaint in each.complaints] == []


@pytest.fixture
def mailed_link(outbox: Path) -> Callable[[str], str]:
    """`mailed_link("ann@example.org")`: the reset link in the newest mail to this address, once it is there."""

    def find(email: str, timeout_seconds: float = 15.0) -> str:
        give_up = threading.Event()
        for _ in range(int(timeout_seconds / 0.05)):
            for file in sorted(outbox.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
                content = file.read_text()
                link = re.search(r"http://\S+/reset-password/\S+", content)
                if f"To: {email}" in content and link:
                    return link[0]
            give_up.wait(0.05)
        raise AssertionError(f"no mail to {email} in {outbox}")

    return find


@pytest.fixture
def new_email() -> Callable[[], str]:
    """Addresses that no other test uses: the database is shared by the whole ring."""
    return lambda: f"user{next(NUMBERS)}@example.org"


NUMBERS = iter(range(1, 10_000))
