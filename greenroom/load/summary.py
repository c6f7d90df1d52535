"""A result in words, for a terminal and a log."""

from collections.abc import Iterator, Mapping
from typing import Any

from .result import COULD_NOT_RUN, HELD, NOT_HELD, NOT_VALID, exit_code
from .units import written

VERDICTS = {
    HELD: "held",
    NOT_HELD: "not held",
    COULD_NOT_RUN: "could not run: the target gave no answer at all",
    NOT_VALID: "not valid: the generator was the limit",
}
MOST_KINDS = 8
EXPLAINED = {
    "connection refused": "nobody listens there any more, or its backlog is full",
    "connection reset": "the server broke the connection off",
    "closed without an answer": "the server closed the connection instead of answering",
    "answer cut short": "the server closed the connection in the middle of an answer",
    "timed out": "no whole answer came within --timeout of the planned moment",
    "no HTTP answer": "what answers there does not speak HTTP as it should",
    "more than an answer": "bytes came behind the end of an answer: its length is wrong",
    "an answer too large": "it has no end, or is larger than --largest-answer",
    "redirects for ever": "more than ten, one after the other; correct the URL, or say --no-follow",
    "TLS failed": "the server does not speak TLS there, or no version of it that is allowed",
    "no HTTP/2": "the server does not speak it there; leave out --http2",
}


def summary(said: Mapping[str, Any]) -> str:
    return "\n".join(_lines(said))


def _lines(said: Mapping[str, Any]) -> Iterator[str]:
    settings = said["settings"]
    yield f"{settings['url']}  {_model(said)}"
    if said["stopped"]:
        yield f"  stopped early: {said['stopped']}; the numbers are of the {said['duration_seconds']:.1f} s before"
    asked = said["asked_per_second"]
    rate = f"asked {asked:.4g}/s, " if asked is not None else ""
    yield f"  {rate}good {said['good_per_second']:.4g}/s for {said['duration_seconds']:.3g} s, {said['bytes']:,} bytes"
    yield "  latency  " + "  ".join(
        f"{name.removesuffix('_ms')} {milliseconds(said[name])}" for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")
    )
    yield (
        f"  requests {said['requests']}: {said['good']} good, {said['shed']} shed ({said['shed_ratio']:.2%}), "
        f"{said['errors']} errors ({said['errors_ratio']:.2%})"
    )
    for kind, count in list(said["errors_by_kind"].items())[:MOST_KINDS]:
        explained = f": {EXPLAINED[kind]}" if kind in EXPLAINED else ""
        yield f"    {count} x {kind}{explained}"
    if said["unfinished"]:
        yield f"  {said['unfinished']} had no answer yet when it was stopped"
    if said["unsent"]:
        kinds = ", ".join(f"{count} x {kind}" for kind, count in said["unsent_by_kind"].items())
        yield f"  {said['unsent']} of {said['planned']} could not be sent: {kinds}"
    if said["waited_for_connection"]:
        yield f"  {said['waited_for_connection']} waited for a free connection before they were sent"
    generator = said["generator"]
    yield (
        f"  generator: late by {milliseconds(generator['late_p99_ms'])} at p99, {said['late']} requests by more than "
        f"10 ms, {generator['cpu_ratio']:.0%} of a core, {generator['connections']} connections"
    )
    if len(said["routes"]) > 1:
        yield from _routes(said["routes"])
    if said.get("recorded"):
        yield from _beside(said["recorded"], said)
    if said["limited_by"]:
        yield f"  limited by: {said['limited_by']}"
    for row in said["expectations"]:
        yield f"  {'held    ' if row['held'] else 'NOT HELD'}  {row['text']}  (measured: {measured(row)})"
    for problem in said["problems"]:
        yield f"  NOT VALID  {problem}"
    code = exit_code(said)
    if said["expectations"] or code != HELD:
        yield f"verdict: {VERDICTS[code]}"


def _model(said: Mapping[str, Any]) -> str:
    settings = said["settings"]
    if said["model"] == "closed":
        return (
            f"CLOSED MODEL: {settings['users']} users who wait for each answer; a slow server is asked less often, so "
            "queueing is hidden"
        )
    return f"open model, {settings['arrivals']} arrivals"


def _routes(routes: Mapping[str, Any]) -> Iterator[str]:
    width = min(50, max(len(name) for name in routes))
    for name, route in routes.items():
        latency = ", ".join(f"{p} {milliseconds(route[f'{p}_ms'])}" for p in ("p50", "p95", "p99"))
        counts = f"{route['requests']} requests, {route['shed']} shed, {route['errors']} errors"
        yield f"    {name[:width]:{width}}  {counts}, {latency}"


def _beside(recorded: Mapping[str, Any], said: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that compare the recorded run with the one that was played."""
    yield f"  {recorded['kind']:36}    recorded                                 played"
    rows = [("all", recorded["all"], said)]
    rows += [(name, row, said["routes"].get(name)) for name, row in recorded["routes"].items()]
    for name, then, now in rows:
        yield f"    {name[:36]:36}  {_numbers(then):40} {_numbers(now) if now is not None else '-'}"
    for note in recorded["notes"]:
        yield f"    {note}"


def _numbers(row: Mapping[str, Any]) -> str:
    return (
        f"{row['requests']}, {row['shed']} shed, {row['errors']} errors, p50 {milliseconds(row['p50_ms'])}, "
        f"p99 {milliseconds(row['p99_ms'])}"
    )


def milliseconds(value: float | None) -> str:
    return "-" if value is None else written(value / 1000)


def measured(row: Mapping[str, Any]) -> str:
    value = row["measured"]
    if value is None:
        return "nothing to measure"
    if row["text"].startswith(("p", "max", "mean")):
        return milliseconds(value)
    return f"{value:.3%}" if "/s" not in row["text"] else f"{value:.4g}/s"
