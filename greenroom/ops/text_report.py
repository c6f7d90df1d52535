"""Everything as text, for a ticket: the verdict, the page's tables, and each worker with its stacks.

Text that came from outside has been cleaned before (see view): no line of it can pretend to be another.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .report import moment
from .verdicts.words import duration

MOST_ROWS = 25
WIDEST_CELL = 90


def everything(seen: Mapping[str, Any], answers: Mapping[str, Any]) -> str:
    """`seen` is the view; `answers` are what the workers say when asked for everything, by pid."""
    about, verdict = seen.get("about", {}), seen.get("verdict", {})
    lines = [
        f"greenroom, {moment(seen.get('at', time.time()))}, {', '.join(about.get('bind', []))}, {about.get('app', '')}",
        "",
        verdict.get("sentence", "Nothing is known yet."),
        *(f"  {verdict['do']}" for _ in (1,) if verdict.get("do")),
        *(f"also: {other['sentence']}" for other in verdict.get("others", [])),
    ]
    if "total" in seen:
        for title, head, rows in tables(seen):
            lines += ["", title, *table(head, rows)]
    for worker in seen.get("workers", []):
        lines += _worker_lines(worker, answers.get(str(worker["pid"])))
    for deadlock in seen.get("deadlocks", []):
        members = deadlock.get("members", [])
        lines += [
            "",
            f"deadlock in worker {deadlock['worker']}, for {duration(deadlock.get('since_seconds', 0))}, "
            f"{deadlock.get('waiting', len(members))} waiting:",
        ]
        for member in members:
            taken = f", taken at {member['taken_at']}" if member.get("taken_at") else ""
            by = f"{member.get('waits_for_route') or ''} {member.get('waits_for') or ''}".strip()
            lines.append(
                f"  {member.get('route')} {member.get('request')} waits for {member.get('lock')}{taken}"
                + (f" by {by}" if by else "")
            )
            lines += [f"    {call}" for call in member.get("stack", [])]
    return "\n".join(lines) + "\n"


Table = tuple[str, Sequence[str], Sequence[Sequence[Any]]]


def tables(seen: Mapping[str, Any]) -> list[Table]:
    """Return the page's tables as (title, column heads, rows), without those that are empty."""
    found = [now_table(seen), full_table(seen), workers_table(seen), *more_tables(seen)]
    return [one for one in found if one[2]]


def now_table(seen: Mapping[str, Any]) -> Table:
    total = seen["total"]
    row = (
        *(f"{total[name]:.3g}" for name in ("requests_rate", "goodput_rate", "shed_rate", "error_rate")),
        *(f"{total[name]:g}" for name in ("in_flight", "queued", "connections")),
        *(_time(total[name]) for name in ("p50", "p95", "p99", "lag_seconds")),
    )
    head = ("requests/s", "well/s", "turned away/s", "failed/s", "in flight", "queue", "connections")
    return "now", (*head, "p50", "p95", "p99", "lag"), [row]


def full_table(seen: Mapping[str, Any]) -> Table:
    rows = [(row["name"], f"{row['ratio']:.0%}", row["text"]) for row in seen["saturation"]]
    return "what is full", ("", "", ""), rows


def workers_table(seen: Mapping[str, Any]) -> Table:
    rows = [
        (
            *(row["number"], row["pid"], row["state"] + (" ?" if row["is_stale"] else "")),
            *(f"{row['in_flight']:g}", f"{row['queued']:g}", f"{row['requests_rate']:.3g}"),
            *(_time(row["p95"]), f"{row['requests']:g}", row["stalls"], _time(row["lag_seconds"])),
            *(f"{row['cpu_ratio']:.0%}", f"{row['rss_bytes'] / 1e6:.0f} MB", _time(row["age_seconds"])),
        )
        for row in seen["workers"]
    ]
    head = ("worker", "pid", "state", "in flight", "queue", "req/s", "p95", "requests", "stalls", "lag", "CPU")
    return "workers (?: does not answer)", (*head, "memory", "age"), rows


def more_tables(seen: Mapping[str, Any]) -> list[Table]:
    """Those that answer why: routes, what is waited for, pools, upstreams, stalls, held connections, lives."""
    states = seen["states"]
    total = seen["total"]
    stalls = seen["stalls"]
    return [
        (
            "in flight wait for",
            ("state", "requests", "middle", "longest", "for"),
            [
                (row["state"], row["count"], _time(row["middle_seconds"]), _time(row["longest_seconds"]), row["detail"])
                for row in seen["waits"]
            ],
        ),
        (
            "routes, the last 15 seconds",
            ("per s", "5xx", "late or left", "p50", "p99", "route", "p99 goes to"),
            [
                (
                    *(f"{row['rate']:.3g}", row["errors"], row["cut"], _time(row["p50"]), _time(row["p99"])),
                    *(row["route"], shares(row["p99_by_state"], states)),
                )
                for row in seen["routes"]
            ],
        ),
        (
            "pools of connections",
            ("in use", "size", "waiting", "workers", "fullest", "pool"),
            [
                (
                    *(row["in_use"], row["size"] or "-", row["waiting"], row["workers"]),
                    *(row["fullest"] or "-", f"{row['kind']} {row['name']}"),
                )
                for row in seen["pools"]
            ],
        ),
        (
            "upstreams",
            ("per s", "takes", "usually", "waiting", "longest", "host"),
            [
                (
                    *(f"{row['rate']:.3g}", _time(row["seconds"]), _time(row["usual_seconds"]), row["waiting"]),
                    *(_time(row["longest_seconds"]), row["host"]),
                )
                for row in seen["upstreams"]
            ],
        ),
        (
            "what stopped the loop",
            ("times", "together", "longest", "line", "route"),
            [
                *(
                    ("now", _time(row["seconds"]), "-", row["line"] or f"worker {row['worker']}: ?", row["route"])
                    for row in stalls["now"]
                ),
                *(
                    (row["count"], _time(row["seconds"]), _time(row["longest_seconds"]), row["line"], row.get("route"))
                    for row in stalls["top"]
                ),
            ],
        ),
        (
            "database connections held while waiting for somebody else",
            ("times", "together", "gain", "last used at", "waits at"),
            [
                (row["count"], _time(row["seconds"]), f"{row.get('gain') or 1:.2g}x", row["used"], row["upstream"])
                for row in seen["held"]
            ],
        ),
        (
            f"lives: {total['workers_started']:g} started, {total['workers_ended']:g} ended, "
            f"{total['workers_died']:g} of them died",
            ("ago", "worker", "pid", "what", ""),
            [
                (_time(row["ago_seconds"]), row["worker"], row["pid"], row["kind"], event_words(row))
                for row in seen["events"]
            ],
        ),
    ]


def event_words(event: Mapping[str, Any]) -> str:
    stall = event.get("stall")
    blocked = f"blocked for {duration(stall['seconds'])} {stall['line']}".strip() if stall else ""
    return ", ".join(filter(None, (f"with {event['had']:g} in flight" if event.get("had") else "", blocked)))


def shares(by_state: Sequence[float], states: Sequence[str]) -> str:
    """The largest parts: "upstream 80%, pool 15%"."""
    largest = sorted(zip(by_state, states, strict=False), reverse=True)[:3]
    return ", ".join(f"{state} {part:.0%}" for part, state in largest if part >= 0.01)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of text, in columns."""
    cells = [[str(cell if cell is not None else "-")[:WIDEST_CELL] for cell in row] for row in list(rows)[:MOST_ROWS]]
    all_rows = [list(head), *cells] if any(head) else cells
    widths = [max(len(row[at]) for row in all_rows) for at in range(len(head))]
    return [
        ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in all_rows
    ]


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else duration(seconds)


def _worker_lines(worker: Mapping[str, Any], answer: Any) -> list[str]:
    lines = [
        "",
        f"worker {worker['number']}, pid {worker['pid']}, {worker['state']}: {worker['in_flight']:g} in flight",
    ]
    if not isinstance(answer, dict) or "error" in answer:
        lines.append(f"  does not answer{': ' + str(answer['error']) if isinstance(answer, dict) else ''}")
        return lines + [f"    {call}" for call in (worker.get("stall") or {}).get("stack", [])]
    lines += ["  its main thread, innermost call first:", *(f"    {call}" for call in answer.get("main_stack", []))]
    for request in answer.get("in_flight", []):
        lines += _request_lines(request)
    return lines


def _request_lines(request: Mapping[str, Any]) -> list[str]:
    waits = f" for {request['detail']}" if request.get("detail") else ""
    lines = [
        "",
        f"  {request.get('method', '')} {request.get('route')} ({request.get('path', '')}) id {request.get('id')}: "
        f"{duration(request.get('age_seconds', 0))} old, {request.get('state')}{waits} for "
        f"{duration(request.get('state_seconds') or 0)}",
    ]
    for greenlet in (request.get("stacks") or {}).get("greenlets", []):
        lines.append(f"    {greenlet.get('name')} ({greenlet.get('state')})")
        own = greenlet.get("own")  # the application's innermost line
        lines += [f"    {'>' if place == own else ' '} {call}" for place, call in enumerate(greenlet.get("stack", []))]
    return lines
