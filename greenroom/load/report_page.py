"""A result as one HTML file without scripts: it can be mailed, and opened from anywhere.

On one axis of time: what was asked, got, good and shed; percentiles; a heat map of latencies; and what the server said.
"""

import html
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .histogram import Histogram, highest_of, lowest_of
from .result import HELD, exit_code
from .summary import VERDICTS, measured, milliseconds

WIDTH, HEIGHT, LEFT, BELOW = 960, 180, 64, 18
COLOURS = {
    "asked": "#8a9ba8", "sent": "#4a90d9", "good": "#3d8b37", "shed": "#edae49", "errors": "#d1495b",
    "p50": "#00798c", "p95": "#5b4b9a", "p99": "#d1495b", "max": "#b8b8b8",
}  # fmt: skip
HEAT_ROWS = 24
CAUSES: tuple[tuple[str, str, str], ...] = (
    ("cpu_ratio", "CPU of the busiest worker (cores)", "#d1495b"),
    ("lag_ms", "lag of the loop (ms)", "#edae49"),
    ("ready", "ready, but queued for the CPU", "#e76f51"),
    ("queued", "in line before they are admitted", "#8d6a4f"),
    ("in_flight", "in flight", "#00798c"),
    ("shed_per_second", "turned away each second", "#9d4edd"),
)

Point = tuple[float, float]


def page(said: Mapping[str, Any]) -> str:
    rows = said["seconds"]
    settings = said["settings"]
    code = exit_code(said)
    verdict = VERDICTS[code] if said["expectations"] or code != HELD else "measured, nothing was expected"
    title = f"{settings['url']}: {verdict}"
    parts = [f"<h1>{_text(title)}</h1>", _facts(said)]
    if said.get("capacity"):
        parts.append(_section("Capacity", _capacity(said["capacity"])))
    if rows:
        parts += [
            _section("Rate: asked, good, shed, errors", _rates(rows)),
            _section("Latency by the second the request was due: percentiles", _percentiles(rows)),
            _section("Latency by the second the request was due: how many took how long", _heat(rows)),
        ]
        parts.append(_section("What the server said", _causes(rows)))
    parts.append(_section("Percentiles of the whole run, on a logarithmic axis", _distribution(said["histogram"])))
    parts.append(_section("Errors by kind", _table(("kind", "count"), list(said["errors_by_kind"].items()))))
    if said["routes"]:
        parts.append(_section("Requests", _routes(said["routes"])))
    if said.get("recorded"):
        parts.append(_section(f"As recorded ({_text(said['recorded']['kind'])})", _recorded(said)))
    parts.append(_section("Machine and settings", _machine(said)))
    # The whole result, for `--compare` and programs. In a script element only "<" could end it.
    inner = json.dumps(said, separators=(",", ":")).replace("<", "\\u003c")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + f'\n</main>\n<script type="application/json" id="result">{inner}</script>\n</body></html>\n'
    )


def _facts(said: Mapping[str, Any]) -> str:
    lines = []
    if said["model"] == "closed":
        lines.append("<p class=bad><b>Closed model</b>: users wait for each answer, so queueing is hidden.</p>")
    if said["limited_by"]:
        lines.append(f"<p><b>Limited by:</b> {_text(said['limited_by'])}</p>")
    lines += [f"<p class=bad><b>Not valid:</b> {_text(problem)}</p>" for problem in said["problems"]]
    if said["stopped"]:
        lines.append(f"<p class=bad>Stopped early: {_text(said['stopped'])}.</p>")
    asked = said["asked_per_second"]
    rows = [
        ("asked", f"{asked:.4g}/s" if asked is not None else "-"),
        ("good", f"{said['good_per_second']:.4g}/s"),
        (
            "p50, p95, p99, max",
            ", ".join(milliseconds(said[name]) for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
        ),
        ("requests", f"{said['requests']}: {said['good']} good, {said['shed']} shed, {said['errors']} errors"),
        ("not sent, sent late", f"{said['unsent']}, {said['late']}"),
    ]
    rows += [
        (row["text"], f"{'held' if row['held'] else 'not held'} (measured: {measured(row)})")
        for row in said["expectations"]
    ]
    return "".join(lines) + _table(("", ""), rows)


def _capacity(found: Mapping[str, Any]) -> str:
    rows = [(name.replace("_", " "), value) for name, value in found.items() if name != "trials"]
    shapes = [("good", [(one["asked_per_second"], one["good_per_second"]) for one in found["trials"]])]
    trials = [
        (one["asked_per_second"], one["good_per_second"], milliseconds(one["p99_ms"]), "held" if one["held"] else "no")
        for one in found["trials"]
    ]
    dots = _dots(shapes[0][1])
    return _table(("", ""), rows) + dots + _table(("asked/s", "good/s", "p99", "held"), trials)


def _dots(points: Sequence[Point]) -> str:
    most_x, most_y = (max((point[axis] for point in points), default=1.0) or 1.0 for axis in (0, 1))
    shapes = [
        f'<circle cx="{_x(x, most_x):.1f}" cy="{_y(y, most_y):.1f}" r="4" fill="{COLOURS["good"]}">'
        f"<title>asked {x:.4g}/s, good {y:.4g}/s</title></circle>"
        for x, y in points
    ]
    return _svg(shapes, "Good answers a second by what was asked", most_y, f"{most_x:.4g}/s asked")


def _rates(rows: Sequence[Mapping[str, Any]]) -> str:
    names = ("asked", "good", "shed", "errors")
    return _chart({name: [(number, row[name]) for number, row in enumerate(rows)] for name in names}, len(rows), "/s")


def _percentiles(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = {
        name: [(number, row[f"{name}_ms"]) for number, row in enumerate(rows) if row[f"{name}_ms"] is not None]
        for name in ("p50", "p95", "p99", "max")
    }
    return _chart(lines, len(rows), " ms", is_logarithmic=True)


def _chart(lines: Mapping[str, Sequence[Point]], count: int, unit: str, *, is_logarithmic: bool = False) -> str:
    values = [value for points in lines.values() for _, value in points]
    most = max(values, default=1.0) or 1.0
    least = min((value for value in values if value > 0), default=most / 10) if is_logarithmic else 0.0
    shapes = []
    for name, points in lines.items():
        path = " ".join(f"{_x(x, max(1, count - 1)):.1f},{_y(y, most, least):.1f}" for x, y in points)
        shapes.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.6"/>')
    key = " ".join(f'<span class=key><i style="background:{COLOURS[name]}"></i>{name}</span>' for name in lines)
    label = ", ".join(lines)
    return _svg(shapes, label, most, f"{count} s", unit, least) + f"<p class=note>{key}</p>"


def _heat(rows: Sequence[Mapping[str, Any]]) -> str:
    buckets = [(number, lowest_of(index), times) for number, row in enumerate(rows) for index, times in row["buckets"]]
    if not buckets:
        return "<p>No answers.</p>"
    low = max(1, min(value for _, value, _ in buckets))
    high = max(low * 2, max(value for _, value, _ in buckets) + 1)
    span = math.log(high / low)
    cells: dict[tuple[int, int], int] = {}
    for number, value, times in buckets:
        step = min(HEAT_ROWS - 1, int(math.log(max(value, low) / low) / span * HEAT_ROWS))
        cells[number, step] = cells.get((number, step), 0) + times
    most = max(cells.values())
    width, height = (WIDTH - LEFT) / len(rows), HEIGHT / HEAT_ROWS
    shapes = []
    for (number, step), times in cells.items():
        from_ms = low * math.exp(span * step / HEAT_ROWS) / 1000
        shapes.append(
            f'<rect x="{LEFT + number * width:.1f}" y="{HEIGHT - (step + 1) * height:.1f}" width="{width:.2f}" '
            f'height="{height:.2f}" fill="#00798c" fill-opacity="{0.12 + 0.88 * math.sqrt(times / most):.2f}">'
            f"<title>second {number}: {times} from {from_ms:.3g} ms</title></rect>"
        )
    return _svg(shapes, "How many requests took how long", high / 1000, f"{len(rows)} s", " ms", low / 1000)


def _distribution(said: Mapping[str, Any]) -> str:
    """Latency over 1 / (1 - percentile), on a logarithmic axis: each step to the right is a nine more."""
    histogram = Histogram.from_json(said)
    if not histogram.count:
        return "<p>No answers.</p>"
    seen, points = 0, []
    for index in sorted(histogram.counts):
        seen += histogram.counts[index]
        rest = max(1.0 - seen / histogram.count, 0.5 / histogram.count)
        points.append((-math.log10(rest), min(highest_of(index) / 1000, histogram.largest * 1000)))
    most_x, most_y = max(points[-1][0], 1.0), points[-1][1]
    path = " ".join(f"{_x(x, most_x):.1f},{_y(y, most_y):.1f}" for x, y in points)
    shapes = [f'<polyline points="{path}" fill="none" stroke="{COLOURS["p50"]}" stroke-width="1.6"/>']
    for nines, name in ((0.301, "p50"), (1, "p90"), (2, "p99"), (3, "p99.9"), (4, "p99.99")):
        if nines <= most_x:
            x = _x(nines, most_x)
            shapes.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{HEIGHT}" stroke="#8a9ba8" stroke-dasharray="2 4"/>'
                f'<text x="{x + 3:.1f}" y="12">{name}</text>'
            )
    return _svg(shapes, "Latency by percentile", most_y, "percentile", " ms")


def _causes(rows: Sequence[Mapping[str, Any]]) -> str:
    told = [(number, row["server"]) for number, row in enumerate(rows) if row.get("server")]
    if not told:
        return "<p>The target is no Greenroom server whose ops page could be asked (<code>--ops URL</code>).</p>"
    parts = []
    for name, title, colour in CAUSES:
        points = [(float(number), float(server.get(name) or 0.0)) for number, server in told]
        most = max(value for _, value in points)
        if most <= 0:
            continue
        path = " ".join(f"{_x(x, max(1, len(rows) - 1)):.1f},{_y(y, most):.1f}" for x, y in points)
        line = f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
        parts.append(f"<p class=note>{_text(title)}</p>" + _svg([line], title, most, f"{len(rows)} s"))
    parts.append(_table(("second", "what the server said"), _changes(told)))
    return "".join(parts)


def _changes(told: Sequence[tuple[int, Mapping[str, Any]]]) -> list[tuple[Any, ...]]:
    """The sentences as they change, with the line of a stall and the pools that somebody waits for."""
    found: list[tuple[Any, ...]] = []
    for number, server in told:
        pools = [f"{one['name']}: {one['in_use']} of {one['size']}, {one['waiting']} wait"
                 for one in server.get("pools") or [] if one.get("waiting")]  # fmt: skip
        words = "; ".join([server["verdict"], *([server["stall"]] if server.get("stall") else []), *pools])
        if not found or found[-1][1] != words:
            found.append((number, words))
    return found


def _routes(routes: Mapping[str, Any]) -> str:
    names = ("requests", "good", "shed", "errors")
    rows = [
        (
            name,
            *(route[one] for one in names),
            *(milliseconds(route[f"{one}_ms"]) for one in ("p50", "p95", "p99", "max")),
        )
        for name, route in routes.items()
    ]
    return _table(("request", *names, "p50", "p95", "p99", "max"), rows)


def _recorded(said: Mapping[str, Any]) -> str:
    rows = []
    for name, then in [("all", said["recorded"]["all"]), *said["recorded"]["routes"].items()]:
        now = said if name == "all" else said["routes"].get(name)
        for kind, row in (("recorded", then), ("played", now)):
            if row is not None:
                numbers = (row["requests"], row["shed"], row["errors"])
                rows.append((name, kind, *numbers, milliseconds(row["p50_ms"]), milliseconds(row["p99_ms"])))
    return _table(("request", "", "requests", "shed", "errors", "p50", "p99"), rows)


def _machine(said: Mapping[str, Any]) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(said["began_at"])) if said["began_at"] else ""
    pairs: list[tuple[str, Any]] = [("began", at), *said["machine"].items()]
    pairs += [(f"generator: {name}", value) for name, value in said["generator"].items()]
    pairs += [(name, value) for name, value in said["settings"].items() if value not in (None, False)]
    return _table(("", ""), pairs)


def _x(value: float, most: float) -> float:
    return LEFT + (WIDTH - LEFT) * value / most


def _y(value: float, most: float, least: float = 0.0) -> float:
    """`least` above 0 makes the axis logarithmic."""
    if least > 0:
        share = math.log(max(value, least) / least) / math.log(max(most / least, 1.0001))
    else:
        share = value / most
    return HEIGHT - share * (HEIGHT - 6) - 2


def _svg(shapes: Iterable[str], label: str, most: float, right: str, unit: str = "", least: float = 0.0) -> str:
    middle = math.sqrt(most * least) if least > 0 else most / 2
    heights = {value: max(10.0, _y(value, most, least)) for value in (most, middle, least)}
    ticks = "".join(
        f'<text x="{LEFT - 6}" y="{y:.1f}" text-anchor="end">{_short(value)}{unit}</text>'
        for value, y in heights.items()
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT + BELOW}" role="img" aria-label="{_text(label)}">{"".join(shapes)}{ticks}'
        f'<text x="{LEFT}" y="{HEIGHT + BELOW - 3}">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + BELOW - 3}" text-anchor="end">{_text(right)}</text></svg>'
    )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    titles = "".join(f'<th scope="col">{_text(title)}</th>' for title in head) if any(head) else ""
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    top = f"<thead><tr>{titles}</tr></thead>" if titles else ""
    return f"<div class=wide><table>{top}<tbody>{body}</tbody></table></div>" if body else "<p>None.</p>"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{content}</section>"


def _text(value: Any) -> str:
    return html.escape("-" if value is None else str(value))


STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:0}main{max-width:62rem;margin:auto;"
    "padding:1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin:1.5rem 0 .5rem}svg{width:100%;height:auto;"
    "background:color-mix(in srgb,currentColor 5%,transparent)}svg text{font-size:11px;fill:currentColor}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid "
    "color-mix(in srgb,currentColor 15%,transparent);font-variant-numeric:tabular-nums;overflow-wrap:anywhere}"
    ".wide{overflow-x:auto}.bad{color:#d1495b}.note{font-size:.85rem;margin:.2rem 0}.key{margin-right:.8rem;"
    "white-space:nowrap}.key i{display:inline-block;width:.7em;height:.7em;margin-right:.3em}"
)
