"""More comes than can be served: overload, full processors, budgets that run out."""

from collections.abc import Mapping
from typing import Any

from ..collect import Moment
from .finding import BAD, FULL_CPU, LAGGING_SECONDS, WATCH, Finding, finding
from .words import count_of, duration

# A line this long is no burst any more, whether its clients bear with it or not.
LONG_LINE_SECONDS = 0.5
ERROR_SHARE = 0.05


def overload(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    said = [(worker.snapshot or {}).get("worker") or {} for worker in moment.workers if not worker.is_gone]
    line_seconds = max((one.get("line_seconds", 0.0) for one in said), default=0.0)
    if total["shed_rate"] < 0.5 and line_seconds < LONG_LINE_SECONDS:
        return []
    busiest = max((worker.cpu_ratio for worker in moment.workers), default=0.0)
    why = ""
    if busiest >= 0.75:
        why = f"; the CPU is the limit (a worker uses {busiest:.0%} of a core)"
    elif is_robbed(moment):
        why = f"; other programs use the CPU (a worker gets {busiest:.0%} of a core)"
    or_left = ", or their clients leave before their turn" if any(one.get("left_requests") for one in said) else ""
    what = f"{total['shed_rate']:.3g} requests/s are turned away with 503{or_left}"
    if total["shed_rate"] < 0.5:
        what = f"{total['queued']:g} requests wait in line, for {line_seconds:.2g} s"
    return [
        finding(
            BAD,
            f"Overload: {what}, {total['goodput_rate']:.3g}/s are served well{why}.",
            "More comes than can be served. " + _overload_advice(moment),
            cause="overload",
        )
    ]


def _overload_advice(moment: Moment) -> str:
    return ROBBED_WORDS if is_robbed(moment) else cpu_advice(moment)


ROBBED_WORDS = "Look at what else runs here (top), or give the server a machine of its own."


def is_robbed(moment: Moment) -> bool:
    """Whether the machine has no CPU left, and our workers use less than half of it."""
    used = sum(worker.cpu_ratio for worker in moment.workers)
    return moment.machine_cpu_ratio >= FULL_CPU and used < 0.5 * moment.cores


def robbed(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    if not is_robbed(moment) or seen["total"]["lag_seconds"] < LAGGING_SECONDS:
        return []
    used = sum(worker.cpu_ratio for worker in moment.workers)
    return [
        finding(
            WATCH,
            f"Other programs use this machine's CPU: the workers get {used:.2g} of {moment.cores} cores, and are late.",
            ROBBED_WORDS,
            cause="robbed",
        )
    ]


def cpu_advice(moment: Moment) -> str:
    workers = len(moment.workers)
    if workers < moment.cores:
        return f"{count_of(workers, 'worker')} for {moment.cores} cores: raise WEB_CONCURRENCY."
    return "All cores have their worker: make the busiest routes cheaper (see cpu below), or add machines."


def cpu(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    lagging = [
        worker
        for worker in moment.workers
        if worker.cpu_ratio >= FULL_CPU and worker.line["lag_seconds"] >= LAGGING_SECONDS
    ]
    if not lagging:
        return []
    names = ", ".join(str(worker.number) for worker in lagging)
    lag = max(worker.line["lag_seconds"] for worker in lagging)
    return [
        finding(
            WATCH,
            f"The CPU is full: worker {names} computes all the time, and what is ready waits {duration(lag)}.",
            cpu_advice(moment),
            cause="cpu",
        )
    ]


def deadlines(moment: Moment, seen: Mapping[str, Any]) -> list[Finding]:
    total = seen["total"]
    if total["expired_rate"] < 0.1 or total["expired_rate"] < ERROR_SHARE * total["requests_rate"]:
        return []
    return [
        finding(
            WATCH,
            f"{total['expired_rate']:.3g} requests/s run out of their time budget.",
            "What they wait for most is in the table of routes.",
            cause="deadlines",
        )
    ]
