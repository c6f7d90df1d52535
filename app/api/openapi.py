"""The OpenAPI 3.1 description, made from what `describe` says of each view and from the schemas.

By hand and not by APIFlask or flask-smorest: both want marshmallow schemas beside pydantic's, and describe errors as
`application/json` where ours are problem documents. OpenAPI 3.1 takes pydantic's JSON Schemas as they are.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, get_args

from flask import current_app
from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from ..errors import PROBLEM_JSON
from .pagination import Page
from .routes import blueprint
from .schemas import (
    SLUG_PATTERN,
    AnsweredOnce,
    BoardDocument,
    FailedOnce,
    ProblemDocument,
    Results,
)

View = TypeVar("View", bound=Callable[..., Any])
Json = dict[str, Any]

MODELS = (BoardDocument, Results, AnsweredOnce, FailedOnce, ProblemDocument)
READING = ("GET",)
EXAMPLE_SLUG = "city-life"
EXAMPLE_BOARD = {
    "slug": EXAMPLE_SLUG,
    "title": "City life",
    "public": True,
    "sources": [
        {"name": "weather", "url": "https://api.example.org/weather", "timeout_ms": 2000},
        {"name": "trains", "url": "https://trains.example.net/departures?station=7", "timeout_ms": 1500},
    ],
}
ABOUT = """A board is a named set of sources (HTTP endpoints) that are fetched together, under one time budget.

Anybody may read and fetch public boards. For your own, send an API token (`Authorization: Bearer gr_...`) or use your
browser's session. A token that is wrong is refused everywhere, also where none is needed.

Errors are problem documents (RFC 9457)."""
PROBLEMS = {
    400: "The body is not JSON, or the CSRF token of a browser session is missing.",
    401: "Nobody is signed in, or the API token is unknown or was revoked.",
    403: "The board is public, but not yours to change.",
    404: "There is no such board, or it is private and belongs to somebody else.",
    409: "Another board has this slug.",
    413: "The body is larger than 1 MB.",
    415: "The body is not declared as `application/json`.",
    422: "Values are out of range or fields are wrong; `errors` names each.",
    429: "This client fetched the board too often; try again after `Retry-After` seconds.",
    503: "The database did not answer; try again after `Retry-After` seconds.",
    508: "The request was itself made to fetch a board; a board's results can't be a source of a board.",
}


@dataclass(frozen=True)
class Answer:
    """The answer of an operation when all is well."""

    status: int
    description: str
    content: Json | None = None
    headers: tuple[str, ...] = ()
    is_paged: bool = False


@dataclass(frozen=True)
class Operation:
    """The arguments of `describe` for one view."""

    summary: str
    description: str
    answer: Answer
    body: type[BaseModel] | None
    problems: tuple[int, ...]
    is_open: bool


def describe(
    summary: str,
    description: str = "",
    *,
    answer: Answer,
    body: type[BaseModel] | None = None,
    problems: tuple[int, ...] = (),
    is_open: bool = False,
) -> Callable[[View], View]:
    """Decorates a view with its description. `problems` are those that its method, path and body don't imply."""

    def decorate(view: View) -> View:
        view.operation = Operation(summary, description, answer, body, problems, is_open)  # type: ignore[attr-defined]
        return view

    return decorate


def one(model: type[BaseModel], description: str, *, status: int = 200, headers: tuple[str, ...] = ()) -> Answer:
    return Answer(status, description, {"application/json": {"schema": ref(model)}}, headers)


def page_of(model: Any, description: str) -> Answer:
    """`model` may be a union: `A | B`."""
    kinds = [ref(kind) for kind in get_args(model) or (model,)]
    schema = {"type": "array", "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}
    return Answer(200, description, {"application/json": {"schema": schema}}, ("X-Total-Count", "Link"), is_paged=True)


def no_content(description: str) -> Answer:
    return Answer(204, description)


def event_stream(description: str) -> Answer:
    example = (
        ": heartbeat\n\n"
        'event: source\ndata: {"name": "weather", "status": 200, "elapsed_ms": 121, "body": {"celsius": 21}}\n\n'
        f'event: done\ndata: {{"board": "{EXAMPLE_SLUG}", "elapsed_ms": 121}}\n\n'
    )
    # No schema: OpenAPI 3.1 has no way to describe one event of a stream.
    return Answer(200, description, {"text/event-stream": {"example": example}})


@blueprint.get("/openapi.json")
@describe(
    "Read this description",
    answer=Answer(200, "OpenAPI 3.1.", {"application/json": {"schema": {"type": "object"}}}),
    is_open=True,
)
def openapi_document() -> Json:
    document: Json = {
        "openapi": "3.1.0",
        "info": {"title": "Boards", "version": "1.0.0", "summary": "Many sources, one answer.", "description": ABOUT},
        "servers": [{"url": "/"}],
        "paths": {},
        "components": {"schemas": schemas(), "headers": HEADERS, "securitySchemes": SECURITY_SCHEMES},
    }
    for rule in current_app.url_map.iter_rules():
        operation = getattr(current_app.view_functions[rule.endpoint], "operation", None)
        if operation is None:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            described = operation_object(operation, method, rule.endpoint, "slug" in rule.arguments)
            document["paths"].setdefault(path, {})[method.lower()] = described
    return document


def operation_object(operation: Operation, method: str, endpoint: str, has_slug: bool) -> Json:
    is_reading = method in READING
    statuses = set(operation.problems)
    if not operation.is_open:
        statuses |= {401, 503}
    if not is_reading:
        statuses |= {400}
    if has_slug:
        statuses |= {404}
    if operation.answer.is_paged:
        statuses |= {422}
    if operation.body:
        statuses |= {400, 413, 415, 422}

    described: Json = {
        "operationId": endpoint.removeprefix("api."),
        "summary": operation.summary,
        "parameters": ([SLUG] if has_slug else []) + (PAGE if operation.answer.is_paged else []),
        "responses": {
            str(operation.answer.status): answer_object(operation.answer),
            **{str(status): problem_object(status) for status in sorted(statuses)},
        },
        "security": [] if operation.is_open else [*([{}] if is_reading else []), *SECURITY[is_reading]],
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body:
        media = {"schema": ref(operation.body), "examples": {"city-life": {"value": EXAMPLE_BOARD}}}
        described["requestBody"] = {"required": True, "content": {"application/json": media}}
    return described


def answer_object(answer: Answer) -> Json:
    described: Json = {"description": answer.description}
    if answer.headers:
        described["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in answer.headers}
    if answer.content:
        described["content"] = answer.content
    return described


def problem_object(status: int) -> Json:
    example = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": PROBLEMS[status],
    }
    media = {"schema": ref(ProblemDocument), "example": example}
    return {"description": PROBLEMS[status], "content": {PROBLEM_JSON: media}}


def schemas() -> Json:
    """The schemas of all documents, by name."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in MODELS],
        ref_template="#/components/schemas/{model}",
        schema_generator=PlainSchema,
    )
    found: Json = definitions["$defs"]
    found["BoardDocument"]["properties"]["sources"]["maxItems"] = current_app.extensions["config"].SOURCES_PER_BOARD
    return found


class PlainSchema(GenerateJsonSchema):
    """Without a title for each field that only repeats its name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def ref(model: type[BaseModel]) -> Json:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


SLUG: Json = {
    "name": "slug",
    "in": "path",
    "required": True,
    "description": "The board's name in addresses.",
    "schema": {"type": "string", "maxLength": 64, "pattern": SLUG_PATTERN},
    "example": EXAMPLE_SLUG,
}
PAGE: list[Json] = [
    {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
    for name, schema in Page.model_json_schema(schema_generator=PlainSchema)["properties"].items()
]
HEADERS: Json = {
    "Location": {"description": "Where the new board is.", "schema": {"type": "string"}},
    "X-Total-Count": {"description": "How many there are on all pages.", "schema": {"type": "integer"}},
    "Link": {
        "description": "The other pages (RFC 8288): `first`, `last`, and `prev` and `next` where there are any.",
        "schema": {"type": "string"},
    },
}
SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API token."},
    "session": {"type": "apiKey", "in": "cookie", "name": "session", "description": "Signed in with a browser."},
    "csrf": {
        "type": "apiKey",
        "in": "header",
        "name": "X-CSRFToken",
        "description": "The token of the session's forms, for whatever changes something.",
    },
}
# By whether the operation only reads.
SECURITY: dict[bool, list[Json]] = {
    True: [{"bearer": []}, {"session": []}],
    False: [{"bearer": []}, {"session": [], "csrf": []}],
}
