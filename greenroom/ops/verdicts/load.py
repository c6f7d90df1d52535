"""More comes than can be served: overload, full processors, budgets that run out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..collect import Moment
from ..counters import difference
from ..shapes import View
from . import stalls
from .finding import BAD, FEWEST, FULL_CPU, LAGGING_SECONDS, OK, WATCH, Finding, finding
from .peers import routes
from .words import count_of, duration, window

# A line this long is no burst any more, whether its clients bear with it or not.
LONG_LINE_SECONDS = 0.5
HEAVY_SHARE, WHOLE_SHARE = 0.5, 0.995
FEWEST_REQUESTS = 50
# By so much of what could be uneven is it called so.
UNEVEN_SHARE = 0.5
FEWEST_CONNECTIONS = 8
# Of a second, by all workers together: ready to run, and somebody else ran.
STOLEN_SHARE = 0.2
BUSY_CPU, IDLE_CPU = 0.6, 0.35
# Workers that use as much of a core are busy alike; less than this share of the busiest one's is not.
ALIKE = 0.6
# Of a worker's time: what computes for so long beside the requests is felt by them.
BESIDE_SHARE = 0.4
# A worker that has just imported its application has used the CPU for that.
STARTED_SECONDS = 20.0
# The cost of a request besides its application, at most.
SERVING_SECONDS = 0.002
MANY_UPLOADS = 20
LONG_UPLOAD_SECONDS = 3.0
LONG_ANSWER_SECONDS = 10.0
ERROR_SHARE = 0.05
# Of gunicorn.
TOO_LARGE = ("LimitRequestHeaders", "LimitRequestLine")


def overload(moment: Moment, seen: View) -> list[Finding]:
    total = seen["total"]
    said = [(worker.snapshot or {}).get("worker") or {} for worker in moment.workers if not worker.is_gone]
    line_seconds = max((one.get("line_seconds", 0.0) for one in said), default=0.0)
    if total["shed_rate"] < 0.5 and line_seconds < LONG_LINE_SECONDS:
        return []
    busiest = max((worker.cpu_ratio for worker in moment.workers), default=0.0)
    if busiest < BUSY_CPU and any(one["level"] == BAD for one in stalls.recent(moment, seen)):
        return []  # they wait because the loops stand still at a line that waits: no machine would help
    why = ""
    if busiest >= 0.75:
        why = f"; the CPU is the limit (a worker uses {busiest:.0%} of a core)"
    elif is_robbed(moment):
        why = f"; other programs use the CPU (a worker gets {busiest:.0%} of a core)"
    or_left = ", or their clients leave before their turn" if any(one.get("left_requests") for one in said) else ""
    who = _heaviest(seen)
    what = f"{total['shed_rate']:.3g} requests/s are turned away with 503{or_left}"
    if total["shed_rate"] < 0.5:
        what = f"{total['queued']:g} requests wait in line, for {line_seconds:.2g} s"
    return [
        finding(
            BAD,
            f"Overload: {what}, {total['goodput_rate']:.3g}/s are served well{why}{_balance(seen)}{who}.",
            "More comes than can be served. "
            + ("If that client should not send so much: limit it in nginx (limit_req). " if who else "")
            + _overload_advice(moment),
            cause="overload",
        )
    ]


def _balance(seen: View) -> str:
    """That it is not for want of balance: each worker has requests, and as much of a core as the others."""
    serving = [one for one in seen["workers"] if one["state"] == "serving"]
    if len(serving) < 2:
        return ""
    least, most = (choose(one["cpu_ratio"] for one in serving) for choose in (min, max))
    has_work = all(one["in_flight"] for one in serving)
    return f"; all {len(serving)} workers are busy alike, none is idle" if has_work and least > ALIKE * most else ""


def _heaviest(seen: View) -> str:
    """The client that sends most of it, if one does; where it sends all, it is a proxy, and that says nothing."""
    top = seen["clients"]["top"]
    if not top or not HEAVY_SHARE <= top[0]["share"] < WHOLE_SHARE or seen["clients"]["total"] < FEWEST_REQUESTS:
        return ""
    return f"; {top[0]['share']:.0%} of all requests come from {top[0]['client']}"


def uneven(moment: Moment, seen: View) -> list[Finding]:
    """One worker has nearly all connections, and is busy while another one idles."""
    serving = [one for one in seen["workers"] if one["state"] in ("serving", "retiring")]
    if len(serving) < 2:
        return []
    busiest = max(serving, key=lambda one: one["cpu_ratio"])
    idlest = min(serving, key=lambda one: one["cpu_ratio"])
    connections = sum(one["connections"] for one in serving)
    share = busiest["connections"] / connections if connections else 0.0
    even = 1 / len(serving)
    if connections < FEWEST_CONNECTIONS or share < even + UNEVEN_SHARE * (1 - even):
        return []
    if busiest["cpu_ratio"] < BUSY_CPU or idlest["cpu_ratio"] > IDLE_CPU:
        return []
    return [
        finding(
            WATCH,
            f"One worker has nearly all clients: worker {busiest['number']} has {busiest['connections']:g} of "
            f"{connections:g} connections and uses {busiest['cpu_ratio']:.0%} of a core, while worker "
            f"{idlest['number']} idles ({idlest['cpu_ratio']:.0%}).",
            "Clients that keep their connections stay where they are; they spread as they come anew. A proxy before "
            "the server (nginx with keepalive) spreads requests, not clients.",
            cause="uneven",
        )
    ]


def refused(moment: Moment, seen: View) -> list[Finding]:
    """Heads larger than the server takes: a cookie that has grown. What else can't be read is mostly a scan."""
    grown = difference(moment.sums["refused"], moment.before["refused"])
    count = sum(grown.get(name, 0) for name in TOO_LARGE)
    if count < FEWEST or count < ERROR_SHARE * (count + seen["total"]["finished_count"]):
        return []
    return [
        finding(
            WATCH,
            f"{count_of(int(count), 'request')} in the last {window(moment)} are refused before the application sees "
            "them: their heads are larger than the limit.",
            "Mostly a cookie that has grown, and its client is refused until it is deleted: see what sets it. The "
            "limits are gunicorn's: limit_request_field_size (8,190 bytes), limit_request_fields (100), "
            "limit_request_line.",
            cause="refused",
        )
    ]


def slow_uploads(moment: Moment, seen: View) -> list[Finding]:
    """Requests whose bodies come slowly: each keeps its place for as long."""
    rows = _of_clients(seen, "body", LONG_UPLOAD_SECONDS)
    if len(rows) < MANY_UPLOADS:
        return []
    waiting = sum(row["count"] for row in seen["waits"] if row["state"] == "client" and row["detail"] == "body")
    names = routes(rows)
    client, share = _client_of_most(rows)
    who = f", {share:.0%} of them from {client}" if client else ""
    return [
        finding(
            WATCH,
            f"{max(waiting, len(rows)):g} requests wait for their clients to send the body"
            f"{f' ({names})' if names else ''}, the longest for {duration(rows[0]['age_seconds'])}: slow uploads{who}.",
            "They cost no CPU, only their places and memory. Let nginx take bodies in first (proxy_request_buffering) "
            "and limit connections for each client (limit_conn).",
            cause="slow_uploads",
        )
    ]


def slow_readers(moment: Moment, seen: View) -> list[Finding]:
    """Clients that take big answers slowly: each answer stays in memory for as long."""
    rows = _of_clients(seen, "answer", LONG_ANSWER_SECONDS)
    if len(rows) < MANY_UPLOADS:
        return []
    names = routes(rows)
    client, share = _client_of_most(rows)
    who = f", {share:.0%} of them by {client}" if client else ""
    longest = duration(max(row["age_seconds"] for row in rows))
    return [
        finding(
            WATCH if client else OK,
            f"{len(rows)} answers are read slowly by their clients{f' ({names})' if names else ''}, the longest for "
            f"{longest}{who}.",
            "They cost no CPU, only memory. nginx takes answers in at once (proxy_buffering) and limits connections "
            "of each client (limit_conn); a generator in place of one big string keeps little of it in memory.",
            cause="slow_readers",
        )
    ]


def _of_clients(seen: View, detail: str, seconds: float) -> list[Mapping[str, Any]]:
    """Requests at least that old that wait for their client's `detail`: to send the body, or to take the answer."""
    rows = (row for row in seen["in_flight"] if row["state"] == "client" and row["detail"] == detail)
    return [row for row in rows if row["age_seconds"] >= seconds]


def _client_of_most(rows: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """The client that has most of the requests, and its share of them; ("", its share) where it has not that many."""
    client, count = Counter(str(row.get("client", "")) for row in rows).most_common(1)[0]
    share = count / len(rows)
    return client if share >= HEAVY_SHARE else "", share


def _overload_advice(moment: Moment) -> str:
    return ROBBED_WORDS if is_robbed(moment) else cpu_advice(moment)


ROBBED_WORDS = "Look at what else runs here (top), or give the server a machine of its own."


def is_robbed(moment: Moment) -> bool:
    """Whether the machine has no CPU left, our workers use less than half of it, and would use more if they could."""
    used = sum(worker.cpu_ratio for worker in moment.workers)
    stolen = moment.sums["loop"].get("stolen_seconds", 0.0) - moment.before["loop"].get("stolen_seconds", 0.0)
    is_ready = stolen > STOLEN_SHARE * moment.window_seconds
    return is_ready and moment.machine_cpu_ratio >= FULL_CPU and used < 0.5 * moment.cores


def robbed(moment: Moment, seen: View) -> list[Finding]:
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


def beside(moment: Moment, seen: View) -> list[Finding]:
    """A thread or greenlet of the application's own that computes most of the time."""
    for row in seen["beside"]:
        if row["share"] < BESIDE_SHARE or not row["line"]:
            continue
        started = f" (started at {row['started_at']})" if row["started_at"] not in ("", row["line"]) else ""
        return [
            finding(
                WATCH,
                f"{row['line']} computes beside the requests for {row['share']:.0%} of the time of worker "
                f"{row['worker']}{started}: a thread or a greenlet of the application's own.",
                "Requests wait for its turns: give it a process of its own (a job), or have it sleep in between.",
                cause="beside",
            )
        ]
    return []


def cpu_advice(moment: Moment) -> str:
    workers = len(moment.workers)
    if workers < moment.cores:
        return f"{count_of(workers, 'worker')} for {moment.cores} cores: raise WEB_CONCURRENCY."
    return "All cores have their worker: make the busiest routes cheaper (see cpu below), or add machines."


def cpu(moment: Moment, seen: View) -> list[Finding]:
    full = [worker for worker in moment.workers if worker.cpu_ratio >= FULL_CPU]
    is_beside = _is_beside_requests(moment, seen)
    lagging = [
        worker
        for worker in full
        if worker.line["lag_seconds"] >= LAGGING_SECONDS
        or (is_beside and moment.now - worker.first_seen_at > STARTED_SECONDS)
    ]
    if not lagging:
        return []
    names = ", ".join(str(worker.number) for worker in lagging)
    lag = max(worker.line["lag_seconds"] for worker in lagging)
    if is_beside:
        return [
            finding(
                WATCH,
                f"The CPU is full, and not by requests: in worker {names} something beside them computes (a thread, a "
                f"timer, TLS), and what is ready waits {duration(lag)}.",
                "`greenroom stacks` shows what runs beside requests: give it a process of its own, or let it sleep.",
                cause="cpu",
            )
        ]
    return [
        finding(
            WATCH,
            f"The CPU is full: worker {names} computes all the time, and what is ready waits {duration(lag)}"
            f"{_balance(seen)}.",
            cpu_advice(moment),
            cause="cpu",
        )
    ]


def _is_beside_requests(moment: Moment, seen: View) -> bool:
    """Whether more than half of the workers' CPU is neither charged to requests nor what serving them may cost."""
    used = sum(worker.cpu_ratio for worker in moment.workers)
    if not moment.window_seconds or "cpu" not in seen["states"]:
        return False
    place = seen["states"].index("cpu")
    charged = sum((row.get("recent") or 0) * row["seconds"][place] for row in seen["routes"] if row["seconds"])
    charged += sum(row["seconds"][place] for row in seen["in_flight"] if row.get("seconds"))
    requests = charged / moment.window_seconds + seen["total"]["requests_rate"] * SERVING_SECONDS
    return bool(requests < 0.5 * used)


def deadlines(moment: Moment, seen: View) -> list[Finding]:
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
