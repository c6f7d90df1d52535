"""The routes of an application, as its framework lists them: Flask, Django, Bottle, Pyramid, or none."""

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any

from .lines import is_own, shown

MOST_ROUTES = 500
BOTTLE_FILTERS = {"int": "IntConverter", "float": "FloatConverter", "path": "PathConverter"}


def routes_of(application: Any) -> list[dict[str, Any]]:
    """`rule`, `methods`, `arguments` {name: converter}, `endpoint`, `place` (`file:line` of the view)."""
    flask = inner(application)
    if flask is not None:
        return list(_flask(flask))[:MOST_ROUTES]
    if "django.urls" in sys.modules:
        return list(_django())[:MOST_ROUTES]
    if "bottle" in sys.modules and isinstance(application, sys.modules["bottle"].Bottle):
        return list(_bottle(application))[:MOST_ROUTES]
    if hasattr(application, "registry") and hasattr(application.registry, "introspector"):
        return list(_pyramid(application))[:MOST_ROUTES]
    return []


def inner(application: Any) -> Any:
    """The Flask application, also behind middleware."""
    seen: set[int] = set()
    waiting = [application]
    while waiting and len(seen) < 50:
        at = waiting.pop(0)
        if id(at) in seen or at is None:
            continue
        seen.add(id(at))
        if hasattr(at, "url_map") and hasattr(at, "view_functions"):
            return at
        for name in ("app", "wsgi_app", "application", "_app", "wsgi", "__wrapped__", "__self__"):
            waiting.append(getattr(at, name, None))
        closure = getattr(at, "__closure__", None) or ()
        waiting += [cell.cell_contents for cell in closure if _is_filled(cell)]
        waiting += list(getattr(at, "mounts", {}).values()) if isinstance(getattr(at, "mounts", None), dict) else []
    return None


def _is_filled(cell: Any) -> bool:
    try:
        return callable(cell.cell_contents)
    except ValueError:
        return False


def _flask(application: Any) -> Iterator[dict[str, Any]]:
    for rule in application.url_map.iter_rules():
        arguments = {}
        for name in rule.arguments:
            converter = rule._converters.get(name)
            arguments[name] = type(converter).__name__ if converter is not None else ""
        yield {
            "rule": rule.rule,
            "methods": sorted(rule.methods or ()),
            "arguments": arguments,
            "endpoint": rule.endpoint,
            "is_websocket": bool(getattr(rule, "websocket", False)),
            "host": rule.host or rule.subdomain or "",
            "place": place_of(application.view_functions.get(rule.endpoint)),
        }


def _django() -> Iterator[dict[str, Any]]:
    get_resolver: Any = sys.modules["django.urls"].get_resolver

    def walk(patterns: Any, prefix: str) -> Iterator[dict[str, Any]]:
        for pattern in patterns:
            text = str(pattern.pattern)
            if hasattr(pattern, "url_patterns"):
                yield from walk(pattern.url_patterns, prefix + text)
            elif "^" not in text:
                yield {
                    "rule": "/" + prefix + text,
                    "methods": ["GET"],
                    "arguments": {name: type(one).__name__ for name, one in pattern.pattern.converters.items()},
                    "endpoint": pattern.name or "",
                    "is_websocket": False,
                    "host": "",
                    "place": place_of(pattern.callback),
                }

    yield from walk(get_resolver().url_patterns, "")


def _bottle(application: Any) -> Iterator[dict[str, Any]]:
    by_rule: dict[str, list[Any]] = {}
    for route in application.routes:
        by_rule.setdefault(route.rule, []).append(route)
    for rule, routes in by_rule.items():
        named = re.findall(r"<(\w+)(?::(\w+)[^>]*)?>", rule)
        yield {
            "rule": re.sub(r"<(\w+):[^>]*>", r"<\1>", rule),
            "methods": sorted({route.method for route in routes}),
            "arguments": {name: BOTTLE_FILTERS.get(kind, kind) for name, kind in named},
            "endpoint": rule,
            "is_websocket": False,
            "host": "",
            "place": place_of(routes[0].get_undecorated_callback()),
        }


def _pyramid(application: Any) -> Iterator[dict[str, Any]]:
    views = {
        one["introspectable"]["route_name"]: one["introspectable"]["callable"]
        for one in application.registry.introspector.get_category("views") or ()
        if one["introspectable"].get("route_name")
    }
    for one in application.registry.introspector.get_category("routes") or ():
        route = one["introspectable"]
        pattern = "/" + route["pattern"].lstrip("/")
        names = re.findall(r"\{(\w+)(?::[^}]*)?\}", pattern)
        yield {
            "rule": re.sub(r"\{(\w+)(?::[^}]*)?\}", r"<\1>", pattern),
            "methods": list(route["request_methods"] or ["GET"]),
            "arguments": dict.fromkeys(names, ""),
            "endpoint": route["name"],
            "is_websocket": False,
            "host": "",
            "place": place_of(views.get(route["name"])),
        }


def place_of(view: Any) -> str:
    """`file:line` of the application's own function behind a view, through decorators and classes."""
    cls = getattr(view, "view_class", None)
    if cls is not None:
        view = next((getattr(cls, name) for name in ("get", "dispatch_request") if hasattr(cls, name)), view)
    try:
        code = inspect.unwrap(view).__code__
    except (AttributeError, ValueError):
        return ""
    return f"{shown(code.co_filename)}:{code.co_firstlineno}" if is_own(code.co_filename) else ""
