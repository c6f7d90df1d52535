"""The documents that the API takes, with types and ranges, and those that it gives."""

from typing import Annotated, Any
from urllib.parse import urlsplit

import requests
from flask import abort, current_app, request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from ..errors import WrongValues
from ..models import Board, Fetch
from ..upstream import Target

# Boards with these names would stand where pages are.
RESERVED_SLUGS = ("new",)
# One visible character at least, and no control characters: PostgreSQL has no NUL, and a terminal obeys the others.
VISIBLE_TEXT = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
SLUG_PATTERN = r"^[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?$"
URL_PATTERN = r"^[Hh][Tt][Tt][Pp][Ss]?://[^\s\x00-\x1f\x7f-\x9f]+$"
# The patterns in words, for people.
PATTERN_MESSAGES = {
    VISIBLE_TEXT: "write something visible, without line breaks or other control characters",
    SLUG_PATTERN: "use small letters, digits and hyphens, 64 at most, with no hyphen at either end",
    URL_PATTERN: "start with http:// or https://, and leave spaces out",
}
# An answer about a wrong body is never much larger than one about a few wrong fields.
UNKNOWN_FIELDS = 10  # so many are named one by one
ERRORS_LISTED = 50
NAME_CHARACTERS = 80  # of a field's name, which the client made up
MESSAGE_CHARACTERS = 500


def check_url(url: str) -> str:
    """`url` if it can be fetched; raises ValueError with what to change. Which addresses are public shows later."""
    try:
        parts = urlsplit(url)
        port = parts.port
        requests.Request("GET", url).prepare()
    except ValueError as exc:  # requests' own errors are ValueErrors too
        raise ValueError("this is not a valid URL") from exc
    if parts.username is not None or parts.password is not None:
        raise ValueError("leave user:password@ out: everybody who can read the board would see it")
    if not parts.hostname or port == 0:
        raise ValueError("the URL needs a host, and a port other than 0")
    return url


def check_slug(slug: str) -> str:
    if slug in RESERVED_SLUGS:
        raise ValueError("this name is taken by a page")
    return slug


def whole(number: Any) -> Any:
    """2000.0 is a whole number in JSON, and some languages write theirs like that."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Slug = Annotated[
    str,
    Field(
        max_length=64,
        pattern=SLUG_PATTERN,
        description=f"The board's name in addresses. {' and '.join(RESERVED_SLUGS)!r} can't be used.",
        examples=["city-life"],
    ),
    AfterValidator(check_slug),
]
Title = Annotated[
    str,
    Field(max_length=120, pattern=VISIBLE_TEXT, description="What people see.", examples=["City life"]),
    AfterValidator(str.strip),
]
SourceName = Annotated[
    str,
    Field(max_length=80, pattern=VISIBLE_TEXT, description="Unique within the board.", examples=["weather"]),
    AfterValidator(str.strip),
]
SourceUrl = Annotated[
    str,
    Field(
        max_length=2000,
        pattern=URL_PATTERN,
        description="Where the source is: http or https, on a public address, without user:password@. "
        "Everybody who can read the board sees it.",
        examples=["https://api.example.org/weather"],
    ),
    AfterValidator(check_url),
]
TimeoutMs = Annotated[
    int,
    Field(ge=50, le=60_000, description="How long the source may take, in milliseconds.", examples=[2000]),
    BeforeValidator(whole),
]


class Document(BaseModel):
    # Strict: "true" is not true and "5" is not 5. A misspelt field is told and not dropped.
    model_config = ConfigDict(strict=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _hardly_any_unknown_fields(cls, sent: Any) -> Any:
        """Refuse at once what has nothing to do with this document; each unknown field would cost an error."""
        if isinstance(sent, dict):
            known = len(sent.keys() & cls.model_fields.keys())
            if len(sent) - known > UNKNOWN_FIELDS:
                raise ValueError(
                    f"{len(sent) - known} fields are unknown here; send {', '.join(cls.model_fields)} only"
                )
        return sent


class SourceDocument(Document):
    """One HTTP endpoint of a board."""

    name: SourceName
    url: SourceUrl
    timeout_ms: TimeoutMs = 2000


class BoardDocument(Document):
    """A named set of sources that are fetched together."""

    slug: Slug
    title: Title
    public: bool = Field(False, description="Whether everybody may read and fetch the board. Only its owner edits it.")
    sources: list[SourceDocument] = Field(
        min_length=1, description="In the order in which results list them. The server sets how many a board may have."
    )

    @field_validator("sources", mode="before")
    @classmethod
    def _few_enough(cls, sources: Any) -> Any:
        """Before any of them is looked at: 1 MB holds more than 25,000."""
        limit = current_app.extensions["config"].SOURCES_PER_BOARD
        if isinstance(sources, list) and len(sources) > limit:
            raise ValueError(f"a board has {limit} sources at most")
        return sources

    @field_validator("sources")
    @classmethod
    def _names_of_their_own(cls, sources: list[SourceDocument]) -> list[SourceDocument]:
        names = [source.name for source in sources]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"each source needs a name of its own; used more than once: {', '.join(sorted(twice))}")
        return sources

    def values(self) -> dict[str, Any]:
        """What `boards.save` takes."""
        targets = [Target(source.name, source.url, source.timeout_ms) for source in self.sources]
        return {"slug": self.slug, "title": self.title, "is_public": self.public, "targets": targets}


def board_document(board: Board) -> dict[str, Any]:
    return {
        "slug": board.slug,
        "title": board.title,
        "public": board.is_public,
        "sources": [
            {"name": source.name, "url": source.url, "timeout_ms": source.timeout_ms} for source in board.sources
        ],
    }


def fetch_document(fetch: Fetch) -> dict[str, Any]:
    outcome = {"error": fetch.error} if fetch.error is not None else {"status": fetch.status}
    return {
        "name": fetch.source_name,
        "started_at": fetch.started_at.isoformat().replace("+00:00", "Z"),
        "elapsed_ms": fetch.elapsed_ms,
        **outcome,
    }


def read_body(model: type[Document]) -> Any:
    """The request's body as a `model`. Answers 415 what is not JSON, 400 broken JSON, 422 wrong fields."""
    if request.mimetype != "application/json":
        abort(415, "Send JSON, and say so: `Content-Type: application/json`.")
    try:
        return model.model_validate_json(request.get_data(cache=False))
    except ValidationError as exc:
        found = exc.errors(include_url=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        abort(400, f"The body is not valid JSON: {found[0]['msg'].removeprefix('Invalid JSON: ')}.")
    detail = "Some fields are wrong."
    if len(found) > ERRORS_LISTED:
        detail = f"Some fields are wrong; here are the first {ERRORS_LISTED} of {len(found)} errors."
    raise WrongValues(detail, [field_error(error) for error in found[:ERRORS_LISTED]])


def field_error(error: Any) -> dict[str, str]:
    """A pydantic error as `{"field", "message"}`."""
    message = PATTERN_MESSAGES.get(error.get("ctx", {}).get("pattern"), error["msg"].removeprefix("Value error, "))
    field = ".".join(shorten(str(part), NAME_CHARACTERS) for part in error["loc"])
    return {"field": field or "(body)", "message": shorten(message, MESSAGE_CHARACTERS)}


def shorten(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"
