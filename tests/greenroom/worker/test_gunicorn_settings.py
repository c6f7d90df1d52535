# ruff: noqa: E501  the tables read better with a case on a line
"""gunicorn's settings for requests mean under GreenWorker what they mean under the stock gevent worker.

Each case is sent to both, and both must answer with the same status, framing and environ.
"""

import logging
import re
import struct
from typing import Any

import pytest

from .harness import Ours, Stock, serve, turn, without_date

H = b"GET / HTTP/1.1\r\nHost: x\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n"
V2_IPV4 = V2 + b"\x21\x11" + struct.pack("!H4s4sHH", 12, b"\1\2\3\4", b"\5\6\7\10", 1000, 2000)
V2_LOCAL = V2 + b"\x20\x00\x00\x00"
NOBODY = {"forwarded_allow_ips": "10.9.8.7"}
PROXY = {"proxy_protocol": "auto"}

CASES: dict[str, tuple[dict[str, Any], bytes]] = {
    "a request line of the limit": ({"limit_request_line": 100}, b"GET /" + b"a" * 86 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a request line over the limit": ({"limit_request_line": 100}, b"GET /" + b"a" * 87 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a request line of 8190": ({"limit_request_line": 8190}, b"GET /" + b"a" * 8176 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a request line of 8191": ({"limit_request_line": 8190}, b"GET /" + b"a" * 8177 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "an endless request line": ({}, b"GET /" + b"a" * 20_000),
    "an unlimited request line": ({"limit_request_line": 0}, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "as many fields as allowed": ({"limit_request_fields": 3}, H + b"A: 1\r\nB: 2\r\n\r\n"),
    "a field too many": ({"limit_request_fields": 3}, H + b"A: 1\r\nB: 2\r\nC: 3\r\n\r\n"),
    "100 fields": ({}, H + b"".join(b"X-%d: y\r\n" % n for n in range(99)) + b"\r\n"),
    "101 fields": ({}, H + b"".join(b"X-%d: y\r\n" % n for n in range(100)) + b"\r\n"),
    "a field of the limit": ({"limit_request_field_size": 50}, H + b"A: " + b"b" * 45 + b"\r\n\r\n"),
    "a field over the limit": ({"limit_request_field_size": 50}, H + b"A: " + b"b" * 46 + b"\r\n\r\n"),
    "a field of 8190": ({}, H + b"A: " + b"b" * 8185 + b"\r\n\r\n"),
    "a field of 8191": ({}, H + b"A: " + b"b" * 8186 + b"\r\n\r\n"),
    "an endless field": ({}, H + b"A: " + b"b" * 1_000_000),
    "many large fields": ({}, H + b"".join(b"X-%d: %s\r\n" % (n, b"y" * 8000) for n in range(50)) + b"\r\n"),
    "an underscore dropped": ({"header_map": "drop"}, H + b"X_A: 1\r\nX-B: 2\r\n\r\n"),
    "an underscore refused": ({"header_map": "refuse"}, H + b"X_A: 1\r\nX-B: 2\r\n\r\n"),
    "an underscore let through": ({"header_map": "dangerous"}, H + b"X_A: 1\r\nX-A: 2\r\n\r\n"),
    "an underscore of a forwarder": ({"forwarder_headers": "X_A"}, H + b"X_A: 1\r\nX_B: 2\r\n\r\n"),
    "an underscore of a stranger": ({"forwarder_headers": "X_A", **NOBODY}, H + b"X_A: 1\r\n\r\n"),
    "SCRIPT_NAME of a forwarder": ({}, b"GET /s/a HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /s\r\n\r\n"),
    "SCRIPT_NAME that does not fit": ({}, b"GET /t/a HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /s\r\n\r\n"),
    "SCRIPT_NAME of a stranger": (NOBODY, b"GET /s/a HTTP/1.1\r\nHost: x\r\nSCRIPT_NAME: /s\r\n\r\n"),
    "https of a proxy": ({}, H + b"X-Forwarded-Proto: https\r\n\r\n"),
    "https of a stranger": (NOBODY, H + b"X-Forwarded-Proto: https\r\n\r\n"),
    "https and http": ({}, H + b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n\r\n"),
    "https of any proxy": ({"forwarded_allow_ips": "*"}, H + b"X-Forwarded-Ssl: on\r\n\r\n"),
    "https of a network": ({"forwarded_allow_ips": "127.0.0.0/8"}, H + b"X-Forwarded-Proto: https\r\n\r\n"),
    "a header of one's own for https": ({"secure_scheme_headers": {"X-S": "y"}}, H + b"X-S: y\r\nX-Forwarded-Ssl: on\r\n\r\n"),
    "a small method": ({"permit_unconventional_http_method": True}, b"get / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "a small method, folded": (
        {"permit_unconventional_http_method": True, "casefold_http_method": True},
        b"get / HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    "an odd version": ({"permit_unconventional_http_version": True}, b"GET / HTTP/2.0\r\nHost: x\r\nConnection: close\r\n\r\n"),
    "folding permitted": ({"permit_obsolete_folding": True}, H + b"A: b\r\n c\r\n\r\n"),
    "spaces stripped": ({"strip_header_spaces": True}, H + b"A : b\r\n\r\n"),
    "PROXY v1": (PROXY, b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 2000\r\n" + H + b"\r\n" + H + b"\r\n"),
    "PROXY v1, IPv6": (PROXY, b"PROXY TCP6 ::1 ::2 1000 2000\r\n" + H + b"\r\n"),
    "PROXY v1, wrong": (PROXY, b"PROXY TCP4 1.2.3.4 5.6.7.8 1000 99999\r\n" + H + b"\r\n"),
    "PROXY v1, of a stranger": ({**PROXY, "proxy_allow_ips": "10.9.8.7"}, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + H + b"\r\n"),
    "PROXY v1 where v2 is expected": ({"proxy_protocol": "v2"}, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + H + b"\r\n"),
    "PROXY v1 where none is expected": ({}, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + H + b"\r\n"),
    "PROXY v1 in the second request": (PROXY, H + b"\r\nPROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + H + b"\r\n"),
    "PROXY v2": (PROXY, V2_IPV4 + H + b"\r\n" + H + b"\r\n"),
    "PROXY v2, cut": (PROXY, V2_IPV4[:20]),
    "no PROXY line": (PROXY, H + b"\r\n"),
}  # fmt: skip
# How the second differs is in DIFFERENCES of test_response.
ELSEWHERE = ("REMOTE_PORT", "SERVER_PORT")


def without_sizes(data: bytes) -> bytes:
    """A refusal says how much had come by then."""
    return re.sub(rb"Content-Length: \d{3}\r|\(\d+ &gt;", b"", data)


def outcome(kind: Any, cfg: dict[str, Any], data: bytes, *, is_split: bool = False) -> tuple[bytes, list[Any]]:
    """Return the bytes on the wire, and the requests that the application saw."""
    seen = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append({k: v for k, v in environ.items() if isinstance(v, str) and k not in ELSEWHERE})
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve(kind, application, cfg=cfg) as site:
        if is_split:
            with site.connect() as client:
                for at in range(0, len(data), max(1, len(data) // 50)):
                    client.send(data[at : at + max(1, len(data) // 50)])
                    turn()
                client.end()
                return without_date(client.rest()), seen
        return without_date(site.ask(data)), seen


@pytest.mark.parametrize(("cfg", "data"), CASES.values(), ids=CASES)
def test_setting_means_what_it_means_to_gunicorn(cfg: dict[str, Any], data: bytes) -> None:
    theirs, seen_by_theirs = outcome(Stock, cfg, data)

    ours, seen_by_ours = outcome(Ours, cfg, data)

    assert seen_by_ours == seen_by_theirs
    assert without_sizes(ours) == without_sizes(theirs.removesuffix(b"<reset>"))


@pytest.mark.parametrize(("cfg", "data"), CASES.values(), ids=CASES)
def test_setting_does_not_depend_on_how_the_bytes_come(cfg: dict[str, Any], data: bytes) -> None:
    whole = outcome(Ours, cfg, data)

    answer, seen = outcome(Ours, cfg, data, is_split=True)
    assert (without_sizes(answer), seen) == (without_sizes(whole[0]), whole[1])


def test_proxy_that_speaks_for_itself_is_the_client() -> None:
    answer, seen = outcome(Ours, PROXY, V2_LOCAL + H + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert seen[0]["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n",
        V2 + b"\x21\x00\0\0",
        V2 + b"\x21\x00\0\x04tlv!",
        V2 + b"\x21\x12\0\x0c" + b"\1" * 12,
        V2 + b"\x21\x31\0\xd8" + b"/" * 216,
    ],
)
@pytest.mark.parametrize("is_split", [False, True])
def test_proxy_that_knows_no_client_is_the_client(header: bytes, is_split: bool) -> None:
    answer, seen = outcome(Ours, PROXY, header + H + b"\r\n" + H + b"\r\n", is_split=is_split)

    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 2
    assert [one["REMOTE_ADDR"] for one in seen] == ["127.0.0.1"] * 2


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY\r\n",
        b"PROXY UNKNOWNS\r\n",
        b"PROXY TCP4 1.2.3.4\0 5.6.7.8 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 x 2\r\n",
        b"PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
        V2 + b"\x31\x11\0\0",
        V2 + b"\x2f\x11\0\0",
        V2 + b"\x21\x11\0\x04abcd",
        V2 + b"\x21\x21\0\x0c" + b"\1" * 12,
        V2 + b"\x21\x77\0\0",
    ],
)
def test_what_is_no_proxy_header_is_a_400_without_a_traceback(header: bytes) -> None:
    seen = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return []

    with serve(Ours, application, cfg=PROXY) as site:
        assert site.ask(header + H + b"\r\n").startswith(b"HTTP/1.1 400 ")
        assert site.records.at(logging.ERROR) == []
    assert not seen


@pytest.mark.parametrize(("is_allowed", "status"), [(False, b"400"), (True, b"200")])
@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nUser-Agent: checker\r\n\r\n"])
def test_health_checkers_without_host_are_answered_where_a_setting_says_so(
    head: bytes, is_allowed: bool, status: bytes
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with serve(Ours, application, settings={"allow_no_host": is_allowed}) as site:
        assert site.ask(head)[9:12] == status
        assert site.ask(head.replace(b"\r\n\r\n", b"\r\nHost: a\r\nHost: b\r\n\r\n"))[9:12] == b"400"


def test_proxy_line_that_does_not_end_is_refused_early() -> None:
    answer, _ = outcome(Ours, PROXY, b"PROXY TCP4 " + b"1" * 10_000)

    assert answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("path", [b"/s/a%20b?q", b"/s", b"/other"])
def test_script_name_of_the_environment_is_cut_off_the_path(monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    monkeypatch.setenv("SCRIPT_NAME", "/s")
    data = b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n"

    assert outcome(Ours, {}, data) == outcome(Stock, {}, data)
