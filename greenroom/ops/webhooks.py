"""Calling somebody: one message when an incident begins or gets worse, and one when it has ended.

Each address gets a JSON document by POST. Chat systems read its `text`; the rest is for programs:

    {"text": "shop:app on web-1: 1 of 2 workers is blocked ...", "event": "began|worse|ended", "cause": "blocked",
     "level": "bad", "sentence": ..., "do": ..., "began": 1790000000.0, "ended": null, "key": "blocked-1790000000",
     "server": {"app": ..., "bind": [...]}, "host": "web-1"}

An address that does not answer is tried again, later each time; messages wait in a line of bounded length, in their
order. Runs on: a thread of its own for each address, in the ops process.
"""

import http.client
import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from .incidents import Incident
from .verdicts.words import duration

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
PAUSES_SECONDS = (1.0, 5.0, 30.0, 60.0, 300.0)
MOST_WAITING = 200
Send = Callable[[str, bytes], int]


def post(url: str, body: bytes) -> int:
    """The status that the address answers with. Raises OSError or HTTPException."""
    parts = urlsplit(url)
    host = str(parts.hostname)
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        import ssl  # see __main__

        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, parts.port, timeout=TIMEOUT_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_SECONDS)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", target, body, {"Content-Type": "application/json", "User-Agent": "greenroom"})
        return connection.getresponse().status
    finally:
        connection.close()


def message(incident: Incident, event: str, about: Mapping[str, Any], host: str) -> dict[str, Any]:
    server = f"{about.get('app') or 'the server'} on {host}"
    if event == "ended":
        lasted = duration((incident.ended or incident.began) - incident.began)
        text = f"{server}: over after {lasted}. It was: {incident.sentence}"
    else:
        text = f"{server}: {incident.sentence}" + (f" {incident.do}" if incident.do else "")
    return {
        "text": text,
        "event": event,
        "cause": incident.cause,
        "level": incident.level,
        "sentence": incident.sentence,
        "do": incident.do,
        "began": incident.began,
        "ended": incident.ended,
        "key": incident.key,
        "server": {"app": about.get("app"), "bind": about.get("bind")},
        "host": host,
    }


class Webhook:
    """One address."""

    def __init__(self, url: str, *, send: Send = post, pause: Callable[[float], None] = time.sleep) -> None:
        self.url = url
        self.shown = f"{urlsplit(url).scheme}://{urlsplit(url).netloc.rpartition('@')[2]}/…"
        self.sent = 0
        self.lost = 0
        self._send = send
        self._pause = pause
        self._waiting: queue.Queue[dict[str, Any]] = queue.Queue(MOST_WAITING)

    def start(self) -> None:
        threading.Thread(target=self._run, name="webhook", daemon=True).start()

    def put(self, words: dict[str, Any]) -> None:
        try:
            self._waiting.put_nowait(words)
        except queue.Full:
            self.lost += 1

    def _run(self) -> None:
        while True:
            words = self._waiting.get()
            try:
                self.deliver(words)
            except Exception:
                # One message that can't be delivered must not end the delivery of all that follow.
                self.lost += 1
                logger.exception("a message to %s can't be sent", self.shown)

    def deliver(self, words: Mapping[str, Any]) -> bool:
        """Try until it is taken, refused for good, or the pauses are used up."""
        body = json.dumps(words).encode()
        reason = ""
        for pause in (*PAUSES_SECONDS, None):
            try:
                status = self._send(self.url, body)
            except (OSError, http.client.HTTPException) as exc:
                reason = f"{type(exc).__name__}: {exc}"
            else:
                if 200 <= status < 300:
                    self.sent += 1
                    return True
                reason = f"it answered {status}"
                if 400 <= status < 500 and status not in (408, 425, 429):
                    break
            if pause is not None:
                self._pause(pause)
        self.lost += 1
        logger.warning("the message %r could not be delivered to %s: %s", words.get("key"), self.shown, reason)
        return False


class Caller:
    """All addresses. Runs on: the collecting thread."""

    def __init__(self, webhooks: Sequence[Webhook], about: Mapping[str, Any], host: str = "") -> None:
        self.webhooks = webhooks
        self.about = about
        self.host = host or socket.gethostname()
        self._told: set[str] = set()

    def tell(self, incident: Incident) -> None:
        if incident.ended is not None:
            event = "ended"
            self._told.discard(incident.key)
        else:
            event = "worse" if incident.key in self._told else "began"
            self._told.add(incident.key)
        words = message(incident, event, self.about, self.host)
        for webhook in self.webhooks:
            webhook.put(words)
