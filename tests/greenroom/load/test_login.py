"""`--login`: its requests, the cookies it keeps, and the answers it takes for a refusal."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from greenroom.load import target
from greenroom.load.login import log_in
from greenroom.load.session import Session
from greenroom.load.units import LoadError

SEARCH = '<form><input type="hidden" name="page" value="1"><input name="q"></form>'
FORM = (
    "<form method=post><input type=hidden name=csrf value='c&amp;1'>"
    "<input name=user><input type=password name=pw></form>"
)


class Site(BaseHTTPRequestHandler):
    """/form wants its hidden field, /json answers with a token, /again shows its form whatever is sent."""

    def do_GET(self) -> None:
        self.answer(200, "text/html", SEARCH + FORM, "visit=1")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/json":
            good = json.loads(body)["password"] == "secret"
            self.answer(200 if good else 401, "application/json", '{"access_token": "t0"}' if good else "{}")
        elif self.path == "/again":
            self.answer(200, "text/html", FORM)
        elif parse_qs(body.decode()) == {"user": ["ada"], "pw": ["secret"], "csrf": ["c&1"]}:
            self.answer(302, "text/html", "", "session=ada", "visit=2")
        else:
            self.answer(400, "text/html", "no")

    def answer(self, status: int, kind: str, body: str, *cookies: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for cookie in cookies:
            self.send_header("Set-Cookie", f"{cookie}; Path=/")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Nothing: the test's output is pytest's."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join(30)
    server.server_close()


@pytest.fixture
def session(site: int) -> Session:
    return Session(target.parse(f"http://127.0.0.1:{site}/"))


def test_a_form_is_sent_with_the_hidden_fields_of_its_page(session: Session) -> None:
    log_in(session, "POST /form user=ada&pw=secret")

    assert session.shared_headers == {"Cookie": "visit=2; session=ada"}


def test_a_token_in_the_answer_goes_with_every_request(session: Session) -> None:
    log_in(session, 'POST /json {"user": "ada", "password": "secret"}')

    assert session.shared_headers == {"Authorization": "Bearer t0"}


def test_the_login_may_stand_in_a_file(session: Session, tmp_path: Path) -> None:
    (tmp_path / "login").write_text("POST /form user=ada&pw=secret\n")

    log_in(session, f"@{tmp_path}/login")

    assert "session=ada" in session.shared_headers["Cookie"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("POST /form user=ada&pw=wrong", "POST /form was answered 400; correct --login"),
        ("POST /again user=ada&pw=wrong", "with the form again"),
        ('POST /json {"user": "ada", "password": "wrong"}', "was answered 401"),
        ("POST /json {", "no JSON"),
        ("user=ada&pw=secret", "write 'POST /login user=ada&password=secret'"),
        ("@/no/such/file", "can't be read"),
    ],
)
def test_a_login_that_fails_says_why_and_no_password(session: Session, text: str, says: str) -> None:
    with pytest.raises(LoadError, match=says) as raised:
        log_in(session, text)

    assert "wrong" not in str(raised.value)
    assert "pw=" not in str(raised.value)
