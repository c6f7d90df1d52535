"""The application in a real Chromium, as somebody with a mouse, a thumb or a keyboard uses it."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from ..live.conftest import PYTHON_MODULE, Server, free_port

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
def server_url(outbox: Path) -> Iterator[str]:
    """Where the application is served, by the server as a newcomer starts it."""
    port = free_port()
    environ = {
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": "off",  # it has one port for the whole machine
        "INSTANCE_PATH": str(outbox.parent),
        "SIGN_IN_LIMIT": "1000",
        "JOBS": "thread",
        "WEB_CONCURRENCY": "1",
    }
    server = Server([*PYTHON_MODULE, "gunicorn"], environ, outbox.parent / "server.log", port).wait_ready()
    yield server.url
    server.stop()
    print(server.text())  # shown by pytest only when a test failed


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

    def find(email: str, timeout_seconds: float = 30.0) -> str:
        give_up_at = time.monotonic() + timeout_seconds
        while time.monotonic() < give_up_at:
            for file in sorted(outbox.glob("*"), key=lambda path: path.stat().st_mtime, reverse=True):
                content = file.read_text()
                link = re.search(r"http://\S+/reset-password/\S+", content)
                if f"To: {email}" in content and link:
                    return link[0]
            time.sleep(0.05)
        raise AssertionError(f"no mail to {email} in {outbox}")

    return find


@pytest.fixture
def new_email() -> Callable[[], str]:
    """Addresses that no other test uses: the database is shared by the whole ring."""
    return lambda: f"user{next(NUMBERS)}@example.org"


NUMBERS = iter(range(1, 10_000))
