"""Documents of boards as clients of the API send them."""

from typing import Any

Headers = dict[str, str]
SOURCE = {"name": "one", "url": "http://one.example/", "timeout_ms": 700}
BOARD = {"slug": "mine", "title": "Mine", "public": False, "sources": [SOURCE]}


def with_source(**values: Any) -> dict[str, Any]:
    return BOARD | {"sources": [SOURCE | values]}
