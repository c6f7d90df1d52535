"""Long lists in pages: `?page=2&per_page=20`, with `Link` and `X-Total-Count` in the answer's headers."""

from typing import Any
from urllib.parse import urlencode

from flask import request
from flask_sqlalchemy.pagination import Pagination
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Select

from ..errors import WrongValues
from ..extensions import db
from .schemas import field_error


class Page(BaseModel):
    page: int = Field(1, ge=1, le=10_000, description="Which page, from 1.")
    per_page: int = Field(20, ge=1, le=100, description="How many on a page.")


def paginate(query: Select[Any]) -> tuple[list[Any], dict[str, str]]:
    """The rows on the page that the request asks for, and the headers that tell of the others.

    Raises WrongValues if `page` or `per_page` are out of range. A page past the end is empty.
    """
    found = db.paginate(query, **read_page().model_dump(), error_out=False)
    return found.items, {"X-Total-Count": str(found.total), "Link": links(found)}


def read_page() -> Page:
    try:
        return Page.model_validate(request.args.to_dict())
    except ValidationError as exc:
        errors = [field_error(error) for error in exc.errors(include_url=False, include_input=False)]
        raise WrongValues("That page can't be asked for.", errors) from exc


def links(found: Pagination) -> str:
    """The `Link` header (RFC 8288): first and last always, previous and next where there are any."""
    last = max(1, found.pages)
    pages = {"first": 1, "last": last}
    if found.has_prev:
        pages["prev"] = min(found.prev_num, last)
    if found.has_next:
        pages["next"] = found.next_num

    def target(page: int) -> str:
        return f"{request.path}?{urlencode({'page': page, 'per_page': found.per_page})}"

    return ", ".join(f'<{target(page)}>; rel="{relation}"' for relation, page in pages.items())
