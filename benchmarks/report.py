"""The products of a comparison: a table on the terminal, a JSON document, a plot."""

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from .stats import Round, Summary

SCHEMA = "greenroom.benchmarks/1"
# Above this the load side has no time to spare: it would be measuring itself.
BUSY_RATIO = 0.85
# More than this of the server's core went to others. They hurt a server of one thread more than one of many: the
# scheduler shares a core by threads. (The kernel's own work for the network is a few percent.)
DISTURBED_RATIO = 0.2
COLOURS = ("#9aa3ad", "#4c86c6", "#2f9e6e", "#d9822b", "#a05db8", "#c8504b", "#5aa9a3", "#8a6f4d")
FEW_NAMES = 4  # so many stand beside each other under a plot; more are turned
RAW_DOT = "#20262c"


def table(summaries: Sequence[Summary], baseline: str, memory_kind: str) -> Table:
    """One line for each route and server. In brackets: how many times the baseline's value."""
    result = Table(
        title=f"Medians over the rounds; in brackets, times {baseline}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for title in ("route", "server"):
        result.add_column(title, no_wrap=True)
    for title in (
        "clients",
        "requests/s",
        "CPU µs",
        "p50 ms",
        "p99 ms",
        "errors",
        f"{memory_kind} MB",
        "server CPU",
        "client CPU",
    ):
        result.add_column(title, justify="right", no_wrap=True)
    previous = None
    for one in summaries:
        if previous is not None and one.route != previous:
            result.add_section()
        result.add_row(*row(one, show_route=one.route != previous, show_ratios=one.server != baseline))
        previous = one.route
    return result


def row(one: Summary, *, show_route: bool = True, show_ratios: bool = True) -> list[str]:
    def with_ratio(value: float, ratio: float | None) -> str:
        return number(value) + (f" ({times(ratio)})" if show_ratios and ratio is not None else "")

    return [
        one.route if show_route else "",
        one.server,
        f"{one.clients:,}" if one.clients else "-",
        with_ratio(one.requests_per_second, one.requests_per_second_ratio),
        number(one.cpu_microseconds),
        with_ratio(one.p50_ms, one.p50_ratio),
        with_ratio(one.p99_ms, one.p99_ratio),
        f"{one.error_count:,}",
        f"{one.memory_bytes / 1e6:.0f}",
        f"{one.server_cpu_ratio:.0%}",
        f"{one.generator_cpu_ratio:.0%}",
    ]


def warnings(
    summaries: Sequence[Summary], *, load_average_before: float, busy_load_average: float, timeout_seconds: float
) -> list[str]:
    """Return the warnings for a reader of the numbers, a sentence each."""
    found = []
    if load_average_before > busy_load_average:
        found.append(
            f"the machine was not idle when this began (load average {load_average_before:g}): take it as a smoke test"
        )
    generators = [f"{where(one)} {one.generator_cpu_ratio:.0%}" for one in summaries if is_generator_busy(one)]
    if generators:
        found.append(f"the load generator had no time to spare, the server may be faster: {', '.join(generators)}")
    cores = [f"{where(one)} {one.load_cores_busy_ratio:.0%}" for one in summaries if are_load_cores_busy(one)]
    if cores:
        found.append("the cores beside the server's were busy, the server may be faster: " + ", ".join(cores))
    disturbed = [f"{where(one)} {one.others_on_server_core_ratio:.0%}" for one in summaries if is_disturbed(one)]
    if disturbed:
        found.append(
            "other programs ran on the server's core, which favours servers with many threads: " + ", ".join(disturbed)
        )
    for one in summaries:
        if one.errors:
            found.append(f"{where(one)}: {one.error_count:,} requests failed ({errors(one.errors)})")
    if any("timeout" in one.errors for one in summaries):
        found.append(f"a time-out is a request without a whole answer in {timeout_seconds:g} s")
    return found


def is_generator_busy(one: Summary) -> bool:
    return one.generator_cpu_ratio > BUSY_RATIO


def are_load_cores_busy(one: Summary) -> bool:
    return one.load_cores_busy_ratio is not None and one.load_cores_busy_ratio > BUSY_RATIO


def is_disturbed(one: Summary) -> bool:
    return one.others_on_server_core_ratio is not None and one.others_on_server_core_ratio > DISTURBED_RATIO


def where(one: Summary) -> str:
    return f"{one.server} on {one.route}"


def document(
    *,
    command: str,
    started_at: str,
    finished_at: str,
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    options: Mapping[str, Any],
    servers: Sequence[Mapping[str, Any]],
    routes: Mapping[str, str],
    baseline: str,
    memory_kind: str,
    warnings: Sequence[str],
    rounds: Sequence[Round],
    summaries: Sequence[Summary],
) -> dict[str, Any]:
    """All that was measured and all that is needed to measure it again. Plain values only."""
    return {
        "schema": SCHEMA,
        "command": command,
        "started_at": started_at,
        "finished_at": finished_at,
        "machine": dict(machine),
        "versions": dict(versions),
        "options": dict(options),
        "servers": [dict(server) for server in servers],
        "routes": dict(routes),
        "method": {
            "load": "closed loop: each client sends its next request when it has the answer to the one before",
            "latency": "from the moment the client wants to send, connecting included, to the last byte; of requests "
            "started in the measured time and waited for to their end; time-outs included",
            "requests_per_second": "right answers (status 200 and the expected body) that arrived in the measured time",
            "cpu_microseconds": "user and system time of the server's processes for a right answer",
            "errors": "all requests that failed after the warm-up; in summaries, the sum over the rounds",
            "summary": "medians over the rounds; generator_cpu_ratio, load_cores_busy_ratio and "
            "others_on_server_core_ratio are the highest",
            "memory": f"{memory_kind} of the worker process, after its load on the route",
            "percentiles": "nearest rank",
        },
        "baseline": baseline,
        "warnings": list(warnings),
        "summaries": [one.as_dict() for one in summaries],
        "rounds": [one.as_dict() for one in rounds],
    }


def load_in_words(options: Any, threaded: str) -> str:
    """Describe the clients' load; `threaded` are the servers that had `options.threads` threads."""
    rounds = "1 round" if options.rounds == 1 else f"medians of {options.rounds} rounds"
    clients = "as many clients as fill the server's core, " if options.raises_clients else f"{options.clients} clients "
    return (
        f"{clients}in a closed loop; {rounds} of {options.seconds:g} s a route after "
        f"{options.warm_up_seconds:g} s of warm-up; one worker, {threaded} with {options.threads} threads"
    )


def write(
    content: Mapping[str, Any],
    summaries: Sequence[Summary],
    rounds: Sequence[Round],
    *,
    title: str,
    load: str,
    versions: str,
    stem: Path,
) -> None:
    """`stem`.json and, where matplotlib is installed, the plot; prints what was written."""
    document = stem.with_suffix(".json")
    write_json(content, document)
    written = [document]
    if importlib.util.find_spec("matplotlib"):
        note = plot_note(content, load, versions, document.name)
        written += write_plot(summaries, rounds, content["routes"], title=title, note=note, stem=stem)
    else:
        print("No plot: it needs matplotlib, which requirements-dev.txt installs.")
    for path in written:
        # print() and not the console: a path that is folded in two can't be copied.
        print(f"wrote {path}")


def plot_note(content: Mapping[str, Any], load: str, versions: str, document: str) -> str:
    pinning = content["machine"]["pinning"]["note"]
    count = f" Warnings: {len(content['warnings'])}, see {document}." if content["warnings"] else ""
    return (
        f"{load}; dots are the rounds. {pinning[0].upper()}{pinning[1:]}.{count}\n"
        f"{content['command']}   {content['started_at'][:10]}   {content['machine']['cpu']}\n"
        f"Python {content['versions']['python']}, {versions}"
    )


def write_json(content: Mapping[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")


def write_plot(
    summaries: Sequence[Summary], rounds: Sequence[Round], routes: Mapping[str, str], title: str, note: str, stem: Path
) -> list[Path]:
    """`stem`.png and `stem`.svg: a column for each route, throughput above latency, all axes linear and from 0."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed
    from matplotlib import pyplot

    names = [name for name in routes if any(one.route == name for one in summaries)]
    most_servers = max(sum(one.route == name for one in summaries) for name in names)
    width = max(4.3, 1.05 * most_servers)  # of a column, so that the labels of neighbours don't meet
    figure, axes = pyplot.subplots(2, len(names), figsize=(width * len(names), 7.6), squeeze=False)
    for column, route in enumerate(names):
        of_route = [one for one in summaries if one.route == route]
        raw = [one for one in rounds if one.route == route]
        draw_throughput(axes[0][column], of_route, raw)
        axes[0][column].set_title(f"{route}\n{routes[route]}", fontsize=11, pad=10)
        draw_latency(axes[1][column], of_route, raw)
    axes[0][0].set_ylabel("requests/s (more is better)")
    axes[1][0].set_ylabel("latency, ms (less is better)")
    figure.suptitle(title, fontsize=14, fontweight="bold", x=0.012, y=0.985, ha="left")
    figure.text(0.012, 0.012, note, fontsize=8.5, color="#555b61", ha="left", va="bottom")
    figure.tight_layout(rect=(0, 0.02 + 0.021 * (note.count("\n") + 1), 1, 0.97), h_pad=2.5, w_pad=2)
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths


def draw_throughput(axis: Any, summaries: Sequence[Summary], rounds: Sequence[Round]) -> None:
    for index, one in enumerate(summaries):
        raw = [each.requests_per_second for each in rounds if each.server == one.server]
        label = throughput_label(one, show_ratio=index > 0)
        draw_bar(axis, index, one.requests_per_second, raw, label, width=0.62, color=COLOURS[index % len(COLOURS)])
    finish(axis, [one.server for one in summaries], headroom=1.26)


def throughput_label(one: Summary, *, show_ratio: bool) -> str:
    lines = [number(one.requests_per_second)]
    if show_ratio and one.requests_per_second_ratio is not None:
        lines.append(times(one.requests_per_second_ratio))
    if one.errors:
        lines.append(f"{one.error_count:,} failed")
    return "\n".join(lines)


def draw_latency(axis: Any, summaries: Sequence[Summary], rounds: Sequence[Round]) -> None:
    for index, one in enumerate(summaries):
        colour = COLOURS[index % len(COLOURS)]
        for place, alpha, name in ((index - 0.19, 0.5, "p50"), (index + 0.19, 1.0, "p99")):
            raw = [getattr(each, f"{name}_ms") for each in rounds if each.server == one.server]
            value = getattr(one, f"{name}_ms")
            label = f"{name}\n{number(value)}"
            draw_bar(axis, place, value, raw, label, width=0.35, color=colour, alpha=alpha)
    finish(axis, [one.server for one in summaries], headroom=1.22)


def draw_bar(axis: Any, place: float, value: float, raw: Sequence[float], label: str, **style: Any) -> None:
    """A bar to `value`, a dot for each round so that the spread behind the median can be seen, a label above both."""
    height = 0.0 if math.isnan(value) else value
    axis.bar([place], [height], **style)
    if len(raw) > 1:
        axis.plot([place] * len(raw), raw, "o", color=RAW_DOT, markersize=2.6, alpha=0.75, zorder=3)
    top = max([height, *(each for each in raw if not math.isnan(each))])
    axis.annotate(label, (place, top), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=9)


def finish(axis: Any, names: Sequence[str], headroom: float) -> None:
    axis.set_xticks(range(len(names)), names, fontsize=10.5)
    if len(names) > FEW_NAMES:
        axis.tick_params(axis="x", rotation=20)
    axis.set_ylim(0, (axis.dataLim.ymax or 1.0) * headroom)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(axis="y", color="#e3e6e9", linewidth=0.8)
    axis.set_axisbelow(True)


def number(value: float) -> str:
    """Three digits or so, as people write them: 3,412 and 98 and 9.8; a dash for what is not known."""
    if math.isnan(value):
        return "-"
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}"


def times(ratio: float | None) -> str:
    if ratio is None:
        return ""
    if ratio >= 20:
        return f"×{ratio:,.0f}"
    return f"×{ratio:.1f}" if ratio >= 0.95 else f"×{ratio:.2g}"


def errors(counts: Mapping[str, int]) -> str:
    """`0`, or `3 timeout, 1 wrong body`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "0"
