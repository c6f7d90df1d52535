"""The form of a board: rows of sources that can be added, removed and moved without JavaScript.

The rules for a board are the API's BoardDocument; this only turns form fields into such a document and its
complaints into sentences beside the fields.
"""

import re
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from werkzeug.datastructures import MultiDict

from ..api.schemas import BoardDocument, field_error
from ..models import Board

ACTION = re.compile(r"(add|remove|up|down)(?:-(\d{1,3}))?")
EMPTY_ROWS = 3
ROWS_AT_MOST = 250  # read from one form, whatever it claims to have; the settings allow 200 sources
DEFAULT_TIMEOUT_MS = "2000"


@dataclass
class Row:
    """One source as it stands in the form: text, right or wrong."""

    name: str = ""
    url: str = ""
    timeout_ms: str = DEFAULT_TIMEOUT_MS
    errors: dict[str, str] = field(default_factory=dict)

    def is_empty(self) -> bool:
        return not (self.name.strip() or self.url.strip())

    def values(self) -> dict[str, Any]:
        timeout = self.timeout_ms.strip()
        return {
            "name": self.name.strip(),
            "url": self.url.strip(),
            # Digits become a number; anything else stays text, so that the schema complains about it.
            "timeout_ms": int(timeout) if re.fullmatch(r"[0-9]{1,9}", timeout) else timeout,
        }


@dataclass
class BoardForm:
    """A board as it stands in the form. `errors` are those of the board's own fields, under "" those of no field."""

    slug: str = ""
    title: str = ""
    is_public: bool = False
    rows: list[Row] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of_board(cls, board: Board) -> "BoardForm":
        rows = [Row(source.name, source.url, str(source.timeout_ms)) for source in board.sources]
        return cls(board.slug, board.title, board.is_public, rows)

    @classmethod
    def of_request(cls, sent: MultiDict[str, str]) -> "BoardForm":
        rows = []
        columns = zip(sent.getlist("name"), sent.getlist("url"), sent.getlist("timeout_ms"), strict=False)
        for name, url, timeout_ms in list(columns)[:ROWS_AT_MOST]:
            rows.append(Row(name, url, timeout_ms))
        return cls(sent.get("slug", "").strip(), sent.get("title", "").strip(), "public" in sent, rows)

    def with_empty_rows(self) -> "BoardForm":
        self.rows += [Row() for _ in range(EMPTY_ROWS)]
        return self

    def change_rows(self, action: str) -> bool:
        """Do what a button of the rows says: `add`, `remove-2`, `up-2`, `down-2`. False when it is none of these."""
        match = ACTION.fullmatch(action)
        if match is None:
            return False
        verb, index = match[1], int(match[2] or 0)
        if verb == "add":
            self.with_empty_rows()
        elif index < len(self.rows):
            row = self.rows.pop(index)
            if verb != "remove":
                self.rows.insert(max(0, index - 1) if verb == "up" else index + 1, row)
        return True

    def document(self) -> BoardDocument | None:
        """The board, if all is well; otherwise None, and the errors are at their fields. Empty rows don't count."""
        used = [row for row in self.rows if not row.is_empty()]
        if not used:
            self.errors["sources"] = "A board needs at least one source."
        values = {"slug": self.slug, "title": self.title, "public": self.is_public}
        try:
            document = BoardDocument.model_validate(values | {"sources": [row.values() for row in used]})
        except ValidationError as exc:
            for error in exc.errors(include_url=False, include_input=False):
                self._place(error, used)
            return None
        return document

    def _place(self, error: Any, used: list[Row]) -> None:
        location = error["loc"]
        if len(location) == 3 and location[0] == "sources":
            used[location[1]].errors.setdefault(location[2], sentence(error, location[2]))
        else:
            # Errors of the board as a whole (two sources of one name) are about its sources.
            name = str(location[0]) if location else "sources"
            self.errors.setdefault(name, sentence(error, name))


HINTS = {
    "slug": "Use small letters, digits and hyphens, 64 at most, no hyphen at either end.",
    "title": "A title has 1 to 120 characters.",
    "name": "A name has 1 to 80 characters.",
    "url": "Start with http:// or https:// and a host; 2000 characters at most, no blanks.",
    "timeout_ms": "A whole number from 50 to 60000.",
}


def sentence(error: Any, name: str) -> str:
    """Return the change to make. Our own rules explain themselves; pydantic's speak of patterns and get a hint."""
    if error["type"] == "value_error" or name not in HINTS:
        message = field_error(error)["message"]
        return message[0].upper() + message[1:] + "."
    return HINTS[name]
