"""Waits and insight reach each other without either looking for the other."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

from greenroom import observing
from greenroom.insight import pools

PACKAGE = Path(observing.__file__).parent


class FakePool:
    name, limit, waiting, in_use = "shop", 5, 2, 3

    def __init__(self) -> None:
        self.holder = SimpleNamespace(record=None, since=0.0, code=None, line=0)

    def holders(self) -> list[SimpleNamespace]:
        return [self.holder]

    def holder_of(self, connection: object) -> SimpleNamespace | None:
        return self.holder if connection == "its own" else None


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> FakePool:
    pool = FakePool()
    monkeypatch.setattr(observing, "database_pools", [])
    monkeypatch.setattr(observing, "upstream_pools", [])
    return pool


def test_what_registers_late_is_seen(pool: FakePool) -> None:
    assert pools.all_pools() == []

    observing.show(observing.database_pools, show := lambda: [pool])
    observing.show(observing.database_pools, show)
    observing.show(observing.upstream_pools, show)

    database, upstream = pools.all_pools()
    assert (database["kind"], database["name"], database["size"], database["in_use"], database["waiting"]) == (
        "database", "shop", 5, 1, 2,
    )  # fmt: skip
    assert (upstream["kind"], upstream["in_use"], upstream["waiting"]) == ("upstream", 3, 2)


def test_the_holder_of_a_connection_is_found_in_the_pool_that_knows_it(pool: FakePool) -> None:
    observing.show(observing.database_pools, lambda: [pool])

    assert pools.holder_of("its own") == (pool.holder, pool)
    assert pools.holder_of("of somebody else") == (None, None)


@pytest.mark.parametrize("folder", ["insight", "waits", "ops", "worker"])
def test_no_room_looks_for_another_of_ours_in_sys_modules(folder: str) -> None:
    for file in (PACKAGE / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call | ast.Subscript) and ast.unparse(node).startswith("sys.modules"):
                assert "greenroom." not in ast.unparse(node), f"{file}: {ast.unparse(node)}"
