"""Workers in trouble, as their snapshots tell it, and the verdict on them."""

from typing import Any

from .fakes import NOW, request, route, shown, snapshot

AT = 1.7e9  # of the fakes' moments


def verdict(*workers: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = shown(*workers, **more)["verdict"]
    return found


def causes(found: dict[str, Any]) -> list[str]:
    return [found["cause"], *(other["cause"] for other in found["others"])]


def stuck(count: int, state: str, detail: str = "api:443", seconds: float = 2.0, **more: Any) -> list[dict[str, Any]]:
    return [request(state, detail, seconds, id=f"r-{number}", **more) for number in range(count)]


def with_lines(said: dict[str, Any], line: str, of: str, library: str = "") -> dict[str, Any]:
    """Each wait of the snapshot is at this line."""
    for row in said["waiting"]:
        row["lines"] = [{"line": line, "route": of, "library": library, "count": row["count"]}]
    return said


def failure(name: str = "ZeroDivisionError", line: str = "shop/prices.py:9", **more: Any) -> dict[str, Any]:
    row = {"name": name, "line": line, "route": "/price", "message": "division by zero", "root": name, "number": ""}
    times = {"first_at": AT - 60.0, "last_at": AT - 1.0, "last_since": NOW - 1.0}
    return {**row, "library": "", "count": 7, **times, **more}


def failing(row: dict[str, Any], failed: int = 7, well: int = 100) -> dict[str, Any]:
    key = f"{row['name']} {row['route']}"
    routes = {row["route"]: route(failed, status="5xx"), "/ok": route(well)}
    counted = {key: {"class": row["name"], "route": row["route"], "count": failed}}
    return snapshot(routes=routes, failures=[row], failed=counted)


def database(**more: Any) -> dict[str, Any]:
    row = {"refused": 0, "timed_out": 0, "full": 0, "failed": 0, "heard_seconds": 0.1, "failed_seconds": None}
    return {"db:5432": {**row, "last_failure": "", **more}}


def stalls(*last: dict[str, Any]) -> dict[str, Any]:
    return {"total": len(last), "seconds": 4.0, "current": None, "top": [], "last": list(last)}
