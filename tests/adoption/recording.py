"""Asking an application, and what of its answers is compared."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

import requests

from .model import Ask

# These say when, where and by whom, and nothing of the application.
HEADERS = ("content-type", "location", "www-authenticate", "allow", "vary", "content-encoding", "set-cookie")
TOKENS = (r'name="csrf_token"[^>]*value="[^"]+"', r"m=?\d{9,}(\.\d+)?")


@dataclass(frozen=True)
class Answer:
    """The parts of an answer that must be the same."""

    ask: str
    status: int
    headers: tuple[tuple[str, str], ...]
    body: str


def record(url: str, asks: Sequence[Ask]) -> list[Answer]:
    session = requests.Session()
    return [_answer(session, url, ask) for ask in asks]


def failures(asks: Sequence[Ask], answers: Sequence[Answer]) -> list[str]:
    """What did not work at all: two servers may fail in the same way."""
    return [
        f"{answer.ask}: {answer.status}"
        for ask, answer in zip(asks, answers, strict=True)
        if (answer.status >= 500) is not ask.fails
    ]


def _answer(session: requests.Session, url: str, ask: Ask) -> Answer:
    response = session.request(
        ask.method, url + ask.path, json=ask.json, data=ask.form or ask.body, timeout=60, allow_redirects=False
    )
    text = response.text.replace(url, "URL").replace(url.removeprefix("http://"), "HOST")
    for pattern in (*TOKENS, *ask.may_differ):
        text = re.sub(pattern, "…", text)
    headers = {name.lower(): value for name, value in response.headers.items()}
    kept = [(name, headers[name].replace(url, "URL")) for name in HEADERS if name in headers]
    # Of a cookie its name and its attributes: what it says is signed with the time.
    kept = [(name, re.sub(r"=[^;,]+", "=…", value) if name == "set-cookie" else value) for name, value in kept]
    return Answer(f"{ask.method} {ask.path}", response.status_code, tuple(kept), text)


def differences(first: Sequence[Answer], second: Sequence[Answer]) -> list[str]:
    found = []
    for one, other in zip(first, second, strict=True):
        if one.status != other.status:
            found.append(f"{one.ask}: {one.status} and {other.status}")
        elif one.headers != other.headers:
            found.append(f"{one.ask}: {one.headers} and {other.headers}")
        elif one.body != other.body:
            at = len(os.path.commonprefix([one.body, other.body]))
            found.append(f"{one.ask}: {one.body[at - 20 : at + 60]!r} and {other.body[at - 20 : at + 60]!r}")
    return found
