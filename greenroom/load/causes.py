"""The server's own view of the load: its ops page is asked once a second; the report carries the answers.

The page is found by itself when the target runs on this machine with this folder's settings; `--ops URL` names another.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ..errors import GreenroomError
from ..ops.client import Client, OpsError
from ..ops.shapes import View
from ..settings import Settings, read_environment
from .histogram import Histogram
from .target import Target, is_private
from .units import LoadError

# Causes that say something about the machine or the moment, and nothing about what limits the server.
NO_LIMITS = ("healthy", "booting", "stopping")
FULL_RATIO = 0.85
PERIOD_SECONDS = 1.0


class Watcher:
    """Asks the ops page each second, in a thread of its own, from `start` until `close`."""

    def __init__(self, client: Client, now: Callable[[], float] = time.perf_counter) -> None:
        self._client = client
        self._now = now
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="causes", daemon=True)
        self.rows: list[dict[str, Any] | None] = []
        self.problem = ""
        self._began = 0.0

    @property
    def url(self) -> str:
        return self._client.url

    def start(self) -> None:
        self._began = self._now()
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(2.0)

    def sentence(self) -> str:
        """Return the server's latest verdict, for live output."""
        return next((str(row["verdict"]) for row in reversed(self.rows) if row), "")

    def _watch(self) -> None:
        while not self._over.wait(max(0.0, len(self.rows) * PERIOD_SECONDS + PERIOD_SECONDS - self._passed())):
            try:
                row: dict[str, Any] | None = cause_of(self._client.view())
            except OpsError as exc:
                self.problem, row = str(exc), None
            second = max(0, int(self._passed() / PERIOD_SECONDS) - 1)
            self.rows += [None] * (second - len(self.rows))
            self.rows.append(row)

    def _passed(self) -> float:
        return self._now() - self._began


def cause_of(view: View) -> dict[str, Any]:
    """Return the part of an ops page's view that the report keeps, for one second of the run."""
    verdict, total = view.get("verdict") or {}, view.get("total") or {}
    states = view.get("in_flight_states") or {}
    workers = view.get("workers") or []
    saturation = {str(row.get("name")): row for row in view.get("saturation") or []}
    stalls = (view["stalls"].get("now") or []) if "stalls" in view else []
    return {
        "verdict": verdict.get("sentence", ""),
        "level": verdict.get("level", "ok"),
        "cause": verdict.get("cause", ""),
        "advice": verdict.get("do", ""),
        "cpu_ratio": max((worker.get("cpu_ratio") or 0.0 for worker in workers), default=0.0),
        "lag_ms": round((total.get("lag_seconds") or 0.0) * 1000, 3),
        "in_flight": total.get("in_flight", 0),
        "queued": total.get("queued", 0),
        "ready": states.get("ready", 0),
        "waits": {name: count for name, count in states.items() if name not in ("cpu", "ready")},
        "shed_per_second": total.get("shed_rate", 0.0),
        "errors_per_second": total.get("error_rate", 0.0),
        "limit_ratio": saturation["Limit"].get("ratio", 0.0) if "Limit" in saturation else 0.0,
        "workers": len(workers),
        "workers_blocked": total.get("workers_blocked", 0),
        "pools": [
            {name: pool.get(name) for name in ("name", "kind", "in_use", "size", "waiting")}
            for pool in (view.get("pools") or [])[:5]
        ],
        "upstreams": [
            {name: row.get(name) for name in ("host", "waiting", "seconds")}
            for row in (view.get("upstreams") or [])[:5]
        ],
        "stall": next((f"{row.get('line')} ({row.get('route')})" for row in stalls if row.get("line")), ""),
    }


def limited_by(said: Mapping[str, Any], rows: Sequence[Mapping[str, Any] | None]) -> str | None:
    """One sentence on what limited the server in this run; None when nothing did, as far as anybody knows.

    1. the generator did, in a run that is not valid
    2. the server named a cause in some seconds: the one that it named most often, as it was when it was worst
    3. it named none, but a worker used all of a core in most seconds
    4. nobody tells: what is seen from outside
    """
    if not said["valid"]:
        return f"The generator: {said['problems'][0]}."
    told = [row for row in rows if row is not None]
    bad = [row for row in told if row["level"] != "ok" and row["cause"] not in NO_LIMITS]
    if bad and len(bad) >= max(1, len(told) // 10):
        cause = Counter(row["cause"] for row in bad).most_common(1)[0][0]
        same = [row for row in bad if row["cause"] == cause]
        worst = max(same, key=lambda row: (row["level"] == "bad", row["in_flight"]))
        return f"{worst['verdict']} (so in {len(same)} of {len(told)} seconds)"
    busy = [row for row in told if row["cpu_ratio"] >= FULL_RATIO]
    if told and len(busy) * 2 >= len(told):
        most = max(row["cpu_ratio"] for row in busy)
        return f"The CPU: a worker uses {most:.0%} of a core (in {len(busy)} of {len(told)} seconds)."
    return _from_outside(said, is_watched=bool(told))


def _from_outside(said: Mapping[str, Any], *, is_watched: bool) -> str | None:
    if said["held"] and said["errors"] + said["shed"] == 0:
        return None
    silent = "" if is_watched else " (no ops page of Greenroom's tells why; --ops names one)"
    if said["shed"] > said["errors"]:
        return f"The server turned {said['shed_ratio']:.1%} of the requests away{silent}."
    if said["errors"]:
        kind, count = next(iter(said["errors_by_kind"].items()))
        return f"Errors: {count} of {said['requests']} requests ended with {kind!r}{silent}."
    asked, good = said["asked_per_second"], said["good_per_second"]
    if asked and said["stopped"]:
        asked, good = _until_stopped(said)
    if asked and good < 0.95 * asked:
        return f"The server answered {good:.4g}/s of the {asked:.4g}/s that were asked{silent}."
    return f"The server's latency, at a rate that it keeps up with{silent}."


def _until_stopped(said: Mapping[str, Any]) -> tuple[float, float]:
    """Return requests and good answers a second of a run that ended early: its last requests could not be answered."""
    seconds = said["duration_seconds"]
    quick = Histogram.from_json(said["histogram"]).percentile(5) or 0.0
    if seconds <= quick:
        return 0.0, 0.0
    return said["planned"] / seconds, said["good"] / (seconds - quick)


def find(target: Target, ops: str | None, token: str | None) -> Client | None:
    """The ops page of the target. Raises LoadError when the one that `--ops` names does not answer."""
    token = token or os.environ.get("GREENROOM_OPS_TOKEN", "")
    if ops is not None:
        client = _named(ops, token)
        try:
            client.view()
        except OpsError as exc:
            raise LoadError(f"{exc} (--ops)") from exc
        return client
    if not is_private(str(target.address[0])):
        return None
    try:
        settings = Settings.read(read_environment(Path(".env")))
        if settings.ops_address is None or not settings.ops_address[1]:
            return None
        client = Client(settings.ops_address, token or settings.ops_token)
        about = client.view().get("about") or {}
    except GreenroomError:
        return None  # no Greenroom server runs here under these settings: the target is something else
    ports = {str(bind).rpartition(":")[2] for bind in about.get("bind") or []}
    return client if str(target.port) in ports else None


def _named(ops: str, token: str) -> Client:
    parts = urlsplit(ops if "://" in ops else f"http://{ops}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if not parts.hostname or parts.scheme != "http" or port is None:
        raise LoadError(f"--ops {ops!r} is no address of an ops page: write http://127.0.0.1:8001")
    return Client((parts.hostname, port), token)
