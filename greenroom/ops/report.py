"""Reports for readers who were not there: a recording as an HTML file.

A recording is one file without scripts: it can be mailed, and opened from anywhere. It ends with a block of JSON from
which a load test can replay the arrivals:

    <script type="application/json" id="arrivals">
    {"format": "greenroom-arrivals/1", "began_at": Unix time of the first,
     "arrivals": [[seconds since the first, route, status, seconds it took], ...]}

`route` is the pattern, "other" where no route was known; "shed" is a request that was turned away; a status of 0 is one
that had no answer yet, after so many seconds. Paths, queries, headers and bodies are not in it.
"""

import html
import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .verdicts.words import duration
from .view import clean

ARRIVALS_FORMAT = "greenroom-arrivals/1"
STATES = ("cpu", "ready", "upstream", "query", "pool", "dns", "offload", "lock", "sleep", "client", "other")
COLOURS = {
    "cpu": "#d1495b",
    "ready": "#edae49",
    "upstream": "#00798c",
    "query": "#5b4b9a",
    "pool": "#9d4edd",
    "dns": "#3d8b37",
    "offload": "#8d6a4f",
    "lock": "#e76f51",
    "sleep": "#8a9ba8",
    "client": "#4a90d9",
    "other": "#b8b8b8",
}
WIDTH, HEIGHT = 960, 120
MOST_ROWS = 100


def recording(
    records: Sequence[Mapping[str, Any]],
    reason: str,
    at: float,
    about: Mapping[str, Any],
    seen: Mapping[str, Any],
    silent: Sequence[int] = (),
    lost: Sequence[int] = (),
    short: Mapping[int, float] | None = None,
    seconds: float = 60.0,
) -> str:
    """The file, about the last `seconds`. `records` are in the order of time.

    `silent` are workers of which nothing is known, `lost` those of which only what was copied when the spike began;
    `short` are those that remember less than all of the time, with how long.
    """
    requests = [row for row in records if row["kind"] == "request"]
    in_flight = [row for row in records if row["kind"] == "in_flight"]
    shed = sum(row.get("count", 1) for row in records if row["kind"] == "shed")
    verdict = (seen.get("verdict") or {}).get("sentence", "")
    parts = [
        f"<h1>{text(verdict or 'What happened')}</h1>",
        f"<p>Saved {text(moment(at))} because of: <b>{text(reason)}</b>. Server "
        f"{text(', '.join(about.get('bind', [])))}, application {text(about.get('app', ''))}. "
        f"In the last {seconds:.0f} s: {len(requests)} requests, {len(in_flight)} more without an answer yet, "
        f"{shed} turned away, "
        f"{sum(row['kind'] == 'stall' for row in records)} times that a loop stood still.</p>",
    ]
    if silent:
        numbers = ", ".join(str(number) for number in silent)
        parts.append(f"<p class=bad>Worker {text(numbers)} did not answer; what it remembers is missing here.</p>")
    if lost:
        numbers = ", ".join(str(number) for number in lost)
        parts.append(
            f"<p class=bad>Worker {text(numbers)} was lost, or could not answer any more, before this was saved: of it "
            "there is what it remembered when the spike began.</p>"
        )
    for number, covered in sorted((short or {}).items()):
        parts.append(
            f"<p class=bad>Worker {text(number)} had more to do than it can remember: "
            f"of it there are the last {covered:.1f} s.</p>"
        )
    parts += [
        _section("Requests each second", _bars(records, at, math.ceil(seconds))),
        _section(
            "Each request: when it came, how long it took, where the time went",
            _scatter([*requests, *in_flight], at, seconds),
        ),
        _section("Routes", _routes_table(requests)),
        _section("Stalls and long slices", _stalls_table(records)),
        _section("The slowest requests", _slowest_table(requests)),
    ]
    if seen.get("in_flight"):
        parts.append(_section("In flight when it was saved", _in_flight_table(seen["in_flight"])))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Greenroom recording, {text(moment(at))}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main>\n"
        + arrivals_block(records)
        + "\n</body></html>\n"
    )


def arrivals_block(records: Sequence[Mapping[str, Any]]) -> str:
    rows = sorted(arrival for row in records for arrival in _arrivals(row))
    began_at = rows[0][0] if rows else 0.0
    said = {
        "format": ARRIVALS_FORMAT,
        "began_at": round(began_at, 6),
        "arrivals": [[round(at - began_at, 6), name, status, round(took, 6)] for at, name, status, took in rows],
    }
    # In a script element nothing but "</" and "<!--" has a meaning to HTML; in JSON they can be written otherwise.
    inner = json.dumps(said, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="arrivals">{inner}</script>'


def _arrivals(row: Mapping[str, Any]) -> Iterator[tuple[float, str, int, float]]:
    """When (Unix time), route, status, seconds. Those that were turned away come evenly over the time they took."""
    if row["kind"] == "shed":
        count = row.get("count", 1)
        for number in range(count):
            yield row["at"] + row["seconds"] * number / count, "shed", row["status"], 0.0
    elif row["kind"] in ("request", "in_flight"):
        yield row["at"], clean(row["name"]), row["status"], row["seconds"]


def _section(title: str, content: str) -> str:
    return f"<section><h2>{text(title)}</h2>{content}</section>"


def _bars(records: Iterable[Mapping[str, Any]], at: float, seconds: int) -> str:
    """Requests and refusals each second, the last so many."""
    served, shed = [0] * seconds, [0] * seconds
    for row in records:
        second = seconds - 1 - int(at - row["at"])
        if 0 <= second < seconds and row["kind"] in ("request", "in_flight", "shed"):
            (shed if row["kind"] == "shed" else served)[second] += row.get("count", 1)
    most = max(1, *(one + other for one, other in zip(served, shed, strict=True)))
    width = WIDTH / seconds
    shapes = []
    for second, (one, other) in enumerate(zip(served, shed, strict=True)):
        tall, refused = one / most * HEIGHT, other / most * HEIGHT
        for count, height, top, colour, name in (
            (one, tall, HEIGHT - tall, "#00798c", "served"),
            (other, refused, HEIGHT - tall - refused, "#d1495b", "turned away"),
        ):
            if count:
                shapes.append(
                    f'<rect x="{second * width:.1f}" y="{top:.1f}" width="{width - 1:.1f}" height="{height:.1f}" '
                    f'fill="{colour}"><title>{seconds - 1 - second} s before: {count} {name}</title></rect>'
                )
    return (
        _svg(shapes, f"Requests each second, at most {most}")
        + f"<p class=note>The {seconds} s before it was saved. At most {most} a second; red: refused.</p>"
    )


def _scatter(requests: Sequence[Mapping[str, Any]], at: float, seconds: float) -> str:
    """A stroke for each request: from when it came until it was answered, as high as it took long."""
    kept = sorted(requests, key=lambda row: -row["seconds"])[:3000]
    longest = max((row["seconds"] for row in kept), default=1.0) or 1.0
    shapes = []
    for row in kept:
        x, y = (seconds - (at - row["at"])) / seconds * WIDTH, HEIGHT - row["seconds"] / longest * (HEIGHT - 6) - 3
        state = STATES[max(range(len(STATES)), key=lambda index: row["by_state"][index])]
        width = max(1.5, row["seconds"] / seconds * WIDTH)
        status = row["status"] or "without an answer yet"
        shapes.append(
            f'<rect x="{max(0.0, x):.1f}" y="{y:.1f}" width="{width:.1f}" height="3" fill="{COLOURS[state]}">'
            f"<title>{text(row['name'])} {status} {duration(row['seconds'])}, most of it {state}</title></rect>"
        )
    key = " ".join(f'<span class=key><i style="background:{COLOURS[state]}"></i>{state}</span>' for state in STATES)
    return _svg(shapes, f"Requests by time and duration, the longest {duration(longest)}") + f"<p class=note>{key}</p>"


def _svg(shapes: Sequence[str], label: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(label)}" preserveAspectRatio="none">'
        + "".join(shapes)
        + "</svg>"
    )


def _routes_table(requests: Sequence[Mapping[str, Any]]) -> str:
    by_route: dict[str, list[Mapping[str, Any]]] = {}
    for row in requests:
        by_route.setdefault(row["name"], []).append(row)
    rows = []
    for route, all_of_it in sorted(by_route.items(), key=lambda item: -sum(row["seconds"] for row in item[1])):
        seconds = sorted(row["seconds"] for row in all_of_it)
        by_state = [sum(column) for column in zip(*(row["by_state"] for row in all_of_it), strict=True)]
        rows.append(
            (
                route,
                len(seconds),
                sum(row["status"] >= 500 for row in all_of_it),
                duration(seconds[len(seconds) // 2]),
                duration(seconds[int(len(seconds) * 0.99)]),
                _shares(by_state),
            )
        )
    return _table(("route", "requests", "5xx", "median", "p99", "where the time went"), rows)


def _stalls_table(records: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (moment(row["at"]), f"worker {row['worker']}", row["kind"], duration(row["seconds"]), row["name"])
        for row in sorted(records, key=lambda row: -row["seconds"])
        if row["kind"] in ("stall", "slice")
    ]
    return _table(("began", "worker", "what", "held the loop for", "line"), rows) if rows else "<p>None.</p>"


def _slowest_table(requests: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (moment(row["at"]), row["name"], row["status"], duration(row["seconds"]), _shares(row["by_state"]))
        for row in sorted(requests, key=lambda row: -row["seconds"])[:MOST_ROWS]
    ]
    return _table(("came", "route", "status", "took", "where the time went"), rows)


def _in_flight_table(rows: Sequence[Mapping[str, Any]]) -> str:
    return _table(
        ("id", "route", "age", "state", "waits for"),
        [
            (row.get("id"), row.get("route"), duration(row["age_seconds"]), row.get("state"), row.get("detail") or "")
            for row in rows[:MOST_ROWS]
        ],
    )


def _shares(by_state: Sequence[float]) -> str:
    whole = sum(by_state)
    if whole <= 0:
        return ""
    largest = sorted(zip(by_state, STATES, strict=False), reverse=True)[:3]
    return ", ".join(f"{state} {part / whole:.0%}" for part, state in largest if part / whole >= 0.01)


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    titles = "".join(f'<th scope="col">{text(title)}</th>' for title in head)
    body = "".join(
        "<tr>" + "".join(f"<td>{text(cell)}</td>" for cell in row) + "</tr>" for row in list(rows)[:MOST_ROWS]
    )
    return f"<div class=wide><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"


def text(value: Any) -> str:
    return html.escape(str(clean(value)))


def moment(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))


STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:0}main{max-width:60rem;margin:auto;"
    "padding:1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}svg{width:100%;height:8rem;"
    "background:color-mix(in srgb,currentColor 6%,transparent)}table{border-collapse:collapse;width:100%}"
    "th,td{text-align:left;padding:.2rem .6rem .2rem 0;border-bottom:1px solid color-mix(in srgb,currentColor 15%,"
    "transparent);font-variant-numeric:tabular-nums;overflow-wrap:anywhere}.wide{overflow-x:auto}.bad{color:#d1495b}"
    ".note{font-size:.85rem}.key{margin-right:.8rem;white-space:nowrap}.key i{display:inline-block;width:.7em;"
    "height:.7em;margin-right:.3em}"
)
