"""Long lists in pages: `?page=2&per_page=20`, with `Link` and `X-Total-Count` in the answer's headers."""

from typing import Any
from urllib.parse import urlencode

from flask import request
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Select, func, select

from ..errors import Problem
from ..extensions import db
from .schemas import field_error


class Page(BaseModel):
    page: int = Field(1, ge=1, le=10_000, description="Which page, from 1.")
    per_page: int = Field(20, ge=1, le=100, description="How many on a page.")


def paginate(query: Select[Any]) -> tuple[list[Any], dict[str, str]]:
    """The rows on the page that the request asks for, and the headers that tell of the others.

    Raises Problem 422 if `page` or `per_page` are out of range. A page past the end is empty.
    """
    wanted = read_page()
    total = db.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    rows = db.session.scalars(query.limit(wanted.per_page).offset((wanted.page - 1) * wanted.per_page)).all()
    return list(rows), {"X-Total-Count": str(total), "Link": links(wanted, total)}


def read_page() -> Page:
    given = {name: request.args[name] for name in Page.model_fields if name in request.args}
    try:
        return Page.model_validate(given)
    except ValidationError as exc:
        errors = [field_error(error) for error in exc.errors(include_url=False, include_input=False)]
        raise Problem(422, "That page can't be asked for.", errors) from exc


def links(wanted: Page, total: int) -> str:
    """The `Link` header (RFC 8288): first and last always, previous and next where there are any."""
    last = max(1, -(-total // wanted.per_page))
    pages = {"first": 1, "last": last}
    if wanted.page > 1:
        pages["prev"] = min(wanted.page - 1, last)
    if wanted.page < last:
        pages["next"] = wanted.page + 1

    def target(page: int) -> str:
        return f"{request.path}?{urlencode({'page': page, 'per_page': wanted.per_page})}"

    return ", ".join(f'<{target(page)}>; rel="{relation}"' for relation, page in pages.items())
