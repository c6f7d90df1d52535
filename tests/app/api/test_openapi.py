import html
import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from jsonschema_rs import Draft202012Validator
from schemathesis.specs.openapi.definitions import OPENAPI_31_VALIDATOR

from app.api.openapi import PlainSchema
from app.api.pagination import Page
from tests.app.api.upstreams import Upstream


@pytest.fixture
def description(client: FlaskClient) -> dict[str, Any]:
    return client.get("/api/openapi.json").json


def test_description_is_valid_openapi_3_1(description: dict[str, Any]) -> None:
    assert description["openapi"].startswith("3.1.")
    OPENAPI_31_VALIDATOR.validate(description)


def test_every_schema_is_a_valid_json_schema(description: dict[str, Any]) -> None:
    for schema in description["components"]["schemas"].values():
        Draft202012Validator({**schema, "components": description["components"]})


def test_every_api_route_is_described_and_nothing_else(app: Flask, description: dict[str, Any]) -> None:
    described = {(path, method) for path, item in description["paths"].items() for method in item}

    routes = {
        (rule.rule.replace("<slug>", "{slug}"), method.lower())
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    assert described == routes


def test_examples_fit_their_schemas(description: dict[str, Any]) -> None:
    checked = 0
    for media in media_objects(description["paths"]):
        validator = Draft202012Validator({**media.get("schema", {}), "components": description["components"]})
        examples = [example["value"] for example in media.get("examples", {}).values()]
        for example in examples + ([media["example"]] if "example" in media else []):
            validator.validate(example)
            checked += 1

    assert checked > 10


def media_objects(node: Any) -> list[dict[str, Any]]:
    if not isinstance(node, dict):
        return []
    if "content" in node:
        return list(node["content"].values())
    return [media for child in node.values() for media in media_objects(child)]


def test_what_is_written_down_is_what_is_checked(description: dict[str, Any]) -> None:
    """The ranges in openapi.yaml against those that the application refuses by."""
    parameters = {
        parameter["name"]: parameter["schema"]
        for item in description["paths"].values()
        for operation in item.values()
        for parameter in operation["parameters"]
    }
    page = Page.model_json_schema(schema_generator=PlainSchema)["properties"]
    slug = description["components"]["schemas"]["BoardDocument"]["properties"]["slug"]

    assert {name: parameters[name] for name in page} == {
        name: {key: value for key, value in schema.items() if key != "description"} for name, schema in page.items()
    }
    assert parameters["slug"] == {name: slug[name] for name in ("type", "maxLength", "pattern")}


def test_what_is_answered_fits_its_schema(
    client: FlaskClient,
    description: dict[str, Any],
    bearer: Callable[..., dict[str, str]],
    make_board: Callable[..., Any],
    server: Upstream,
) -> None:
    def check(url: str, path: str) -> None:
        response = client.get(url)
        media = description["paths"][path]["get"]["responses"][str(response.status_code)]["content"][response.mimetype]
        Draft202012Validator(media["schema"] | {"components": description["components"]}).validate(response.json)

    make_board(bearer(), urls={"answers": server.url(), "fails": "http://127.0.0.1:1/"}, public=True)
    check("/api/boards/mine/results", "/api/boards/{slug}/results")
    for path in ("/api/boards", "/api/boards/{slug}", "/api/boards/{slug}/history"):
        check(path.replace("{slug}", "mine"), path)
    check("/api/boards?page=0", "/api/boards")
    check("/api/boards/none", "/api/boards/{slug}")


def test_errors_are_described_as_problem_documents(description: dict[str, Any]) -> None:
    for item in description["paths"].values():
        for operation in item.values():
            for status, response in operation["responses"].items():
                if status >= "400":
                    assert list(response["content"]) == ["application/problem+json"], operation["operationId"]


def test_limit_of_sources_is_the_one_that_is_set(app: Flask, description: dict[str, Any]) -> None:
    sources = description["components"]["schemas"]["BoardDocument"]["properties"]["sources"]

    assert sources["maxItems"] == app.extensions["config"].SOURCES_PER_BOARD


def test_description_needs_neither_token_nor_database(client: FlaskClient) -> None:
    response = client.get("/api/openapi.json", headers={"Authorization": "Bearer wrong"})

    assert response.status_code == 200


def test_the_page_shows_every_call_and_every_document(client: FlaskClient, description: dict[str, Any]) -> None:
    page = client.get("/api/docs")

    assert page.mimetype == "text/html"
    for path, methods in description["paths"].items():
        for operation in methods.values():
            assert f'id="{operation["operationId"]}"' in page.text
            assert f"<code>{path}</code>" in page.text
    for name in description["components"]["schemas"]:
        assert f'id="schema-{name}"' in page.text
    assert set(re.findall(r'href="#([^"]+)"', page.text)) <= set(re.findall(r'id="([^"]+)"', page.text))


def test_the_page_says_what_lists_are_of(client: FlaskClient) -> None:
    page = client.get("/api/docs").text

    assert "list of SourceDocument" in page
    assert "list of Answered or Failed" in page
    assert "\\u0027" not in page


def test_the_page_needs_nobody_else_and_no_script(client: FlaskClient) -> None:
    page = client.get("/api/docs").text

    assert "<script" not in page
    assert "style=" not in page
    assert re.findall(r'(?:src|<link[^>]*href)="(?!/static/)[^"]*"', page) == []


def test_the_pages_commands_have_what_they_need(client: FlaskClient) -> None:
    commands = [html.unescape(line) for line in re.findall(r"<code>\$ (.+?)</code>", client.get("/api/docs").text)]

    assert "http GET :8000/api/boards" in commands
    assert "http --stream GET :8000/api/boards/city-life/stream" in commands
    assert 'http -A bearer -a "$TOKEN" DELETE :8000/api/boards/city-life' in commands
    (made,) = (shlex.split(command) for command in commands if " POST " in command)
    assert json.loads(made[-1])["slug"] == "city-life"
