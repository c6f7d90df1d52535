"""Calling somebody: once when it begins, once when it is over, and again when nobody answered."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from greenroom.errors import SettingsError
from greenroom.ops.incidents import Incident
from greenroom.ops.webhooks import MOST_WAITING, PAUSES_SECONDS, Caller, Webhook, message, post
from greenroom.settings import Settings

ABOUT = {"app": "shop:app", "bind": ["127.0.0.1:8000"]}
BEGAN = Incident("blocked", "bad", "Worker 1 is blocked by a.py:3.", "Move it.", 1000.0)
WORSE = Incident("blocked", "bad", "Both workers are blocked.", "Move it.", 1000.0)
ENDED = Incident("blocked", "bad", "Worker 1 is blocked by a.py:3.", "Move it.", 1000.0, 1012.0)


class Listening(Webhook):
    def __init__(self) -> None:
        super().__init__("https://hooks.example.com/T/secret")
        self.got: list[dict[str, Any]] = []

    def put(self, words: dict[str, Any]) -> None:
        self.got.append(words)


class Answers:
    """Answers that an address gives, one after the other; an exception is raised."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.bodies: list[bytes] = []

    def __call__(self, url: str, body: bytes) -> int:
        self.bodies.append(body)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def deliver(*answers: int | Exception) -> tuple[Webhook, Answers, list[float], bool]:
    sends, pauses = Answers(*answers), list[float]()
    webhook = Webhook("https://hooks.example.com/T/secret", send=sends, pause=pauses.append)
    return webhook, sends, pauses, webhook.deliver({"text": "x", "key": "blocked-1000"})


def test_an_incident_is_told_when_it_begins_gets_worse_and_ends() -> None:
    listening = Listening()
    caller = Caller([listening], ABOUT, "web-1")

    for incident in (BEGAN, WORSE, ENDED):
        caller.tell(incident)

    assert [words["event"] for words in listening.got] == ["began", "worse", "ended"]
    assert len({words["key"] for words in listening.got}) == 1
    assert listening.got[0]["text"] == "shop:app on web-1: Worker 1 is blocked by a.py:3. Move it."
    assert listening.got[2]["text"] == ("shop:app on web-1: over after 12 s. It was: Worker 1 is blocked by a.py:3.")


def test_a_message_has_all_that_a_program_needs() -> None:
    assert message(ENDED, "ended", ABOUT, "web-1") == {
        "text": "shop:app on web-1: over after 12 s. It was: Worker 1 is blocked by a.py:3.",
        "event": "ended",
        "cause": "blocked",
        "level": "bad",
        "sentence": "Worker 1 is blocked by a.py:3.",
        "do": "Move it.",
        "began": 1000.0,
        "ended": 1012.0,
        "key": "blocked-1000",
        "server": {"app": "shop:app", "bind": ["127.0.0.1:8000"]},
        "host": "web-1",
    }


def test_an_address_that_fails_is_tried_again_later_each_time() -> None:
    webhook, sends, pauses, is_delivered = deliver(ConnectionRefusedError(111, "refused"), 503, 429, 204)

    assert is_delivered
    assert pauses == list(PAUSES_SECONDS[:3])
    assert len(set(sends.bodies)) == 1
    assert (webhook.sent, webhook.lost) == (1, 0)


def test_an_address_that_refuses_for_good_is_not_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    webhook, sends, pauses, is_delivered = deliver(404)

    assert not is_delivered
    assert (len(sends.bodies), pauses, webhook.lost) == (1, [], 1)
    assert "it answered 404" in caplog.text
    assert "secret" not in caplog.text


def test_tries_end(caplog: pytest.LogCaptureFixture) -> None:
    webhook, sends, _, is_delivered = deliver(*[TimeoutError("timed out")] * (len(PAUSES_SECONDS) + 1))

    assert not is_delivered
    assert sends.answers == []
    assert webhook.lost == 1


def test_messages_that_wait_are_bounded() -> None:
    webhook = Webhook("http://127.0.0.1:9/")  # not started

    for number in range(MOST_WAITING + 5):
        webhook.put({"number": number})

    assert webhook.lost == 5


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.server.got.append((self.path, self.headers["Content-Type"], json.loads(body)))  # type: ignore[attr-defined]
            self.send_response(200)
            self.end_headers()
            self.server.heard.release()  # type: ignore[attr-defined]

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.got, server.heard = [], threading.Semaphore(0)  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_real_address_gets_json(receiver: HTTPServer) -> None:
    url = f"http://127.0.0.1:{receiver.server_address[1]}/T1/secret?x=1"

    assert post(url, b'{"text": "x"}') == 200
    webhook = Webhook(url)
    webhook.start()
    webhook.put({"text": "y"})

    assert all(receiver.heard.acquire(timeout=20) for _ in range(2))  # type: ignore[attr-defined]
    assert receiver.got == [  # type: ignore[attr-defined]
        ("/T1/secret?x=1", "application/json", {"text": "x"}),
        ("/T1/secret?x=1", "application/json", {"text": "y"}),
    ]


def test_a_wrong_address_is_refused_at_start_without_being_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.read({"GREENROOM_OPS_WEBHOOKS": "hooks.example.com/T1/secret, https://fine.example.com/a"})

    (problem,) = caught.value.problems
    assert problem.startswith("GREENROOM_OPS_WEBHOOKS must be addresses like")
    assert "T1" not in problem.partition("like")[0]
