"""No line of the log has what a request carries: neither of the error log nor of the access log."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .harness import Ours, serve, wait_until

SECRET = b"hunter2hunter2hunter2"
TARGET = b"/%s/" + SECRET + b"?token=" + SECRET + b"&" + SECRET


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    path = environ["PATH_INFO"]
    if path.startswith("/raise"):
        raise ValueError("a bug")
    start_response("200 OK", [("Content-Length", "100" if path.startswith("/short") else "2")])
    return [b"ok"]


@pytest.mark.parametrize(
    "line",
    [
        b"GET " + TARGET % b"fine" + b" HTTP/1.1",
        b"GET " + TARGET % b"raise" + b" HTTP/1.1",
        b"GET " + TARGET % b"short" + b" HTTP/1.1",
        b"GET " + TARGET % b"wrong" + b" HTP/1.1",
        b"GET " + TARGET % b"wrong",
        b"GE(T " + TARGET % b"wrong" + b" HTTP/1.1",
    ],
)
def test_no_line_has_a_secret(line: bytes, tmp_path: Path) -> None:
    log = tmp_path / "access"
    shape = '%(h)s "%(r)s" %(s)s "%(f)s" %(U)s %(q)s %({referer}i)s %({raw_uri}e)s'
    cfg = {"accesslog": str(log), "access_log_format": shape}
    with serve(Ours, application, cfg=cfg) as site:
        site.ask(line + b"\r\nHost: x\r\nReferer: http://x" + TARGET % b"before" + b"\r\nConnection: close\r\n\r\n")
        wait_until(lambda: not site.kind.serving.in_flight, "it is over")

        assert [said for said in site.records.at(logging.DEBUG) if SECRET.decode() in said] == []
    access_log = logging.getLogger("gunicorn.access")
    for handler in list(access_log.handlers):
        handler.close()
        access_log.removeHandler(handler)
    assert SECRET.decode() not in log.read_text()
    if b"fine" in line:
        assert '"GET /fine/hunt' in log.read_text()
