"""Logging in before anything is asked: `POST /login user=ada&password=x`.

A browser sends a form with the hidden fields of its page (the token against forged requests), so the page is fetched
first. What stays is the cookies that were set, or the token in an answer of JSON.
"""

import json
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from .request import Answer, Request
from .session import Session
from .units import LoadError

FORM = "application/x-www-form-urlencoded"
TOKENS = ("access_token", "token", "access", "jwt", "id_token", "auth_token")
EXAMPLE = "write 'POST /login user=ada&password=secret'"


def log_in(session: Session, text: str) -> None:
    """The body is a form, or JSON; `@FILE` reads all of it from a file, where no list of processes shows it.

    Raises LoadError unless the answer is below 400 and sets a cookie, or has a token, and no password is asked again.
    """
    method, path, body = _parts(text)
    is_json = body.lstrip().startswith(("{", "["))
    if is_json:
        try:
            json.loads(body)
        except ValueError as exc:
            raise LoadError(f"--login has a body that is no JSON: {exc}") from exc
    elif body and method != "GET":
        body = _with_hidden_fields(session, path, body)
    kind = "application/json" if is_json else FORM
    before = dict(session.cookies)
    answer = session.send(Request(method, path, {"Content-Type": kind} if body else {}, body.encode()))
    asked = f"{method} {path.partition('?')[0]} was answered {answer.status}"
    if answer.status >= 400:
        raise LoadError(f"the login was refused: {asked}; correct --login")
    session.token = _token(answer)
    if session.token:
        return
    if not session.cookies:
        raise LoadError(f"the login set no cookie: {asked}; correct --login")
    if answer.status == 200 and session.cookies == before and _page(answer).asks_password:
        raise LoadError(f"the login was refused: {asked}, with the form again; correct --login")


def _parts(text: str) -> tuple[str, str, str]:
    """Split `--login` into method, path and body."""
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise LoadError(f"the file of --login can't be read: {exc}") from exc
    method, _, rest = text.strip().partition(" ")
    path, _, body = rest.strip().partition(" ")
    if not path.startswith("/"):
        raise LoadError(f"--login is not understood: {EXAMPLE}")
    return method.upper(), path, body.strip()


def _with_hidden_fields(session: Session, path: str, body: str) -> str:
    """The form with the hidden fields of its page, if there is such a page."""
    with suppress(LoadError):
        answer = session.send(Request("GET", path))
        if answer.status == 200:
            given = parse_qs(body, keep_blank_values=True)
            more = {name: value for name, value in _page(answer).hidden.items() if name not in given}
            return f"{body}&{urlencode(more)}" if more else body
    return body


class _Form(HTMLParser):
    """The hidden fields of a page's form that asks for a password; of its last form, if none does."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: dict[str, str] = {}
        self.asks_password = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "form" and not self.asks_password:
            self.hidden = {}
        if tag != "input":
            return
        found = dict(attrs)
        if found.get("type") == "password":
            self.asks_password = True
        name = found.get("name")
        if found.get("type") == "hidden" and name:
            self.hidden.setdefault(name, found.get("value") or "")


def _page(answer: Answer) -> _Form:
    form = _Form()
    if "html" in answer.headers.get("content-type", ""):
        form.feed(answer.body.decode(errors="replace"))
    return form


def _token(answer: Answer) -> str:
    if "json" not in answer.headers.get("content-type", ""):
        return ""
    try:
        found = answer.json()
    except ValueError:
        return ""
    for holder in (found, found.get("data") if isinstance(found, dict) else None):
        for name in TOKENS:
            if isinstance(holder, dict) and isinstance(holder.get(name), str):
                return str(holder[name])
    return ""
