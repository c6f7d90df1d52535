"""Pictures of the ops page for the documentation: `python -m tests.live.screenshots` stages each trouble and writes
docs/ops-*.png. Needs Chromium."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from devdb.server import EmbeddedPostgres

from .conftest import ROOT
from .staging import Ops, clients, staged

DOCS = ROOT / "docs"
Asked = Sequence[tuple[str, int] | tuple[str, int, float]]
# Some traffic that is well, so that it looks like a server at work.
CALM: Asked = (("/", 2, 0.05), ("/upstream/120", 4), ("/work/4", 1, 0.05), ("/query/15", 2, 0.05))
STAGES: dict[str, tuple[str, Asked]] = {
    "healthy": ("healthy", ()),
    "regex": ("blocked", (("/regex/31", 1),)),
    "pool": ("pool", (("/pool/900", 24),)),
    "upstream": ("upstream", (("/upstream/6000", 14),)),
    "held": ("held", (("/held/700", 24),)),
    "deadlock": ("deadlock", (("/locks/left", 4), ("/locks/right", 4))),
    "overload": ("overload", (("/work/20", 60),)),
    "dead-worker": ("died", ()),
}


def picture(browser: Browser, ops: Ops, name: str, settle_seconds: float) -> None:
    for suffix, options in (
        ("", {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light"}),
        *((("-dark", {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "dark"}),) * (name == "held")),
        *((("-phone", {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}),) * (name == "pool")),
    ):
        context: Any = browser.new_context(**options)
        page = context.new_page()
        page.goto(ops.url)
        page.wait_for_selector("[data-level]:not([data-level=wait])")
        page.wait_for_timeout(settle_seconds * 1000)
        page.screenshot(path=DOCS / f"ops-{name}{suffix}.png")
        context.close()


def stage(browser: Browser, postgres_url: str, name: str) -> None:
    cause, asked = STAGES[name]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        shown = stack.enter_context(staged(folder, postgres_url))
        stack.enter_context(clients(shown.server.url, *CALM))
        time.sleep(12)
        stack.enter_context(clients(shown.server.url, *asked))
        if cause == "died":
            shown.server.workers()[0].kill()
        print(f"{name}: {shown.verdict(cause)['sentence']}", flush=True)
        picture(browser, shown.ops, name, 4.0)


def main(names: Sequence[str]) -> None:
    find: Callable[[str], str | None] = shutil.which
    chromium = next(filter(None, map(find, ("chromium", "chromium-browser", "google-chrome"))))
    postgres = EmbeddedPostgres(ROOT / "instance" / "tests" / "postgres")
    postgres_url = postgres.start()
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            for name in names or STAGES:
                stage(browser, postgres_url, name)
            browser.close()
    finally:
        postgres.stop()


if __name__ == "__main__":
    import sys

    os.environ.setdefault("PYTHONWARNINGS", "default")
    main(sys.argv[1:])
