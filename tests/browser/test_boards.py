"""Boards as people see them: make one, watch it, change it, with and without JavaScript."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from .conftest import DESKTOP, PHONE

Visit = Callable[..., Page]
NUMBERS = itertools.count(1)


def sign_up(page: Page, email: str) -> None:
    page.goto("/sign-up")
    page.get_by_label("E-mail address").fill(email)
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Sign up").click()
    page.get_by_role("button", name="Sign out").wait_for()


def fill_row(page: Page, index: int, name: str, url: str) -> None:
    page.get_by_label("Name", exact=True).nth(index).fill(name)
    page.get_by_label("URL", exact=True).nth(index).fill(url)


def save(page: Page) -> None:
    page.get_by_role("button", name="Save the board").click()


def row(page: Page, name: str) -> Any:
    return page.locator(f'.source[data-name="{name}"]')


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_from_signing_up_to_signing_out(
    visit: Visit, server_url: str, new_email: Callable[[], str], viewport: dict[str, int], scheme: str
) -> None:
    slug = f"journey-{next(NUMBERS)}"
    page = visit(viewport=viewport, color_scheme=scheme, has_touch=viewport == PHONE)

    page.get_by_role("link", name="Make your own").click()
    sign_up(page, new_email())
    page.get_by_role("link", name="New board").click()
    page.get_by_label("Title").fill("City life")
    page.get_by_label("Name in addresses").fill(slug)
    fill_row(page, 0, "quick", f"{server_url}/demo/delay/50")
    fill_row(page, 1, "slow", f"{server_url}/demo/delay/700")
    fill_row(page, 2, "broken", f"{server_url}/demo/error/503")
    save(page)

    # The quick ones are there while the slow one is still out.
    expect(row(page, "quick")).to_have_attribute("data-state", "ok")
    expect(row(page, "slow")).to_have_attribute("data-state", "waiting")
    expect(page.get_by_text("3 of 3 sources came back in")).to_be_visible()
    expect(row(page, "slow")).to_have_attribute("data-state", "ok")
    expect(row(page, "broken").get_by_text("503 Service Unavailable")).to_be_visible()
    row(page, "slow").get_by_text("Body").click()
    expect(row(page, "slow").locator("pre")).to_contain_text('"delay_ms": 700')

    page.get_by_role("link", name="Edit").click()
    page.get_by_label("Title").fill("City life at night")
    page.get_by_role("button", name="Move up").nth(1).click()
    page.get_by_role("button", name="Remove").nth(2).click()
    page.get_by_role("button", name="Add a source").click()
    fill_row(page, 2, "new", f"{server_url}/demo/payload/10")
    save(page)

    expect(page.get_by_role("heading", name="City life at night")).to_be_visible()
    expect(page.get_by_text("3 of 3 sources came back in")).to_be_visible()
    assert page.locator(".source h3").all_text_contents() == ["slow", "quick", "new"]
    expect(row(page, "slow").locator("svg.chart rect")).to_have_count(2)

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_text("You are signed out.")).to_be_visible()
    page.goto(f"/boards/{slug}")
    expect(page.get_by_role("heading", name="Not Found")).to_be_visible()


def test_the_first_page_leads_to_a_demo_that_works(visit: Visit) -> None:
    page = visit()

    page.get_by_role("link", name="Watch the demo board").click()

    expect(page.get_by_text("8 of 8 sources came back in")).to_be_visible()
    together = page.locator("[data-together]").inner_text()
    apart = page.locator("[data-apart]").inner_text()
    # Nearly the time of the slowest one (1 s), and far from the sum (3.3 s).
    assert milliseconds(together) < 2000 < milliseconds(apart)


def milliseconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * (1000 if unit == "s" else 1)


def test_fetch_now_asks_again_without_leaving_the_page(visit: Visit) -> None:
    page = visit()
    page.goto("/boards/demo")
    expect(page.get_by_text("8 of 8 sources came back in")).to_be_visible()
    bars = row(page, "weather").locator("svg.chart rect")
    before = bars.count()

    page.get_by_role("button", name="Fetch now").click()
    expect(row(page, "too slow")).to_have_attribute("data-state", "waiting")
    expect(page.get_by_text("8 of 8 sources came back in")).to_be_visible()

    assert bars.count() == min(30, before + 1)
    assert page.url.endswith("/boards/demo")


def test_a_stream_that_breaks_says_so_and_does_not_start_again_by_itself(visit: Visit) -> None:
    page = visit()
    asked = []
    page.route("**/stream", lambda route: asked.append(1) or route.fulfill(status=503, body="down"))

    page.goto("/boards/demo")

    expect(page.get_by_text("The connection was lost")).to_be_visible()
    expect(row(page, "weather")).to_have_attribute("data-state", "idle")
    assert asked == [1]


def test_what_sources_send_is_shown_as_text(visit: Visit) -> None:
    page = visit()
    markup = "<img src=x onerror=alert(1)>"
    body = (
        'event: source\ndata: {"name": "weather", "status": 200, "elapsed_ms": 5, "body": "' + markup + '"}\n\n'
        'event: done\ndata: {"board": "demo", "elapsed_ms": 5}\n\n'
    )
    page.route("**/stream", lambda route: route.fulfill(content_type="text/event-stream", body=body))

    page.goto("/boards/demo")
    row(page, "weather").get_by_text("Body").click()

    expect(row(page, "weather").locator("pre")).to_have_text(markup)
    assert page.locator("pre img").count() == 0


def test_without_javascript_a_button_fetches_and_the_page_shows_everything(visit: Visit) -> None:
    page = visit(java_script_enabled=False)
    page.goto("/boards/demo")
    expect(page.get_by_text("Press “Fetch now”")).to_be_visible()

    page.get_by_role("button", name="Fetch now").click()

    expect(page.get_by_text("8 of 8 sources came back in")).to_be_visible()
    expect(row(page, "broken").get_by_text("503 Service Unavailable")).to_be_visible()
    expect(row(page, "too slow").get_by_text("no answer within 1000 ms")).to_be_visible()
    row(page, "trains").get_by_text("Body").click()
    expect(row(page, "trains").locator("pre")).to_contain_text('"delay_ms": 250')
    slow, quick = (row(page, name).locator("rect[data-bar]").bounding_box() for name in ("payments", "weather"))
    assert slow["width"] > 2 * quick["width"]


def test_without_javascript_a_board_is_made_and_changed(
    visit: Visit, server_url: str, new_email: Callable[[], str]
) -> None:
    slug = f"plain-{next(NUMBERS)}"
    page = visit(java_script_enabled=False)
    sign_up(page, new_email())
    page.goto("/boards/new")
    page.get_by_label("Title").fill("Plain")
    page.get_by_label("Name in addresses").fill(slug)
    fill_row(page, 0, "first", f"{server_url}/demo/delay/0")
    page.get_by_role("button", name="Add a source").click()
    assert page.get_by_label("URL", exact=True).count() == 6
    fill_row(page, 5, "second", "ftp://example.org")
    page.get_by_label("Name", exact=True).nth(5).press("Enter")  # saves: the first button is not a row's

    expect(page.get_by_text("The board is not saved yet")).to_be_visible()
    expect(page.get_by_text("Start with http:// or https://")).to_be_visible()
    fill_row(page, 5, "second", f"{server_url}/demo/delay/10")
    page.get_by_role("button", name="Move up").nth(5).click()
    save(page)
    page.get_by_role("link", name="Edit").click()
    page.get_by_role("button", name="Move down").first.click()
    save(page)

    assert page.locator(".source h3").all_text_contents() == ["second", "first"]


def test_deleting_asks_first(visit: Visit, server_url: str, new_email: Callable[[], str]) -> None:
    slug = f"doomed-{next(NUMBERS)}"
    page = visit()
    sign_up(page, new_email())
    page.goto("/boards/new")
    page.get_by_label("Title").fill("Doomed")
    page.get_by_label("Name in addresses").fill(slug)
    fill_row(page, 0, "only", f"{server_url}/demo/delay/0")
    save(page)
    page.get_by_role("link", name="Edit").click()

    page.get_by_role("link", name="Delete…").click()
    page.get_by_role("link", name="Keep it").click()
    expect(page.get_by_role("heading", name="Doomed")).to_be_visible()
    page.goto(f"/boards/{slug}/delete")
    page.get_by_role("button", name="Delete the board").click()

    expect(page.get_by_text("The board “Doomed” is deleted.")).to_be_visible()


def test_the_name_in_addresses_follows_the_title_until_written(visit: Visit, new_email: Callable[[], str]) -> None:
    page = visit()
    sign_up(page, new_email())
    page.goto("/boards/new")

    page.get_by_label("Title").fill("  Café: the 2nd!  ")
    expect(page.get_by_label("Name in addresses")).to_have_value("cafe-the-2nd")
    page.get_by_label("Name in addresses").fill("mine")
    page.get_by_label("Title").fill("Something else")

    expect(page.get_by_label("Name in addresses")).to_have_value("mine")


def test_rows_keep_their_labels_when_they_move(visit: Visit, new_email: Callable[[], str]) -> None:
    page = visit()
    sign_up(page, new_email())
    page.goto("/boards/new")
    for index in range(3):
        fill_row(page, index, f"source {index}", "")

    page.get_by_role("button", name="Move down").nth(0).click()
    page.get_by_role("button", name="Remove").nth(0).click()
    page.get_by_role("button", name="Add a source").click()

    names = page.get_by_label("Name", exact=True)
    assert [names.nth(index).input_value() for index in range(3)] == ["source 0", "source 2", ""]
    assert [names.nth(index).get_attribute("id") for index in range(3)] == ["name-0", "name-1", "name-2"]
    expect(names.nth(2)).to_be_focused()
