"""Objects are told by the name that a module of the application's has for them."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import greenlet
import pytest

from greenroom.insight import names
from greenroom.insight.names import described, made_at, name_of
from greenroom.waits.stdlib import locks


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module of an application's."""
    module = ModuleType("shop_of_names")
    module.__file__ = str(tmp_path / "shop.py")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_a_lock_and_an_executor_of_a_module_have_its_name(shop: Any) -> None:
    shop.PRICES = threading.Lock()
    shop.executor = ThreadPoolExecutor(1)

    assert name_of(shop.PRICES) == f"PRICES of {shop.__file__}"
    assert name_of(shop.executor) == f"executor of {shop.__file__}"


def test_what_no_module_has_is_without_a_name() -> None:
    assert name_of(threading.Lock()) == ""
    assert name_of(7.5) == ""


def test_nothing_of_the_objects_own_is_run(shop: Any) -> None:
    class Hostile:
        def __eq__(self, other: object) -> bool:
            raise AssertionError

        def __hash__(self) -> int:
            raise AssertionError

        def __getattribute__(self, name: str) -> Any:
            raise AssertionError

    shop.hostile = Hostile()

    assert name_of(shop.hostile) == f"hostile of {shop.__file__}"
    assert name_of(shop.hostile) == f"hostile of {shop.__file__}"  # as it is remembered


def test_what_is_remembered_is_bounded_and_of_the_same_object(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "MOST_KNOWN", 2)
    locks = [threading.Lock() for _ in range(5)]

    shop.last = locks[-1]

    assert [name_of(lock) for lock in locks] == ["", "", "", "", f"last of {shop.__file__}"]
    assert len(names._known) <= 2


class Shelf:
    """Keeps its lock where no module's name leads to it."""

    def __init__(self) -> None:
        self.lock = locks.Lock()


def test_lock_is_told_with_the_line_that_made_it(shop: Any) -> None:
    shelf = Shelf()
    line = Shelf.__init__.__code__.co_firstlineno + 1
    here = made_at(shelf.lock).rpartition(":")[0]

    assert described(shelf.lock, shelf.lock) == f"made at {here}:{line}"
    shop.__file__ = __file__
    shop.SHELF = shelf.lock
    names._known.clear()
    assert described(shelf.lock, shelf.lock) == f"SHELF of {here}:{line}"
    assert described(7.5, None) == ""


def test_lock_within_a_thing_of_the_standard_library_was_made_where_that_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "RLock", locks.RLock)

    condition: Any = threading.Condition()

    assert made_at(condition._lock).endswith(f"{Path(__file__).name}:{sys._getframe().f_lineno - 2}")


def test_lock_may_be_made_where_no_python_code_runs() -> None:
    made = greenlet.greenlet(locks.Lock).switch()

    assert made.acquire()
    assert ":" in made_at(made)
