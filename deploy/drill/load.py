"""Clients of the site that never stop asking, and what became of each request: none may be lost without a reason.

Each client is signed in (its session is in Redis), reads a page that only it may see, and makes boards, which nginx may
not send twice. A read is lost when its answer is not 200, a write when it is not 201.
"""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from .network import EDGE, Loopback, Namespaces

PAUSE_SECONDS = 0.03
TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class Result:
    began: float
    ended: float
    method: str
    status: int
    said: str

    @property
    def is_lost(self) -> bool:
        return self.status != (200 if self.method == "GET" else 201)


class Load:
    """`sign_in(session)` makes a session one of somebody who is signed in; `token` is an API token of the same."""

    def __init__(
        self,
        network: Namespaces | Loopback,
        url: str,
        trusted: Path,
        token: str,
        sign_in: Callable[[requests.Session], None],
        clients: int,
    ) -> None:
        self.network, self.url, self.trusted, self.token, self.sign_in = network, url, trusted, token, sign_in
        self.results: list[Result] = []
        self.written: list[str] = []
        self.broken: list[str] = []
        self.asking: dict[int, float] = {}  # by thread: when the request began that is under way
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def session(self) -> requests.Session:
        session = requests.Session()
        session.verify = str(self.trusted)
        session.trust_env = False
        return session

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in self._threads:
                thread.join(TIMEOUT_SECONDS)

    def _run(self) -> None:
        with self.network.inside(EDGE), self.session() as session:
            try:
                self.sign_in(session)
            except Exception as exc:  # a client that can't begin: the drill has to hear of it
                self.broken.append(repr(exc))
                return
            while not self._over.is_set():
                self._ask(session, "GET", "/tokens")
                slug = f"drill-{uuid.uuid4().hex[:12]}"
                sources = [{"name": "one", "url": "http://one.example/"}]  # nobody fetches it
                body = {"slug": slug, "title": "Drill", "sources": sources}
                if self._ask(session, "POST", "/api/boards", body):
                    self.written.append(slug)

    def _ask(self, session: requests.Session, method: str, path: str, body: object = None) -> bool:
        headers = {"Authorization": f"Bearer {self.token}"} if method == "POST" else {}
        began = self.asking[threading.get_ident()] = time.monotonic()
        try:
            answer = session.request(
                method,
                self.url + path,
                json=body,
                headers=headers,
                timeout=TIMEOUT_SECONDS,
                allow_redirects=False,
            )
            status, said = answer.status_code, answer.text[:200]
        except requests.RequestException as exc:
            status, said = 0, repr(exc)[:200]
        result = Result(began, time.monotonic(), method, status, said)
        del self.asking[threading.get_ident()]
        self.results.append(result)
        self._over.wait(PAUSE_SECONDS)
        return not result.is_lost

    def since(self, moment: float) -> list[Result]:
        return [one for one in list(self.results) if one.ended >= moment]
