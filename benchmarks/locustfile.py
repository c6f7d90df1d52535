"""People at their boards, for Locust: sign in, list, fetch, watch a board live.

    locust -f benchmarks/locustfile.py --host http://127.0.0.1:8000 --headless -u 20 -r 5 -t 20s

Distributed: the same with `--master --expect-workers 2`, and `locust -f benchmarks/locustfile.py --worker` twice.

Each user signs in through the page, so each has a session. All users of one Locust process share an account, which its
first user signs up for. With `--api-token` (from `flask token create EMAIL`) nobody signs in and only the API is used.
The server allows SIGN_IN_LIMIT attempts (10 in 15 minutes) for one address: a test with more than some Locust
processes, or repeated often, needs `SIGN_IN_LIMIT=10000` on the server.

Nothing may import this file but Locust: `import locust` patches the whole process.
"""

import html
import re
import secrets
import sys
import time
from pathlib import Path
from typing import Any

from gevent.lock import BoundedSemaphore, RLock
from locust import HttpUser, between, events, task
from locust.exception import StopUser

# Locust is a script: Python finds the project only if somebody says where it is.
sys.path.append(str(Path(__file__).resolve().parent.parent))

from benchmarks.events import read_events  # noqa: E402

CSRF_INPUT = re.compile(r'<input[^>]*name="csrf_token"[^>]*value="([^"]+)"')
TIMEOUT_SECONDS = 30
# Nobody watches for longer, also if the server keeps sending heartbeats for ever.
STREAM_SECONDS = 60
# Sign-ins under way count against the limit until they succeed.
SIGN_INS_AT_ONCE = 3


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """With Locust distributed, the master's values are those of all workers."""
    parser.add_argument("--board", env_var="LOCUST_BOARD", default="demo", help="slug of the board to fetch")
    parser.add_argument(
        "--api-token",
        env_var="LOCUST_API_TOKEN",
        default="",
        include_in_web_ui=False,  # it is a secret
        help="use the API with this token, without signing in",
    )


class Account:
    """The account that all users of this process sign in to; the first of them makes it."""

    def __init__(self) -> None:
        self.email = f"load-{secrets.token_hex(6)}@example.org"
        self.password = secrets.token_urlsafe(24)
        self.is_signed_up = False
        self.signing_up = RLock()
        self.signing_in = BoundedSemaphore(SIGN_INS_AT_ONCE)


account = Account()


class BoardUser(HttpUser):
    """Somebody who looks at boards every second or two."""

    wait_time = between(0.5, 2)

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self.board: str = options.board
        self.client.trust_env = False
        if options.api_token:
            self.client.headers["Authorization"] = f"Bearer {options.api_token}"
        else:
            self.sign_in()
        # The first steps of everybody, so that the shortest run has done them too: list, fetch, watch.
        self.list_boards()
        self.fetch_results()
        self.watch_stream()

    def sign_in(self) -> None:
        with account.signing_up:
            if not account.is_signed_up:
                self.send_form("/sign-up")
                account.is_signed_up = True
                self.client.cookies.clear()
        with account.signing_in:
            self.send_form("/sign-in")

    def send_form(self, path: str) -> None:
        """Fill in a form as a browser does: open its page, send it with the token. A user who fails stops."""
        page = self.client.get(path, timeout=TIMEOUT_SECONDS)
        token = CSRF_INPUT.search(page.text or "")
        form = {
            "email": account.email,
            "password": account.password,
            "csrf_token": html.unescape(token[1]) if token else "",
        }
        with self.client.post(
            path, data=form, allow_redirects=False, catch_response=True, timeout=TIMEOUT_SECONDS
        ) as answer:
            if answer.status_code == 302:
                return
            if answer.status_code == 429:
                answer.failure("the server's SIGN_IN_LIMIT is used up; see the top of benchmarks/locustfile.py")
            else:
                answer.failure(f"no redirect but {answer.status_code} {answer.error or ''}".strip())
        raise StopUser

    @task(3)
    def list_boards(self) -> None:
        with self.client.get("/api/boards", catch_response=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code == 200 and not isinstance(answer.json(), list):
                answer.failure("the boards are no list")

    @task(4)
    def fetch_results(self) -> None:
        path = f"/api/boards/{self.board}/results"
        with self.client.get(path, catch_response=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code != 200:
                return
            document = answer.json()
            if document["board"] != self.board or not document["sources"]:
                answer.failure("not the results of the board")
            elif not all("status" in source or "error" in source for source in document["sources"]):
                answer.failure("a source has neither status nor error")

    @task(2)
    def watch_stream(self) -> None:
        """Counts from the request to `event: done`; the time to the first event is a line of its own."""
        path = f"/api/boards/{self.board}/stream"
        started = time.perf_counter()
        with self.client.get(path, stream=True, catch_response=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code != 200:
                return
            try:
                failure, received_bytes = self.follow(answer, path, started)
            finally:
                answer.close()
            answer.request_meta["response_time"] = (time.perf_counter() - started) * 1000
            answer.request_meta["response_length"] = received_bytes
            if failure:
                answer.failure(failure)

    def follow(self, answer: Any, path: str, started: float) -> tuple[str, int]:
        """Read to `event: done`; returns what went wrong ("" if nothing did) and how many characters of data came."""
        received = count = 0
        answer.encoding = "utf-8"
        try:
            # In chunks as they come: with a fixed size requests would wait until that much is there.
            for name, data in read_events(answer.iter_lines(chunk_size=None, decode_unicode=True)):
                received += len(data)
                count += 1
                if count == 1:
                    self.report_first_event(path, started)
                if name == "done":
                    return "" if count > 1 else "done, but no source before it", received
                if time.perf_counter() - started > STREAM_SECONDS:
                    return f"not done after {STREAM_SECONDS} s", received
        except OSError as exc:  # requests' own exceptions are OSErrors too
            return f"the stream broke: {type(exc).__name__}", received
        return "the stream ended before event: done", received

    def report_first_event(self, path: str, started: float) -> None:
        self.environment.events.request.fire(
            request_type="SSE",
            name=f"{path} (first event)",
            response_time=(time.perf_counter() - started) * 1000,
            response_length=0,
            exception=None,
            context=self.context(),
        )

    @task(1)
    def read_history(self) -> None:
        path = f"/api/boards/{self.board}/history"
        self.client.get(f"{path}?per_page=20", name=path, timeout=TIMEOUT_SECONDS)

    @task(1)
    def open_start_page(self) -> None:
        if self.environment.parsed_options.api_token:
            return  # tokens open the API and nothing else
        with self.client.get("/", catch_response=True, timeout=TIMEOUT_SECONDS) as answer:
            if answer.status_code == 200 and "/sign-out" not in answer.text:
                answer.failure("no longer signed in")
