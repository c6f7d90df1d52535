"""The ops page in a real Chromium: beside a server that is loaded, blocked and killed, and with hostile names."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from greenroom.ops.access import Access
from greenroom.ops.history import History
from greenroom.ops.web import MOST_WATCHERS, Board, Part, Web

from ..greenroom.ops.fakes import request, route, seen, shown, snapshot
from ..live.conftest import PYTHON_MODULE, Server, free_port, wait_until
from ..live.staging import TROUBLE, Ops, clients
from .conftest import DESKTOP, PHONE, TIMEOUT_MS, Visit

TOKEN = "0123456789abcdef0123456789abcdef"
HOSTILE = '<img src=x onerror="document.title=1">"\'&{{7*7}}'
BLOCK = {"seconds": 9.0, "line": "shop/views.py:41", "route": "/search", "stack": ["shop/views.py:41 find"]}
# The ops process looks once a second; a busy machine makes that much longer.
LONG_MS = 60_000


class Staged:
    """The page over views that a test makes up."""

    def __init__(self) -> None:
        self.board = Board()
        self.part = Part(
            self.board,
            Access(""),
            stacks=lambda pid, request_id: {"greenlets": [{"name": HOSTILE, "state": "x", "stack": [HOSTILE]}]},
            everything=lambda: "everything there is",
            record=lambda: "recording-1.html",
            recording=lambda name: None,
            history=History(Path("/nowhere/history.sqlite3")),
        )
        self.web = Web(("127.0.0.1", 0), self.part)
        self.url = f"http://127.0.0.1:{self.web.server_address[1]}"
        threading.Thread(target=self.web.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def show(self, view: dict[str, Any]) -> None:
        self.board.publish(json.dumps(view).encode(), b"# EOF\n")


@pytest.fixture
def staged() -> Iterator[Staged]:
    made = Staged()
    yield made
    made.web.shutdown()
    made.web.server_close()


@pytest.fixture
def look(chromium: Browser) -> Iterator[Callable[..., Page]]:
    """`look(url, viewport=PHONE, ...)`: the page there, which must log no error and break no policy."""
    visits: list[Visit] = []

    def begin(url: str, **options: Any) -> Page:
        visits.append(Visit(chromium.new_context(**{"viewport": DESKTOP, **options})))
        visits[-1].page.goto(url)
        return visits[-1].page

    yield begin
    for each in visits:
        each.context.close()
    assert [words for each in visits for words in each.complaints] == []


TIMES = {"first_at": 1.7e9, "last_at": 1.7e9, "last_since": 1000.0}
COUNTED = {"count": 30, "requests": 1, "most": 30, "seconds": 1.0, **TIMES}


def full() -> dict[str, Any]:
    """A view with something in every part, all of it with hostile names."""
    said = snapshot(
        routes={HOSTILE: route(), "/b": route(5)},
        in_flight=[request(detail=HOSTILE, route=HOSTILE, path=HOSTILE, id=f"r/{number}?#") for number in range(12)],
        upstreams={HOSTILE: {"waits": 3, "seconds": 1.0}},
        pools=[{"name": HOSTILE, "kind": "database", "size": 3, "in_use": 3, "waiting": 2}],
        stalls={"top": [{"line": HOSTILE, "count": 1, "seconds": 2.0, "longest_seconds": 2.0}], "last": []},
        held=[{"used": HOSTILE, "upstream": HOSTILE, "host": "h", "count": 1, "seconds": 2, "held_seconds": 2}],
        failures=[
            {**dict.fromkeys(("name", "line", "route", "message", "root", "number", "library"), HOSTILE), **COUNTED}
        ],
        holders=[{"wanted_at": HOSTILE, "taken_at": HOSTILE, "route": HOSTILE, "count": 1, "longest_seconds": 1.0}],
        repeated=[{"line": HOSTILE, "route": HOSTILE, "statement": HOSTILE, **COUNTED}],
        locks={
            "deadlocks": [
                {"since_seconds": 3, "is_cycle": True, "members": [{"route": HOSTILE, "lock": "l", "stack": [HOSTILE]}]}
            ]
        },
    )
    return shown(seen(1, said), seen(2, snapshot(), silent=9.0, unanswered=8.9, peeked=BLOCK))


def test_nothing_from_outside_becomes_markup(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(full())

    page = look(staged.url)
    page.locator("#in-flight").get_by_role("button", name=HOSTILE).first.click()

    expect(page.locator("dialog pre")).to_have_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert "views.py:41" in page.title()
    expect(page.locator("#routes")).to_contain_text(HOSTILE)
    for table in ("upstreams", "pools", "stalls", "held", "failures", "holders", "queries", "flight-groups"):
        expect(page.locator(f"#{table} tbody")).to_contain_text("<img")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_it_fits_the_screen_and_can_be_read(
    staged: Staged, look: Callable[..., Page], viewport: dict[str, int], color_scheme: str
) -> None:
    staged.show(full())

    page = look(staged.url, viewport=viewport, color_scheme=color_scheme)

    expect(page.locator("#sentence")).to_contain_text("Worker 2 is blocked")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    box = page.locator("#sentence").bounding_box()
    assert box
    assert box["y"] + box["height"] < viewport["height"] / 2, "the verdict is what one sees first"
    for selector in ("#sentence", "#advice", ".tiles dt", ".meter .text", "caption", "thead th"):
        assert page.locator(selector).first.evaluate(CONTRAST) >= 4.5, selector


# Of an element's text against what is behind it, as WCAG 2 counts it.
CONTRAST = """element => {
  const light = (colour) => { const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((value) => {
    const part = value / 255; return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  let behind = element;
  while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
  const [one, two] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)];
  return (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05); }"""


def test_a_screen_reader_finds_its_way_and_is_told_once(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(full())
    page = look(staged.url)
    announced = page.get_by_role("status").filter(has_text="Worker 2 is blocked")
    expect(announced).to_have_count(1)
    before = announced.text_content()

    longer = full()
    longer["verdict"]["sentence"] = longer["verdict"]["sentence"].replace("9 s", "10 s")
    staged.show(longer)
    expect(page.locator("#sentence")).to_contain_text("10 s")

    assert page.locator("#announce").text_content() == before, "the same trouble is not said again each second"
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("meter", name="CPU").count() == 1
    for table in page.locator("table").all():
        assert table.locator("caption").count() == 1
        assert table.locator("thead th[scope=col]").count() > 0
    staged.show(shown(seen(1, snapshot())))
    expect(page.locator("#announce")).to_contain_text("Healthy")


def test_the_table_keeps_its_place_when_news_come_and_can_be_sorted_and_filtered(
    staged: Staged, look: Callable[..., Page]
) -> None:
    rows = [request("upstream", f"api-{number}:443", 9.0 - number, id=f"r{number}") for number in range(5)]
    staged.show(shown(seen(said=snapshot(in_flight=rows))))
    page = look(staged.url)
    table = page.locator("#in-flight tbody tr")
    expect(table).to_have_count(5)
    table.nth(2).get_by_role("button").focus()

    staged.show(shown(seen(said=snapshot(in_flight=rows[1:]))))
    expect(table).to_have_count(4)

    assert page.evaluate("document.activeElement.closest('tr').textContent").count("api-2:443") == 1
    page.get_by_role("button", name="Age").click()
    expect(table.first).to_contain_text("api-4:443")
    page.get_by_label("Show only").fill("api-3")
    expect(table).to_have_count(1)
    page.get_by_label("Show only").fill("nobody")
    expect(table).to_have_text("None like this.")


def test_a_page_without_news_says_so(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(shown(seen(1, snapshot())))
    page = look(staged.url)
    expect(page.locator("#sentence")).to_contain_text("Healthy")

    expect(page.locator("#sentence")).to_contain_text("the ops process does not answer", timeout=LONG_MS)

    staged.show(shown(seen(1, snapshot())))
    expect(page.locator("#sentence")).to_contain_text("Healthy")


def test_who_is_refused_a_stream_asks_again_and_again_and_says_why(staged: Staged, look: Callable[..., Page]) -> None:
    for _ in range(MOST_WATCHERS):
        staged.web.watchers.acquire()
    staged.show(shown(seen(1, snapshot())))

    page = look(staged.url)

    expect(page.locator("#sentence")).to_contain_text("Healthy")
    expect(page.locator("#clock")).to_contain_text("asked every 2 s: too many pages watch already")
    staged.show(full())
    expect(page.locator("#sentence")).to_contain_text("Worker 2 is blocked")
    for _ in range(MOST_WATCHERS):
        staged.web.watchers.release()
    expect(page.locator("#clock")).to_contain_text("live", timeout=LONG_MS)


def test_a_page_that_never_had_news_says_so(staged: Staged, look: Callable[..., Page]) -> None:
    page = look(staged.url)

    expect(page.locator("#sentence")).to_contain_text("the ops process does not answer", timeout=LONG_MS)


HIDE = """is_hidden => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => is_hidden });
  document.dispatchEvent(new Event("visibilitychange")); }"""


def test_a_page_in_the_background_keeps_no_connection_and_its_title_up_to_date(
    staged: Staged, look: Callable[..., Page]
) -> None:
    """A browser has six connections for one server: a seventh page would never load."""
    staged.show(shown(seen(1, snapshot())))
    page = look(staged.url)
    expect(page.locator("#sentence")).to_contain_text("Healthy")
    assert watching(staged) == 1

    page.evaluate(HIDE, True)
    staged.show(full())

    expect(page).to_have_title(re.compile("Worker 2 is blocked"), timeout=LONG_MS)
    wait_until(lambda: bool(staged.show(full()) or watching(staged) == 0), "the stream is closed")
    page.evaluate(HIDE, False)
    wait_until(lambda: watching(staged) == 1, "it is opened again")
    staged.show(shown(seen(1, snapshot())))
    expect(page.locator("#sentence")).to_contain_text("Healthy")


def watching(staged: Staged) -> int:
    return MOST_WATCHERS - int(staged.web.watchers._value)


def test_what_somebody_selects_in_a_deadlock_stays_selected(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(full())
    page = look(staged.url)
    expect(page.locator("#locks pre")).to_have_count(1)
    page.evaluate("getSelection().selectAllChildren(document.querySelector('#locks pre'))")
    selected = page.evaluate("getSelection().toString()")

    longer = full()
    longer["deadlocks"][0]["since_seconds"] = 9.0
    staged.show(longer)
    expect(page.locator("#locks p")).to_contain_text("Worker 1, for 9.0 s")

    assert selected
    assert page.evaluate("getSelection().toString()") == selected


def test_the_parts_agree_while_a_worker_is_blocked(staged: Staged, look: Callable[..., Page]) -> None:
    peeked = {"line": "shop/views.py:41", "stack": [], "holds_gil": True}
    staged.show(shown(seen(1, snapshot()), seen(2, snapshot(), silent=15, unanswered=15.3, peeked=peeked, offered=3)))

    page = look(staged.url)

    expect(page.locator("#server")).to_contain_text("2 of 2 workers serve, 1 blocked")
    expect(page.locator("#flight-count")).to_have_text("3 in workers that don't answer")
    expect(page.get_by_role("meter", name="Loop: 1 of 2")).to_have_attribute("aria-valuenow", "100")
    expect(page.locator("#stalls tbody tr")).to_contain_text(["shop/views.py:41"])
    expect(page.locator("#stalls tbody tr").first).to_contain_text("now")


def test_the_token_is_asked_for(staged: Staged, look: Callable[..., Page]) -> None:
    staged.part.access = Access(TOKEN)
    staged.show(shown(seen(1, snapshot())))

    page = look(staged.url)
    page.get_by_label("Token").fill("a wrong one")
    page.get_by_role("button", name="Look inside").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.get_by_role("button", name="Look inside").click()

    expect(page.locator("#sentence")).to_contain_text("Healthy")


def test_beside_a_server_that_is_loaded_blocked_and_recycled(look: Callable[..., Page], tmp_path: Path) -> None:
    port, ops_port = free_port(), free_port()
    environ = {
        **TROUBLE,
        "WEB_CONCURRENCY": "1",
        "GREENROOM_BIND": f"127.0.0.1:{port}",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}",
        "GREENROOM_RECORDINGS_PATH": str(tmp_path / "recordings"),
    }
    server = Server([*PYTHON_MODULE, "gunicorn"], environ, tmp_path / "server.log", port).wait_ready("/")
    try:
        ops = Ops(ops_port)
        ops.wait_for(lambda view: view["total"]["workers_serving"], "the worker serves")
        page = look(ops.url)
        page.set_default_timeout(LONG_MS)
        verdict = page.locator("#sentence")
        old = ops.view()["workers"][0]["pid"]

        with clients(server.url, ("/", 4, 0.02), ("/sleep/3000", 3)):
            expect(page.locator("#routes")).to_contain_text("/", timeout=LONG_MS)
            page.get_by_role("button", name="GET /sleep/<int:ms>").first.click()
            expect(page.locator("dialog")).to_contain_text("trouble.py", timeout=LONG_MS)
            page.get_by_role("button", name="Close").click()
        with clients(server.url, ("/compute/6000", 1)):
            expect(verdict).to_contain_text("is blocked by tests/live/apps/trouble.py", timeout=LONG_MS)
        server.workers()[0].kill()
        expect(verdict).to_contain_text(f"(pid {old}) died", timeout=LONG_MS)
        expect(verdict).to_contain_text("its replacement serves", timeout=LONG_MS)
        page.get_by_role("button", name="Save the last minute").click()
        expect(page.locator("#record-said")).to_have_text("Saved.", timeout=LONG_MS)
        page.get_by_role("link").filter(has_text=":").first.click()
        expect(page.get_by_role("heading", name="Requests each second")).to_be_visible(timeout=TIMEOUT_MS)
    finally:
        server.stop()


def test_hundreds_of_requests_are_grouped_and_the_rest_is_said(staged: Staged, look: Callable[..., Page]) -> None:
    rows = [request("upstream", "api:443", 9.0, id=f"r{number}") for number in range(150)]
    staged.show(shown(seen(said=snapshot(in_flight=rows))))

    page = look(staged.url, viewport=PHONE)

    expect(page.locator("#flight-groups tbody tr")).to_have_count(1)
    expect(page.locator("#flight-groups tbody tr")).to_contain_text("150")
    expect(page.locator("#in-flight tbody tr")).to_have_count(25)
    expect(page.locator("#flight-shown")).to_contain_text("25 of 150 are shown")
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.locator("#flight-groups").get_by_role("button").first.click()
    expect(page.locator("#in-flight tbody tr")).to_have_count(100)


def test_sections_are_linked_and_what_is_hidden_is_not(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(shown(seen(said=snapshot(routes={"/": route()}))))

    page = look(staged.url, viewport=PHONE)
    links = page.get_by_role("navigation", name="Sections")

    expect(links.get_by_role("link", name="In flight")).to_be_visible()
    expect(links.get_by_role("link", name="Deadlocks")).to_be_hidden()
    links.get_by_role("link", name="Workers", exact=True).click()
    expect(page.locator("#h-workers")).to_be_in_viewport()
    staged.show(full())
    expect(links.get_by_role("link", name="Deadlocks")).to_be_visible()


def test_all_of_it_is_copied_as_text(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(full())

    page = look(staged.url, permissions=["clipboard-read", "clipboard-write"])
    page.locator("#copy").click()

    expect(page.locator("#copy-said")).to_have_text("Copied.")
    assert page.evaluate("navigator.clipboard.readText()") == "everything there is"
    page.locator("#in-flight").get_by_role("button", name=HOSTILE).first.click()
    expect(page.locator("dialog pre")).to_have_text(HOSTILE)
    page.locator("#copy-request").click()
    expect(page.locator("#copy-request-said")).to_have_text("Copied.")
    assert HOSTILE in page.evaluate("navigator.clipboard.readText()")


def test_tables_that_scroll_sideways_are_reached_by_keyboard(staged: Staged, look: Callable[..., Page]) -> None:
    staged.show(full())

    page = look(staged.url, viewport=PHONE)
    expect(page.locator("#workers tbody tr")).to_have_count(2)
    box = page.locator(".wide:has(#workers)")
    expect(box).to_have_attribute("tabindex", "0")
    box.focus()
    page.keyboard.press("ArrowRight")
    # Asked from here: what the page would have to evaluate again and again, its Content-Security-Policy forbids.
    wait_until(lambda: box.evaluate("it => it.scrollLeft > 0"), "it has scrolled")

    wide = "[...document.querySelectorAll('.wide')].filter((box) => box.scrollWidth > box.clientWidth)"
    assert page.evaluate(f"{wide}.every((box) => box.tabIndex === 0 && box.getAttribute('aria-label'))")
