"""The reference application on the real server: concurrent fan-out, streams, sessions and tokens over two workers."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import requests

from tests.support import PASSWORD, csrf_token

from .conftest import Server, wait_until


@pytest.fixture(scope="module")
def token(flask_command: Callable[..., str]) -> str:
    flask_command("user", "create", "live@example.org", "--password-stdin", stdin=PASSWORD)
    return flask_command("token", "create", "live@example.org").strip()


@pytest.fixture
def api(board_server: Server, token: str) -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        yield session


def make_board(api: requests.Session, server: Server, slug: str, paths: list[str]) -> None:
    sources = [
        {"name": f"source {number}", "url": server.url + path, "timeout_ms": 20_000}
        for number, path in enumerate(paths)
    ]
    board = {"slug": slug, "title": slug, "public": False, "sources": sources}
    answer = api.post(server.url + "/api/boards", json=board, timeout=30)
    assert answer.status_code == 201, answer.text


def test_twenty_sources_of_100_ms_are_answered_in_under_300_ms(api: requests.Session, board_server: Server) -> None:
    make_board(api, board_server, "twenty", ["/demo/delay/100"] * 20)
    url = board_server.url + "/api/boards/twenty/results"

    # The best of some tries: the claim is about the design, the machine may be busy with something else.
    best_ms = 10_000
    give_up_at = time.monotonic() + 60
    while best_ms >= 300 and time.monotonic() < give_up_at:
        document = api.get(url, timeout=30).json()
        assert [source["status"] for source in document["sources"]] == [200] * 20
        best_ms = min(best_ms, document["elapsed_ms"])

    assert 100 <= best_ms < 300


def test_the_demo_board_works_on_the_first_day(board_server: Server) -> None:
    document = requests.get(board_server.url + "/api/boards/demo/results", timeout=30).json()

    by_name = {source["name"]: source for source in document["sources"]}
    assert by_name["weather"].get("body") == {"delay_ms": 120}, document
    assert by_name["broken"]["status"] == 503
    assert "error" in by_name["too slow"]
    assert document["elapsed_ms"] < 5000
    # The board leaves what is too slow, and nobody is to blame for that.
    assert "Traceback" not in board_server.text()


def test_a_stream_sends_each_source_when_it_arrives(api: requests.Session, board_server: Server) -> None:
    make_board(api, board_server, "streamed", ["/demo/delay/4000", "/demo/delay/10"])

    with api.get(board_server.url + "/api/boards/streamed/stream", stream=True, timeout=60) as answer:
        names = [
            json.loads(line.removeprefix(b"data: ")).get("name")
            for line in answer.iter_lines()
            if line.startswith(b"data: ")
        ]

    assert names == ["source 1", "source 0", None]


class Upstream:
    """A source that never answers and knows whether anybody still waits for it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/"
        self.is_asked = threading.Event()
        self.is_left = threading.Event()
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            connection.recv(65_536)
            self.is_asked.set()
            while connection.recv(65_536):
                pass
            self.is_left.set()


def test_a_client_that_leaves_a_stream_ends_the_work(api: requests.Session, board_server: Server) -> None:
    upstream = Upstream()
    board = {
        "slug": "left",
        "title": "left",
        "public": False,
        "sources": [{"name": "silent", "url": upstream.url, "timeout_ms": 60_000}],
    }
    api.post(board_server.url + "/api/boards", json=board, timeout=30).raise_for_status()

    with api.get(board_server.url + "/api/boards/left/stream", stream=True, timeout=60):
        wait_until(upstream.is_asked.is_set, "the source is asked")
    api.close()

    # Far sooner than the source's own minute: at the next heartbeat, whose write fails.
    wait_until(upstream.is_left.is_set, "the connection to the source is closed", timeout_seconds=30)
    upstream.listener.close()


def test_what_had_arrived_before_a_client_left_a_stream_is_recorded(
    api: requests.Session, board_server: Server
) -> None:
    silent = Upstream()
    sources = [
        {"name": "quick", "url": board_server.url + "/demo/delay/1", "timeout_ms": 60_000},
        {"name": "silent", "url": silent.url, "timeout_ms": 60_000},
    ]
    board = {"slug": "half", "title": "half", "public": False, "sources": sources}
    api.post(board_server.url + "/api/boards", json=board, timeout=30).raise_for_status()

    with api.get(board_server.url + "/api/boards/half/stream", stream=True, timeout=60) as answer:
        next(line for line in answer.iter_lines() if line.startswith(b"data: "))

    def history() -> list[dict[str, object]]:
        return list(api.get(board_server.url + "/api/boards/half/history", timeout=30).json())

    wait_until(history, "the fetch is recorded", timeout_seconds=30)
    assert [(fetch["name"], fetch.get("status")) for fetch in history()] == [("quick", 200)]
    silent.listener.close()


def test_a_token_of_nobody_is_refused(board_server: Server) -> None:
    answer = requests.get(board_server.url + "/api/boards", headers={"Authorization": "Bearer gr_no"}, timeout=30)

    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_hundred_users_at_once_each_see_their_own_boards(
    board_server: Server, api: requests.Session, flask_command: Callable[..., str]
) -> None:
    """Nothing of one request is visible to another, over keep-alive connections that the users' calls share."""
    flask_command("user", "create", "other@example.org", "--password-stdin", stdin=PASSWORD)
    other = flask_command("token", "create", "other@example.org").strip()
    make_board(api, board_server, "mine-alone", ["/demo/delay/1"])
    tokens = {api.headers["Authorization"]: 200, f"Bearer {other}": 404}
    wrong: list[str] = []

    def ask_by_turns() -> None:
        with requests.Session() as shared:
            for turn in range(20):
                authorization, expected = list(tokens.items())[turn % 2]
                answer = shared.get(
                    board_server.url + "/api/boards/mine-alone", headers={"Authorization": authorization}, timeout=60
                )
                if answer.status_code != expected:
                    wrong.append(f"{answer.status_code} instead of {expected}")

    threads = [threading.Thread(target=ask_by_turns) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_a_session_is_known_to_every_worker_and_ends_for_all_of_them(board_server: Server) -> None:
    """Each request on a connection of its own, so that both workers get some."""
    jar = requests.cookies.RequestsCookieJar()

    def ask(method: str, path: str, **fields: str) -> requests.Response:
        answer = requests.request(
            method, board_server.url + path, data=fields or None, cookies=jar, allow_redirects=False, timeout=30
        )
        jar.update(answer.cookies)
        return answer

    wait_until(lambda: len(board_server.workers()) >= 2, "two workers run")
    token = csrf_token(ask("GET", "/sign-up").text)
    signed_up = ask("POST", "/sign-up", csrf_token=token, email="visitor@example.org", password=PASSWORD)
    pages = [ask("GET", "/tokens").status_code for _ in range(20)]
    ask("POST", "/sign-out", csrf_token=csrf_token(ask("GET", "/").text))
    afterwards = [ask("GET", "/tokens").status_code for _ in range(20)]

    assert signed_up.status_code == 302
    assert pages == [200] * 20
    assert afterwards == [302] * 20  # to the sign-in page
    assert all(cookie.has_nonstandard_attr("HttpOnly") for cookie in jar)
