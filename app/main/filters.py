"""How templates write moments, durations and bodies."""

import json
from collections.abc import Iterator
from datetime import datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from markupsafe import Markup

from .routes import blueprint

PREVIEW_CHARACTERS = 4000
INDENTED = json.JSONEncoder(indent=2, ensure_ascii=False)


@blueprint.app_template_filter()
def moment(at: datetime) -> Markup:
    """`22 November 2026, 13:05 UTC`, with the machine-readable form in the markup."""
    shown = f"{at.day} {at:%B %Y, %H:%M} UTC"
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(timespec="seconds"), shown)


@blueprint.app_template_filter()
def duration(ms: int) -> str:
    """`850 ms`, `1.25 s`."""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.2f} s"


@blueprint.app_template_filter()
def status_text(status: int) -> str:
    """`503 Service Unavailable`; just the number where HTTP has no name for it."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


@blueprint.app_template_filter()
def host(url: str) -> str:
    """Return the part of a source's URL that everybody may see: the path and the query may carry keys."""
    return urlsplit(url).netloc.rpartition("@")[2]


@blueprint.app_template_filter()
def preview(body: Any) -> str:
    """The start of a body, JSON indented.

    No more is written than is shown: a megabyte of JSON in a hundred brackets is a hundred megabytes when indented. A
    character that JSON can name and UTF-8 can't write, half of a surrogate pair, is a question mark.
    """
    pieces: Iterator[str] = iter((body,)) if isinstance(body, str) else INDENTED.iterencode(body)
    text = ""
    for piece in pieces:
        text += piece[: PREVIEW_CHARACTERS + 1]
        if len(text) > PREVIEW_CHARACTERS:
            text = text[:PREVIEW_CHARACTERS] + "\n…"
            break
    return text.encode(errors="replace").decode()
