"""The parts of each answer that insight adds: the request's id, where its time went, and its line in the access log.

    X-Request-ID    taken from a trusted peer if it is sane, else made; the answer carries it
    Server-Timing   what is known when the head is sent; its parts add up to its total
    access log      %({greenroom.<field>}e)s in gunicorn's format, or the same fields as one line of JSON

Names in Server-Timing are ours; descriptions (hosts) are reduced to letters that can end no header and no string.
"""

import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .. import clock
from ..in_flight import CLIENT_LEFT
from .account import READY, STATES, Account

SANE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}")
TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
NOT_IN_DESCRIPTIONS = re.compile(r"[^A-Za-z0-9.:_\[\]-]")
LONGEST_DESCRIPTION = 60
MOST_HOSTS = 5
SHORTEST_SECONDS = 0.000_05
ID_KEY = "greenroom.request_id"
PREFIX = "greenroom."
# Server-Timing of quick requests as it was written already, by tenths of a millisecond (ready * MOST_WRITTEN + total).
MOST_WRITTEN = 1000
_written: dict[int, str] = {}
# Statuses that were answered already, and their codes.
CODES: dict[Any, int] = {}
MOST_CODES = 1000


class Ids:
    """Ids for requests: which worker's life, and a number. Unique among all workers; nothing can be read from them."""

    def __init__(self, start_id: str = "") -> None:
        self.start_id = start_id or os.urandom(6).hex()
        self._form = self.start_id + "-%x"
        self.count = 0

    def of(self, environ: dict[str, Any], *, is_peer_trusted: bool) -> str:
        """The id of this request, which the environ has as well afterwards."""
        given = environ.get("HTTP_X_REQUEST_ID")
        if given is not None and is_peer_trusted and SANE_ID.fullmatch(given):
            environ[ID_KEY] = given
            return str(given)
        self.count = count = self.count + 1
        made = environ[ID_KEY] = self._form % count
        return made


def head_text(account: Account, *, has_id: bool, has_timing: bool, now: Callable[[], float] = clock.now) -> str:
    """Return the fields of `head_fields` as the lines of a head; with `has_id` the head has an id already.

    Most requests have not waited when their head is sent: they have run and been ready, and nothing else. For them it
    is quick.
    """
    text = "" if has_id else f"X-Request-ID: {account.id}\r\n"
    if not has_timing:
        return text
    if not account.has_waited:
        total = int((now() - account.began) * 10_000 + 0.5)
        if total < MOST_WRITTEN:
            ready = int(account.seconds[READY] * 10_000 + 0.5)
            return text + (_written.get(ready * MOST_WRITTEN + total) or _write(ready, total))
    return f"{text}Server-Timing: {server_timing(account, now)}\r\n"


def _write(ready: int, total: int) -> str:
    """Server-Timing for tenths of a millisecond, remembered: to write it anew takes five times as long."""
    cpu = max(0, total - ready)
    text = f"Server-Timing: cpu;dur={cpu / 10:.1f}, ready;dur={ready / 10:.1f}, total;dur={total / 10:.1f}\r\n"
    if len(_written) < MOST_WRITTEN:
        _written[ready * MOST_WRITTEN + total] = text
    return text


def head_fields(account: Account, headers: list[tuple[str, str]], *, has_timing: bool) -> list[tuple[str, str]]:
    """Return the fields to add to an answer's head; nothing in them is the application's or an untrusted client's."""
    has_id = not account.id or any(name.lower() == "x-request-id" for name, _ in headers)
    fields = [] if has_id else [("X-Request-ID", account.id)]
    if has_timing:
        fields.append(("Server-Timing", server_timing(account)))
    return fields


def server_timing(account: Account, now: Callable[[], float] = clock.now) -> str:
    """`cpu;dur=1.2, upstream;desc="host:443";dur=30.1, ..., total;dur=31.5`: milliseconds so far."""
    moment = now()
    parts = []
    for name, seconds in zip(STATES, account.seconds_at(moment), strict=True):
        if seconds >= SHORTEST_SECONDS:
            if name == "upstream" and account.hosts:
                parts += _upstreams(account.hosts, seconds)
            else:
                parts.append(f"{name};dur={seconds * 1000:.1f}")
    parts.append(f"total;dur={account.total_seconds(moment) * 1000:.1f}")
    return ", ".join(parts)


def _upstreams(hosts: dict[str, float], seconds: float) -> list[str]:
    longest = sorted(hosts, key=hosts.__getitem__, reverse=True)[:MOST_HOSTS]
    parts = []
    for host in longest:
        parts.append(f'upstream;desc="{_description(host)}";dur={hosts[host] * 1000:.1f}')
        seconds -= hosts[host]
    if seconds >= SHORTEST_SECONDS:
        parts.append(f"upstream;dur={seconds * 1000:.1f}")
    return parts


def _description(text: str) -> str:
    return NOT_IN_DESCRIPTIONS.sub("_", text)[:LONGEST_DESCRIPTION]


def may_see_timing(setting: str, environ: dict[str, Any], *, is_peer_trusted: bool) -> bool:
    """Whether whoever gets this answer may know hosts and times. A trusted proxy passes on what it gets.

    So with `trusted`, a trusted peer must have asked for himself: a request that was forwarded for another client is
    answered without.
    """
    if setting != "trusted" or not is_peer_trusted:
        return setting == "all"
    return "HTTP_X_FORWARDED_FOR" not in environ and "HTTP_FORWARDED" not in environ


def access_fields(account: Account, environ: dict[str, Any], now: Callable[[], float] = clock.now) -> dict[str, Any]:
    """The fields of insight in the access log, under the names that they have everywhere."""
    moment = now()
    fields: dict[str, Any] = {"request_id": account.id, "route": account.pattern()}
    trace = TRACEPARENT.fullmatch(environ.get("HTTP_TRACEPARENT", ""))
    if trace:
        fields["trace_id"], fields["parent_id"] = trace[1], trace[2]
    fields["total_seconds"] = round(account.total_seconds(moment), 6)
    for state, seconds in zip(STATES, account.seconds_at(moment), strict=True):
        fields[f"{state}_seconds"] = round(seconds, 6)
    if account.hosts:
        fields["upstreams"] = {host: round(seconds, 6) for host, seconds in account.hosts.items()}
    if account.is_cut:
        fields["cut"] = account.cut_reason
    return fields


def access_line(account: Account, environ: dict[str, Any], response: Any) -> str:
    """One request as one line of JSON: what gunicorn's line says (without the query), and the fields of insight."""
    return json.dumps(
        {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": "request",
            "client": environ.get("REMOTE_ADDR", ""),
            "method": environ.get("REQUEST_METHOD", ""),
            "path": environ.get("RAW_URI", environ.get("PATH_INFO", "")).partition("?")[0],
            "status": status_of(account),
            "sent_bytes": response.sent,
            "agent": environ.get("HTTP_USER_AGENT", ""),
            "pid": os.getpid(),
            **access_fields(account, environ),
        },
        separators=(",", ":"),
    )


def status_of(account: Account) -> int:
    """The status that was answered: 500 where gunicorn wrote its error page, 0 where nobody was answered by us."""
    response = account.answer
    if response is None:
        return 0
    status = response.status
    known = CODES.get(status)
    if known is not None:
        return known
    if status is None:
        has_left = account.cut_reason == CLIENT_LEFT
        return 0 if has_left or account.became else 500
    code = int(status[:3]) if type(status) is str else int(status)
    if len(CODES) < MOST_CODES:
        CODES[status] = code
    return code
