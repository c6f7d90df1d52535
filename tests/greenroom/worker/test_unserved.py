"""What this worker does not work with is refused when the server starts, in a sentence."""

from types import SimpleNamespace
from typing import Any

import gevent.hub
import pytest

from greenroom.worker import unserved


class Log:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def error(self, words: str) -> None:
        self.errors.append(words)


def loop_of(module: str) -> Any:
    return type("loop", (type("loop", (), {"__module__": module}),), {"__module__": "greenroom.waits.children"})


def test_libuv_and_uwsgi_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Log()
    with pytest.raises(SystemExit):
        unserved.demand_served(SimpleNamespace(protocol="uwsgi"), said)
    monkeypatch.setattr(unserved, "config", SimpleNamespace(loop=loop_of("gevent.libuv.loop")))
    with pytest.raises(SystemExit):
        unserved.demand_served(SimpleNamespace(), said)

    assert [words.split(":")[0] for words in said.errors] == [
        "greenroom's worker speaks HTTP, and not the uwsgi protocol",
        "greenroom's worker needs gevent's usual event loop, libev",
    ]


def test_libev_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Log()

    unserved.demand_served(SimpleNamespace(protocol="http"), said)
    monkeypatch.setattr(unserved, "config", SimpleNamespace(loop=type(gevent.hub.get_hub().loop)))
    unserved.demand_served(SimpleNamespace(), said)

    assert said.errors == []
