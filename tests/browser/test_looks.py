"""Every page at every width, in the light and in the dark: nothing runs out of the page, everything can be read.

With BROWSER_SCREENSHOTS=some/folder each page is also photographed there, to be looked at.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import DESKTOP, PHONE

# Of all visible text, what has less contrast with the colour behind it than WCAG AA wants: 4.5, or 3 if it is large.
PALE_TEXT = """
() => {
  const luminance = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map((part) => {
      const value = part / 255;
      return value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const parse = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parse(getComputedStyle(each).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) {
        return colour;
      }
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !element.checkVisibility() || element.closest("noscript, title, template")) {
      continue;
    }
    const style = getComputedStyle(element);
    const [one, two] = [parse(style.color), behind(element)].map(luminance).sort((a, b) => b - a);
    const size = parseFloat(style.fontSize);
    const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const contrast = (one + 0.05) / (two + 0.05);
    if (contrast < (isLarge ? 3 : 4.5)) {
      found.push(`${walker.currentNode.data.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
    }
  }
  return found;
}
"""


@pytest.fixture
def look(server_url: str) -> Callable[[Page, str], None]:
    folder = os.environ.get("BROWSER_SCREENSHOTS")

    def check(page: Page, name: str) -> None:
        width = page.viewport_size["width"]
        page.wait_for_load_state("load")  # with its style sheet
        if folder:
            scheme = "dark" if page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
            page.screenshot(path=Path(folder) / f"{scheme}-{width}-{name}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{name} can be scrolled sideways"
        assert page.evaluate(PALE_TEXT) == [], f"{name} has text that is hard to read"
        assert page.locator("h1").count() == 1
        unlabelled = "[...document.querySelectorAll('input:not([type=hidden])')].filter((each) => !each.labels.length)"
        assert page.evaluate(f"{unlabelled}.length") == 0

    return check


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_fits_and_can_be_read(
    visit: Callable[..., Page],
    new_email: Callable[[], str],
    server_url: str,
    look: Callable[[Page, str], None],
    viewport: dict[str, int],
    scheme: str,
) -> None:
    # With motion reduced colours change at once, so that none is measured half-way.
    page = visit(viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    email = new_email()
    slug = email.partition("@")[0]

    look(page, "boards")
    page.goto("/boards/demo")
    expect(page.get_by_text("8 of 8 sources came back in")).to_be_visible()
    page.locator("summary").first.click()
    look(page, "demo")
    for path in ("/sign-in", "/reset-password", "/reset-password/forged", "/sign-up", "/no-such-page"):
        page.goto(path)
        look(page, path.strip("/").replace("/", "-"))
    page.goto("/api/docs")
    page.locator("summary").nth(1).click()
    look(page, "api")
    page.goto("/sign-up")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Sign up").click()
    page.get_by_text("None yet.").wait_for()
    look(page, "boards-signed-in")
    page.goto("/boards/new")
    look(page, "new-board")
    page.get_by_label("Title").fill("x" * 120)
    page.get_by_label("Name in addresses").fill(slug)
    page.get_by_label("Name", exact=True).first.fill("w" * 80)
    page.get_by_label("URL", exact=True).first.fill("ftp://example.org/" + "y" * 500)
    page.get_by_role("button", name="Save the board").click()
    page.get_by_text("The board is not saved yet").wait_for()
    look(page, "new-board-errors")
    page.get_by_label("URL", exact=True).first.fill(f"{server_url}/demo/payload/3000?" + "y" * 500)
    page.get_by_role("button", name="Save the board").click()
    expect(page.get_by_text("1 of 1 sources came back in")).to_be_visible()
    page.locator("summary").first.click()
    look(page, "long-names")
    page.goto("/")
    look(page, "boards-with-long-names")
    page.goto(f"/boards/{slug}/delete")
    look(page, "delete")
    page.goto("/tokens")
    page.get_by_label("Name").fill("n" * 80)
    page.get_by_role("button", name="Create").click()
    look(page, "tokens")


def test_with_motion_reduced_no_bar_grows(visit: Callable[..., Page]) -> None:
    page = visit(reduced_motion="reduce")
    page.goto("/boards/demo")
    expect(page.locator('.source[data-name="weather"]')).to_have_attribute("data-state", "ok")

    def width(name: str) -> Any:
        return page.locator(f'.source[data-name="{name}"] [data-bar]').get_attribute("width")

    assert width("too slow") == "0"
    expect(page.get_by_text("8 of 8 sources came back in")).to_be_visible()
    assert width("too slow") != "0"
