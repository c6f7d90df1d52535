"""What the catalogue is written in: an application, and what it is asked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ask:
    """One request. `json`, `form` and `body` are sent as such; cookies of earlier answers are sent along."""

    method: str
    path: str
    json: Any = None
    form: Mapping[str, str] | None = None
    body: bytes | None = None
    # Regular expressions: what may differ between two runs.
    may_differ: tuple[str, ...] = ()
    # Two servers that fail in the same way answer the same: 500 and more has to be expected.
    fails: bool = False


@dataclass(frozen=True)
class Application:
    """`module` lies in apps/; `requirements` are pip's, the first of them the distribution that the table names."""

    title: str
    module: str
    requirements: tuple[str, ...]
    asks: tuple[Ask, ...]
    # Installed last, without what they need: where a pin of theirs does not go with any gevent.
    alone: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    # In front of gunicorn: an agent. With us it is `greenroom run -- LAUNCHER gunicorn -k greenroom.Worker` then.
    launcher: tuple[str, ...] = ()
    # With the oldest set: pip's, in the place of `requirements`; the set's own pins that do not fit, by distribution.
    oldest: tuple[str, ...] = ()
    oldest_without: tuple[str, ...] = ()
    not_oldest: str = ""

    @property
    def name(self) -> str:
        return self.title.lower().replace(" ", "-").replace("(", "").replace(")", "").replace(".", "")
