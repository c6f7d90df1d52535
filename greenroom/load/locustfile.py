"""For more than one machine: a locustfile that asks the same arrivals, and its results back in our report.

Locust's master and workers share the users among them. Each user of the file asks once a second, and the shape has as
many users as requests are due in that second: Locust asks what we would, as long as answers take less than a second.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .expectations import Expectation
from .plan import Plan
from .request import Request
from .result import Facts, Result, document
from .tally import Route, Tally
from .units import LoadError

PERCENTILES = (50, 66, 75, 80, 90, 95, 98, 99, 99.9, 99.99, 100)

TEMPLATE = '''"""Written by `greenroom load --locustfile`: the arrivals of {origin}, for Locust's master and workers.

    locust -f {name} --headless --host {origin} --csv results [--master | --worker]
    greenroom load --locust-results results_stats.csv
"""

import random

from locust import HttpUser, LoadTestShape, constant_throughput, task

REQUESTS = {requests}
WEIGHTS = [one["weight"] for one in REQUESTS]
# (rate at the beginning, rate at the end, seconds), one after the other.
SEGMENTS = {segments}


class Arrivals(HttpUser):
    wait_time = constant_throughput(1)  # each user once a second: as many users as requests a second

    @task
    def ask(self):
        one = random.choices(REQUESTS, WEIGHTS)[0]
        rest = {{"headers": one["headers"], "data": one["body"].encode("latin-1"), "timeout": {timeout}}}
        self.client.request(one["method"], one["path"], name=one["name"], **rest)


class Shape(LoadTestShape):
    def tick(self):
        moment = self.get_run_time()
        for begin, end, seconds in SEGMENTS:
            if moment < seconds:
                users = max(1, round(begin + (end - begin) * moment / seconds))
                return users, max(1.0, users)
            moment -= seconds
        return None
'''


def written(plan: Plan, name: str) -> str:
    """The text of the file. Raises LoadError for a plan that it cannot express."""
    if plan.shape is None:
        raise LoadError("--locustfile needs --rate: a locustfile asks a rate that changes over time, and nothing else")
    requests = []
    for one in plan.kinds:
        if not isinstance(one, Request) or one.places & set(plan.rows[0] if plan.rows else ()):
            raise LoadError("--locustfile takes requests of the command line, without --scenario and --values")
        said = {**plan.shared_headers, **one.headers}
        requests.append(
            {"method": one.method, "path": one.path, "name": one.name, "headers": said, "weight": one.weight,
             "body": one.body.decode("latin-1")}
        )  # fmt: skip
    return TEMPLATE.format(
        origin=plan.target.origin,
        name=name,
        requests=json.dumps(requests, indent=4),
        segments=[(part.begin, part.end, part.seconds) for part in plan.shape.segments],
        timeout=plan.timeout_seconds,
    )


def results(path: Path, expected: Sequence[Expectation]) -> Result:
    """Return Locust's `--csv` output (`..._stats.csv`) as a result of ours. Raises LoadError.

    Locust keeps percentiles, so a latency is known to lie between two of them, and counts as the higher one.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["Name"] != "Aggregated"]
        per_second = sum(float(row["Requests/s"]) for row in rows)
        routes = {row["Name"]: _route(row) for row in rows}
    except OSError as exc:
        raise LoadError(f"{path} cannot be read: {exc.strerror or exc}") from exc
    except (KeyError, ValueError, TypeError) as exc:
        raise LoadError(f"{path} is no ..._stats.csv of Locust's: {exc} is missing or no number") from exc
    count = sum(route.requests for route in routes.values())
    length = count / per_second if per_second > 0 else 0.0
    tally = Tally(routes=routes, planned=count, good_in_time=sum(route.good for route in routes.values()))
    settings: dict[str, Any] = {"url": f"Locust, {path.name}", "arrivals": "Locust's", "requests": [], "rate": None}
    said = document(Facts(tally, length, 0.0, 0, "", per_second, expected, settings, began_at=0.0))
    # It knows what it asked, and not what it should have asked: users that waited asked less.
    return {**said, "model": "open", "asked_per_second": None}


def _route(row: Mapping[str, str]) -> Route:
    route = Route()
    count = int(row["Request Count"])
    route.errors = int(row["Failure Count"])
    route.good = count - route.errors
    if route.errors:
        route.kinds["failed (Locust)"] = route.errors
    below = 0
    for percent in PERCENTILES:
        upto = round(count * percent / 100)
        if upto > below and row[f"{percent:g}%"] not in ("", "N/A"):
            route.latency.record(float(row[f"{percent:g}%"]) / 1000, upto - below)
            below = upto
    return route
