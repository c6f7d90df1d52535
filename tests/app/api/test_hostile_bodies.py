"""An answer about a wrong body is small, and made quickly, however much is wrong."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from app.api import schemas

Headers = dict[str, str]
SOURCE = {"name": "one", "url": "http://one.example/"}
BOARD = {"slug": "mine", "title": "Mine", "sources": [SOURCE]}
MANY = {f"k{number}": 0 for number in range(75_000)}
LARGEST_ANSWER = 20_000


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (BOARD | MANY, ["(body)"]),
        (BOARD | {"sources": [SOURCE | MANY]}, ["sources.0"]),
        (BOARD | {"sources": [{}] * 25_000}, ["sources"]),
        (BOARD | {"sources": [0] * 300_000}, ["sources"]),
        (BOARD | {"sources": [SOURCE | {f"k{n}": 0 for n in range(10)}] * 50}, None),
        (BOARD | {"sources": [{}] * 50}, None),
        (BOARD | {"x" * 900_000: 0}, ["x" * 79 + "…"]),
        (BOARD | {"sources": [SOURCE | {"name": "n" * 900_000}]}, ["sources.0.name"]),
        ([0] * 300_000, ["(body)"]),
        (MANY, ["(body)"]),
    ],
    ids=range(10),
)
def test_answer_stays_small(
    client: FlaskClient, bearer: Callable[..., Headers], body: Any, fields: list[str] | None
) -> None:
    sent = json.dumps(body, separators=(",", ":"))
    assert len(sent) < 1_048_576

    answer = client.post("/api/boards", data=sent, content_type="application/json", headers=bearer())

    assert answer.status_code == 422
    assert len(answer.data) < LARGEST_ANSWER
    if fields is None:
        assert len(answer.json["errors"]) == 50
        assert re.search(r"the first 50 of \d{3} errors", answer.json["detail"])
    else:
        assert [error["field"] for error in answer.json["errors"]] == fields


def test_a_few_unknown_fields_are_named_each(client: FlaskClient, bearer: Callable[..., Headers]) -> None:
    answer = client.post("/api/boards", json=BOARD | {"titel": "x", "owner": 1}, headers=bearer())

    assert [error["field"] for error in answer.json["errors"]] == ["titel", "owner"]
    assert answer.json["detail"] == "Some fields are wrong."


def test_sources_are_counted_before_any_is_looked_at(
    client: FlaskClient, bearer: Callable[..., Headers], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(schemas, "urlsplit", looked_at.append)

    answer = client.post("/api/boards", json=BOARD | {"sources": [SOURCE] * 10_000}, headers=bearer())

    assert answer.json["errors"] == [{"field": "sources", "message": "a board has 50 sources at most"}]
    assert looked_at == []
