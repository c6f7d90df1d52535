"""Scenario files: a Python module of plain functions, each of them one kind of request.

from greenroom.load.scenario import get, post, weight

EXPECT = ["p99<300ms", "errors<0.1%"]

def setup(session):                       # once, before: what it returns is in `values`
    session.post("/login", form={"user": "ada", "password": "secret"})
    return {"city": session.get("/cities").json()[0]}

@weight(5)
def search(values):                       # a function for each kind; `values` has a row of --values, too
    return get("/search", query={"q": values["word"]})

def buy(values):
    return post("/orders", json_body={"city": values["city"]})

def check_buy(answer):                    # true: the answer is good
    return answer.status == 201
"""

import inspect
import runpy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from .request import Answer, Check, Request
from .request import request as _request
from .session import Session
from .units import LoadError

Values = Mapping[str, Any]
Function = Callable[..., Any]
_NOT_REQUESTS = ("setup", "values")


def get(path: str, *, query: Mapping[str, Any] | None = None, **more: Any) -> Request:
    return _request("GET", _with_query(path, query), **more)


def post(path: str, *, query: Mapping[str, Any] | None = None, **more: Any) -> Request:
    return _request("POST", _with_query(path, query), **more)


def request(method: str, path: str, *, query: Mapping[str, Any] | None = None, **more: Any) -> Request:
    return _request(method, _with_query(path, query), **more)


def weight(times: float) -> Callable[[Function], Function]:
    """How often this kind of request comes, compared with the others; 1 when nothing is said."""

    def marked(function: Function) -> Function:
        function.weight = times  # type: ignore[attr-defined]
        return function

    return marked


def _with_query(path: str, query: Mapping[str, Any] | None) -> str:
    return f"{path}{'&' if '?' in path else '?'}{urlencode(query)}" if query else path


@dataclass(frozen=True)
class Maker:
    """One kind of request whose function is called for each."""

    name: str
    weight: float
    function: Function
    check: Check | None
    where: str

    def made(self, values: Values) -> Request:
        """Raises LoadError when the function fails."""
        try:
            found = self.function(values)
        except Exception as exc:
            raise LoadError(f"{self.name}() of {self.where} failed: {type(exc).__name__}: {exc}") from exc
        if not isinstance(found, Request):
            raise LoadError(f"{self.name}() of {self.where} returned {found!r}: return get(...) or post(...)")
        checks = (*found.checks, self.check) if self.check is not None else found.checks
        return replace(found, name=found.name or self.name, checks=checks)


@dataclass(frozen=True)
class Scenario:
    makers: tuple[Maker, ...]
    expectations: tuple[str, ...]
    setup: Callable[[Session], Any] | None
    where: str

    def prepare(self, session: Session) -> dict[str, Any]:
        """Run `setup`; the values that it returns. Raises LoadError when it fails."""
        if self.setup is None:
            return {}
        try:
            found = self.setup(session)
        except LoadError:
            raise
        except Exception as exc:
            raise LoadError(f"setup() of {self.where} failed: {type(exc).__name__}: {exc}") from exc
        if found is not None and not isinstance(found, Mapping):
            raise LoadError(f"setup() of {self.where} returned {found!r}: return a dict of values, or nothing")
        return dict(found or {})


def load(path: Path) -> Scenario:
    """Raises LoadError for a file that is no scenario."""
    if path.suffix in (".yml", ".yaml", ".json", ".js"):
        raise LoadError(
            f"the scenario {path} is no Python: write functions that return get('/path') or post('/path'), as in "
            "docs/load.md"
        )
    try:
        names = runpy.run_path(str(path))
    except OSError as exc:
        raise LoadError(f"the scenario {path} cannot be read: {exc.strerror or exc}") from exc
    except Exception as exc:
        raise LoadError(f"the scenario {path} cannot be imported: {type(exc).__name__}: {exc}") from exc
    functions = {
        name: value
        for name, value in names.items()
        if inspect.isfunction(value) and value.__code__.co_filename == str(path) and not name.startswith("_")
    }
    makers = tuple(
        Maker(name, float(getattr(function, "weight", 1.0)), function, _check(name, functions), path.name)
        for name, function in functions.items()
        if name not in _NOT_REQUESTS and not name.startswith("check_")
    )
    if not makers:
        raise LoadError(f"the scenario {path} has no requests: define a function that returns get('/path')")
    return Scenario(makers, _texts(names.get("EXPECT", ()), path), functions.get("setup"), path.name)


def _check(name: str, functions: Mapping[str, Function]) -> Check | None:
    function = functions.get(f"check_{name}")
    return None if function is None else Check(f"check_{name}", _bool(function))


def _bool(function: Function) -> Callable[[Answer], bool]:
    return lambda answer: bool(function(answer))


def _texts(value: Any, path: Path) -> tuple[str, ...]:
    found: Sequence[Any] = [value] if isinstance(value, str) else list(value)
    if not all(isinstance(one, str) for one in found):
        raise LoadError(f"EXPECT of {path} must be a list of texts: ['p99<300ms']")
    return tuple(found)
