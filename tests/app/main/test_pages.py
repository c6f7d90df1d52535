import tracemalloc
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from app import boards
from app.extensions import db
from app.main.charts import BARS, Chart, charts
from app.main.filters import PREVIEW_CHARACTERS, duration, host, preview, status_text
from app.main.pages import scale_for
from app.models import Fetch, utc_now
from app.upstream import Outcome, Target
from tests.app.forms import Browser

MakeBoard = Callable[..., int]


class FakeFetcher:
    """Answers at once what each target is called to answer; notes whether a connection was held meanwhile."""

    def __init__(self, outcomes: dict[str, dict[str, Any]]) -> None:
        self.outcomes = outcomes
        self.connections_held: int | None = None

    def fetch_all(self, targets: tuple[Target, ...]) -> Iterator[Outcome]:
        self.connections_held = db.engine.pool.checkedout()
        return (Outcome(target.name, **self.outcomes[target.name]) for target in targets)


@pytest.fixture
def answers(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeFetcher]:
    """`answers(weather={"elapsed_ms": 120, "status": 200, "body": "sun"})`: what the sources will answer."""

    def set_answers(**outcomes: dict[str, Any]) -> FakeFetcher:
        fake = FakeFetcher(outcomes)
        monkeypatch.setattr(boards, "fetcher", lambda: fake)
        return fake

    return set_answers


def record(board_id: int, name: str, *elapsed: int, error: str | None = None) -> None:
    now = utc_now()
    for age, ms in enumerate(reversed(elapsed)):
        status = None if error else 200
        started_at = now - timedelta(minutes=age)
        fetch = Fetch(
            board_id=board_id, source_name=name, started_at=started_at, elapsed_ms=ms, status=status, error=error
        )
        db.session.add(fetch)
    db.session.commit()


def test_the_first_page_says_what_this_is_and_leads_to_the_demo(browser: Browser, make_board: MakeBoard) -> None:
    make_board("demo", title="The demo")

    page = browser.get("/").text

    assert "asks all its HTTP sources at once" in page
    assert 'href="/boards/demo">Watch the demo board' in page


def test_the_first_page_of_an_installation_without_a_demo_works(browser: Browser) -> None:
    response = browser.get("/")

    assert response.status_code == 200
    assert "/boards/demo" not in response.text


def test_somebodys_own_board_called_demo_is_not_the_demo(
    browser: Browser, make_board: MakeBoard, make_user: Callable[..., int]
) -> None:
    make_board("demo", owner_id=make_user())

    assert "Watch the demo board" not in browser.get("/").text


def test_everybody_sees_public_boards_and_only_their_own_private_ones(
    browser: Browser, make_board: MakeBoard, make_user: Callable[..., int]
) -> None:
    ann, bob = make_user("ann@example.org"), make_user("bob@example.org")
    make_board("anns-private", owner_id=ann, is_public=False)
    make_board("bobs-private", owner_id=bob, is_public=False)
    make_board("bobs-public", owner_id=bob)

    anonymous = browser.get("/").text
    browser.begin_as(ann)
    anns = browser.get("/").text

    assert [slug in anonymous for slug in ("anns-private", "bobs-private", "bobs-public")] == [False, False, True]
    assert [slug in anns for slug in ("anns-private", "bobs-private", "bobs-public")] == [True, False, True]


def test_a_public_board_of_yours_is_listed_once(
    browser: Browser, make_board: MakeBoard, make_user: Callable[..., int]
) -> None:
    ann = make_user()
    make_board("anns", owner_id=ann)
    browser.begin_as(ann)

    assert browser.get("/").text.count('href="/boards/anns"') == 1


def test_public_boards_come_in_pages(browser: Browser, make_board: MakeBoard) -> None:
    for number in range(26):
        make_board(f"board-{number}")

    first, second, third = (browser.get(f"/?page={page}").text for page in (1, 2, 3))

    assert first.count('<li class="card ') == 24
    assert second.count('<li class="card ') == 2
    assert "?page=2" in first
    assert "?page=3" not in second
    assert "No more boards" in third


@pytest.mark.parametrize("page", ["0", "-1", "x", "", "1e9", "9" * 50])
def test_a_page_number_that_is_none_shows_a_page(browser: Browser, page: str) -> None:
    assert browser.get(f"/?page={page}").status_code == 200


@pytest.mark.parametrize("slug", ["none", "Upper", "a%00b", "%F0%9F%98%80", "a" * 5000, "..", "-"])
def test_a_board_that_is_none_is_not_found(browser: Browser, slug: str) -> None:
    assert browser.get(f"/boards/{slug}").status_code == 404


def test_a_private_board_of_somebody_else_is_answered_like_none_at_all(
    browser: Browser, make_board: MakeBoard, make_user: Callable[..., int]
) -> None:
    make_board("private", owner_id=make_user(), is_public=False)

    private, none = browser.get("/boards/private"), browser.get("/boards/none")

    assert private.status_code == none.status_code == 404
    assert private.text == none.text


def test_the_page_of_a_board_shows_hosts_and_no_paths(browser: Browser, make_board: MakeBoard) -> None:
    make_board("city", sources={"weather": "https://api.example.org/v1?key=secret"})

    page = browser.get("/boards/city").text

    assert "api.example.org" in page
    assert "secret" not in page


def test_only_the_owner_is_offered_to_edit(
    browser: Browser, make_board: MakeBoard, make_user: Callable[..., int]
) -> None:
    ann = make_user()
    make_board("anns", owner_id=ann)

    assert "/boards/anns/edit" not in browser.get("/boards/anns").text
    browser.begin_as(ann)
    assert "/boards/anns/edit" in browser.get("/boards/anns").text


def test_looking_at_a_board_fetches_nothing(
    browser: Browser, make_board: MakeBoard, count: Callable[[str], int]
) -> None:
    make_board("city")

    browser.get("/boards/city")

    assert count("fetches") == 0


def test_fetch_now_shows_each_result_and_what_it_took(
    browser: Browser, make_board: MakeBoard, answers: Callable[..., FakeFetcher], count: Callable[[str], int]
) -> None:
    make_board("city", sources={"weather": "http://a", "trains": "http://b", "late": "http://c"})
    answers(
        weather={"elapsed_ms": 120, "status": 200, "body": {"sky": "<b>blue</b>"}},
        trains={"elapsed_ms": 250, "status": 503, "body": "closed"},
        late={"elapsed_ms": 1500, "error": "no answer within 1500 ms"},
    )

    page = browser.get("/boards/city?fetch=now").text

    assert "3 of 3 sources came back in" in page
    assert "&lt;b&gt;blue&lt;/b&gt;" in page
    assert "503 Service Unavailable" in page
    assert "no answer within 1500 ms" in page
    assert "1.87 s" in page  # one after the other
    assert [page.count(f'data-state="{state}"') for state in ("ok", "bad", "error")] == [1, 1, 1]
    assert count("fetches") == 3


def test_fetch_now_holds_no_connection_while_it_waits(
    browser: Browser,
    make_board: MakeBoard,
    make_user: Callable[..., int],
    answers: Callable[..., FakeFetcher],
) -> None:
    make_board("city")
    browser.begin_as(make_user())
    fetcher = answers(weather={"elapsed_ms": 1, "status": 200, "body": ""})

    response = browser.get("/boards/city?fetch=now")

    assert response.status_code == 200
    assert fetcher.connections_held == 0


def test_the_chart_shows_the_last_fetches_of_each_source_oldest_first(app: Flask, make_board: MakeBoard) -> None:
    board_id = make_board("city", sources={"weather": "http://a", "trains": "http://b"})
    with app.app_context():
        record(board_id, "weather", *range(100, 100 + BARS + 5))
        record(board_id, "trains", 7, error="down")
        record(board_id, "a source of old", 1)

        found = charts(board_id, ["weather", "trains"])

    assert found["weather"].points == list(range(105, 105 + BARS))
    assert found["trains"].points == [-7]
    assert set(found) == {"weather", "trains"}


def test_a_chart_fits_its_frame_and_ends_at_the_right_edge() -> None:
    bars = list(Chart([0, -50, 100]).bars())

    assert [bar.height for bar in bars] == [2.0, 14.0, 28]
    assert all(bar.y + bar.height == Chart.height for bar in bars)
    assert bars[-1].x + 4 == Chart.width
    assert [bar.is_ok for bar in bars] == [True, False, True]


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([], "No fetches yet"),
        ([5], "Last fetch: typically 5 ms, 0 failed"),
        ([5, -9, 7], "Last 3 fetches: typically 7 ms, 1 failed"),
    ],
)
def test_a_chart_can_be_heard(points: list[int], words: str) -> None:
    assert Chart(points).summary() == words


@pytest.mark.parametrize(
    ("ms", "end"), [(0, 40), (40, 40), (41, 60), (500, 600), (1010, 1200), (2000, 2000), (2001, 3000), (60_001, 80_000)]
)
def test_the_time_axis_ends_at_a_round_number(ms: int, end: int) -> None:
    assert scale_for(ms) == end


def test_filters_write_for_people() -> None:
    assert duration(999) == "999 ms"
    assert duration(1250) == "1.25 s"
    assert status_text(404) == "404 Not Found"
    assert status_text(299) == "299"
    assert host("https://user:pass@example.org:8443/path?key=1") == "example.org:8443"
    assert preview({"ü": 1}) == '{\n  "ü": 1\n}'
    assert len(preview("x" * 100_000)) == PREVIEW_CHARACTERS + 2


def test_a_preview_writes_no_more_than_it_shows() -> None:
    """A hundred megabytes, if it were indented as a whole: that took five seconds."""
    deep: Any = [1] * 100_000
    for _ in range(98):
        deep = [deep]
    tracemalloc.start()

    shown = preview(deep)

    assert len(shown) == PREVIEW_CHARACTERS + 2
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_a_preview_can_always_be_sent() -> None:
    assert preview({"a": "\ud800"}) == '{\n  "a": "?"\n}'
