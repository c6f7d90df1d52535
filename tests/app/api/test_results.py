import json
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.api import results
from app.boards import record
from app.extensions import db
from app.models import utc_now
from app.upstream import Outcome
from tests.app.api.upstreams import LONG_WAIT, Connection, Upstream, answering, eventually, hanging, sending, upstream

Headers = dict[str, str]
MakeBoard = Callable[..., dict[str, Any]]


def read_events(text: str) -> list[tuple[str, Any]]:
    """(event, data) of each event; comments left out."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


class TestResults:
    def test_answer_has_every_source_in_the_boards_order(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard
    ) -> None:
        def late(connection: Connection) -> None:
            connection.read_head()
            fast_is_done.wait(LONG_WAIT)
            connection.answer(b'"late"')

        def fast(connection: Connection) -> None:
            connection.read_head()
            connection.answer(b"gone", status="410 Gone")
            fast_is_done.set()

        fast_is_done = threading.Event()
        headers = bearer()
        with upstream(late) as slow, upstream(fast) as quick:
            make_board(headers, urls={"slow": slow.url(), "quick": quick.url(), "dead": "http://127.0.0.1:1/"})
            response = client.get("/api/boards/mine/results", headers=headers)

        document = response.json
        times = [source.pop("elapsed_ms") for source in document["sources"]]
        assert all(isinstance(ms, int) and 0 <= ms <= document["elapsed_ms"] + 1 for ms in times)
        assert document == {
            "board": "mine",
            "elapsed_ms": document["elapsed_ms"],
            "sources": [
                {"name": "slow", "status": 200, "body": "late"},
                {"name": "quick", "status": 410, "body": "gone"},
                {"name": "dead", "error": "connection refused"},
            ],
        }

    def test_public_board_is_fetched_by_anybody(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard, server: Upstream
    ) -> None:
        make_board(bearer(), urls={"one": server.url()}, public=True)

        assert client.get("/api/boards/mine/results").json["sources"][0]["body"] == {"ok": True}

    def test_private_board_of_somebody_else_is_not_fetched(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard, server: Upstream
    ) -> None:
        make_board(bearer("ann@example.org"), urls={"one": server.url()})
        bob = bearer("bob@example.org")

        for path in ("results", "stream", "history"):
            assert client.get(f"/api/boards/mine/{path}", headers=bob).status_code == 404
        assert server.connections == 0

    def test_board_is_answered_within_its_budget(
        self,
        client: FlaskClient,
        bearer: Callable[..., Headers],
        make_board: MakeBoard,
        budget: Callable[[int], None],
    ) -> None:
        budget(600)
        headers = bearer()
        with upstream(hanging) as dead, upstream(answering()) as good:
            urls = {"dead": dead.url(), "good": good.url()}
            make_board(headers, urls=urls)
            document = client.get("/api/boards/mine/results", headers=headers).json

        assert document["elapsed_ms"] < 5000
        assert document["sources"][0]["error"] == "no answer within the board's budget of 600 ms"
        assert document["sources"][1]["status"] == 200

    def test_no_database_connection_is_held_while_sources_are_waited_for(
        self, app: Flask, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard
    ) -> None:
        held = []

        def look(connection: Connection) -> None:
            connection.read_head()
            with app.app_context():
                held.append(db.engine.pool.checkedout())
            connection.answer()

        headers = bearer()
        with upstream(look) as server:
            make_board(headers, urls={"one": server.url("/1"), "two": server.url("/2")})
            client.get("/api/boards/mine/results", headers=headers)
            client.get("/api/boards/mine/stream", headers=headers).get_data()

        assert held == [0, 0, 0, 0]

    @pytest.mark.parametrize("path", ["results", "stream"])
    def test_what_came_can_always_be_recorded(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard, path: str
    ) -> None:
        headers = bearer()
        with upstream(answering(b"x", Content_Type="text/plain; charset=nul\0" + "long" * 100)) as server:
            make_board(headers, urls={"it": server.url()})
            client.get(f"/api/boards/mine/{path}", headers=headers).get_data()

        (fetch,) = client.get("/api/boards/mine/history", headers=headers).json
        assert fetch["error"].startswith("the answer is in the encoding nul?")

    def test_body_comes_through_whatever_is_in_it(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard
    ) -> None:
        deep, surrogate = b"[" * 900 + b"]" * 900, b'{"a\\u0000": "\\ud800", "n": 1e400}'
        headers = bearer()
        with upstream(answering(deep)) as one, upstream(answering(surrogate)) as two:
            make_board(headers, urls={"deep": one.url(), "surrogate": two.url()})
            response = client.get("/api/boards/mine/results", headers=headers)

        assert response.status_code == 200
        assert [source["body"] for source in response.json["sources"]] == [deep.decode(), surrogate.decode()]

    def test_body_keeps_the_order_it_was_sent_in(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard
    ) -> None:
        headers = bearer()
        with upstream(answering(b'{"z": 1, "a": 2}')) as server:
            make_board(headers, urls={"it": server.url()})
            text = client.get("/api/boards/mine/results", headers=headers).text

        assert text.index('"z"') < text.index('"a"')

    def test_answers_are_not_kept_by_caches(self, client: FlaskClient) -> None:
        assert client.get("/api/boards").headers["Cache-Control"] == "no-store"


class TestHistory:
    def test_each_fetch_is_recorded_newest_first(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard, server: Upstream
    ) -> None:
        headers = bearer()
        make_board(headers, urls={"good": server.url(), "dead": "http://127.0.0.1:1/"})
        client.get("/api/boards/mine/results", headers=headers)
        client.get("/api/boards/mine/stream", headers=headers).get_data()

        response = client.get("/api/boards/mine/history?per_page=3", headers=headers)

        assert response.headers["X-Total-Count"] == "4"
        assert len(response.json) == 3
        moments = [fetch["started_at"] for fetch in response.json]
        assert moments == sorted(moments, reverse=True)
        assert all(moment.endswith("Z") for moment in moments)
        by_name = {fetch["name"]: set(fetch) for fetch in response.json}
        assert by_name["good"] == {"name", "started_at", "elapsed_ms", "status"}
        assert by_name["dead"] == {"name", "started_at", "elapsed_ms", "error"}


class TestStream:
    def test_stream_has_each_source_and_then_done(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard, server: Upstream
    ) -> None:
        make_board(bearer(), urls={"good": server.url(), "dead": "http://127.0.0.1:1/"}, public=True)

        response = client.get("/api/boards/mine/stream")

        assert response.mimetype == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["X-Accel-Buffering"] == "no"
        *sources, (last, data) = read_events(response.text)
        assert {(name, source["name"]) for name, source in sources} == {("source", "good"), ("source", "dead")}
        assert last == "done"
        assert set(data) == {"board", "elapsed_ms"}
        assert data["board"] == "mine"

    def test_source_is_sent_the_moment_it_arrives(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard
    ) -> None:
        release = threading.Event()

        def late(connection: Connection) -> None:
            connection.read_head()
            release.wait(LONG_WAIT)
            connection.answer()

        headers = bearer()
        with upstream(late) as slow, upstream(answering()) as quick:
            make_board(headers, urls={"slow": slow.url(), "quick": quick.url()})
            response = client.get("/api/boards/mine/stream", headers=headers, buffered=False)
            chunks = (chunk for chunk in response.iter_encoded() if b"event" in chunk)
            first = next(chunks)
            release.set()
            rest = b"".join(chunks)
            response.close()

        assert b'"quick"' in first
        assert b'"slow"' in rest

    def test_heartbeats_come_while_sources_are_silent(
        self,
        client: FlaskClient,
        bearer: Callable[..., Headers],
        make_board: MakeBoard,
        budget: Callable[[int], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(results, "HEARTBEAT_SECONDS", 0.02)
        budget(300)
        headers = bearer()
        with upstream(hanging) as server:
            make_board(headers, urls={"it": server.url()})
            text = client.get("/api/boards/mine/stream", headers=headers).text

        assert text.startswith(": heartbeat\n\n")
        assert text.count(": heartbeat\n\n") >= 2

    def test_stream_of_a_server_that_shuts_down_ends_after_some_heartbeats(
        self,
        client: FlaskClient,
        bearer: Callable[..., Headers],
        make_board: MakeBoard,
        budget: Callable[[int], None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(results, "HEARTBEAT_SECONDS", 0.02)
        budget(300_000)
        headers = bearer()
        environ = {"greenroom.is_draining": lambda: True}
        with upstream(hanging) as slow, upstream(answering()) as quick:
            sources = [
                {"name": "slow", "url": slow.url(), "timeout_ms": 60_000},
                {"name": "quick", "url": quick.url()},
            ]
            make_board(headers, sources=sources)
            text = client.get("/api/boards/mine/stream", headers=headers, environ_overrides=environ).text

        assert [name for name, _ in read_events(text)] == ["source"]
        assert text.count(": heartbeat\n\n") == results.LAST_HEARTBEATS

    def test_head_request_fetches_nothing(
        self, client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard, server: Upstream
    ) -> None:
        make_board(bearer(), urls={"it": server.url()}, public=True)

        assert client.head("/api/boards/mine/stream").status_code == 200
        assert server.connections == 0

    def test_client_that_leaves_ends_the_work_and_what_came_is_recorded(
        self,
        app: Flask,
        bearer: Callable[..., Headers],
        make_board: MakeBoard,
        client: FlaskClient,
        served: tuple[str, int],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(results, "HEARTBEAT_SECONDS", 0.02)
        gone = threading.Event()

        def watch(connection: Connection) -> None:
            connection.read_head()
            if connection.wait_until_gone():
                gone.set()

        with upstream(watch) as slow, upstream(answering()) as quick:
            sources = [
                {"name": "slow", "url": slow.url(), "timeout_ms": 60_000},
                {"name": "quick", "url": quick.url()},
            ]
            headers = bearer()
            make_board(headers, sources=sources, public=True)
            with socket.create_connection(served, timeout=LONG_WAIT) as browser:
                browser.sendall(b"GET /api/boards/mine/stream HTTP/1.1\r\nHost: test\r\n\r\n")
                received = b""
                while b"event: source" not in received:
                    received += browser.recv(65_536)

            assert gone.wait(LONG_WAIT), "the source was still being fetched"

        assert eventually(lambda: client.get("/api/boards/mine/history").json != [])
        (fetch,) = client.get("/api/boards/mine/history").json
        assert fetch["name"] == "quick"
        assert eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("fetch")])

    def test_board_deleted_meanwhile_still_streams_to_the_end(
        self, app: Flask, bearer: Callable[..., Headers], make_board: MakeBoard, count: Callable[[str], int]
    ) -> None:
        headers = bearer()

        def delete_and_answer(connection: Connection) -> None:
            connection.read_head()
            statuses.append(app.test_client().delete("/api/boards/mine", headers=headers).status_code)
            connection.answer()

        statuses: list[int] = []
        with upstream(delete_and_answer) as server:
            make_board(headers, urls={"it": server.url()})
            text = app.test_client().get("/api/boards/mine/stream", headers=headers).text

        assert statuses == [204]
        assert [name for name, _ in read_events(text)] == ["source", "done"]
        assert count("fetches") == 0


def test_garbage_and_good_answers_stand_side_by_side(
    client: FlaskClient, bearer: Callable[..., Headers], make_board: MakeBoard
) -> None:
    headers = bearer()
    with upstream(sending(b"\x00\x01\x02")) as garbage, upstream(answering()) as good:
        make_board(headers, urls={"garbage": garbage.url(), "good": good.url()})
        sources = client.get("/api/boards/mine/results", headers=headers).json["sources"]

    assert sources[0]["error"] == "the answer is not HTTP"
    assert sources[1]["body"] == {"ok": True}


def test_record_of_a_board_that_is_gone_is_nothing(app: Flask, count: Callable[[str], int]) -> None:
    with app.app_context():
        record(123_456, utc_now(), [Outcome("it", 5, status=200)])

    assert count("fetches") == 0
