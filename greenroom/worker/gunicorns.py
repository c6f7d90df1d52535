"""Parts of gunicorn that not every version has, under one name for all of them.

23, 24          no early hints, no HTTP/2
23              signals are kept in a list, addresses of proxies are no networks
until 27        a wrong header of the application's is no error of its own; wsgi.create makes gunicorn's response
"""

from collections.abc import Callable, Sequence
from typing import Any

from gunicorn.glogging import Logger
from gunicorn.http import errors, message, wsgi
from gunicorn.http.body import Body

from ..errors import GreenroomError
from ..replacements.versions import installed_version, parts

# The oldest gunicorn of the matrix. Before 27 our own tests of the protocol do not all pass, and the log says so.
OLDEST = "25.0"


class _InvalidResponseHeader(errors.InvalidHeader):  # type: ignore[misc]  # gunicorn has no types
    def __str__(self) -> str:
        return f"Invalid response header from the application: {self.hdr}"


InvalidResponseHeader: Any = getattr(errors, "InvalidResponseHeader", _InvalidResponseHeader)
InvalidResponseHeaderName: Any = getattr(errors, "InvalidResponseHeaderName", InvalidResponseHeader)


def refuse_older() -> None:
    """Raises GreenroomError where this gunicorn is older than any that was tested."""
    installed = installed_version("gunicorn") or ""
    if parts(installed) < parts(OLDEST):
        raise GreenroomError(
            f"gunicorn {installed} is too old for Greenroom's worker: pip install 'gunicorn>={OLDEST}'"
        )


def is_trusted(address: str, cfg: Any) -> bool:
    """Whether forwarding headers of this peer count."""
    return bool(message._ip_in_allow_list(address, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks()))


def early_hints(request: Any, sock: Any, response: Any) -> Callable[[Sequence[Any]], None]:
    """Return the function that sends 103 Early Hints."""
    send: Callable[[Sequence[Any]], None] = wsgi._make_early_hints_callback(request, sock, response)
    return send


def create(
    request: Any, client: Any, server: Any, cfg: Any, response_class: Callable[..., Any], *arguments: Any
) -> tuple[Any, dict[str, Any]]:
    """gunicorn's environ of a request, and a response of ours."""
    environ: dict[str, Any]
    _, environ = wsgi.create(request, None, client, server, cfg)
    return response_class(request, None, cfg, *arguments), environ


# Since 27 a body knows whether reading it has failed: where the next request begins is not known then.
KNOWS_FAILED_BODIES = hasattr(Body, "_read_reader")


def read_of(body: Any, reader: Any) -> Callable[[int], bytes]:
    """In an older gunicorn: have all that reads this body go through its `_read_reader`, and return what that calls."""
    plain = reader.read
    body.failed = False

    def read(size: int) -> bytes:
        try:
            data: bytes = plain(size)
        except Exception:
            body.failed = True
            raise
        return data

    reader.read = lambda size: body._read_reader(size)
    return read


def writes_access_log(log: Any) -> bool:
    """Whether this configuration has an access log at all; a class of somebody's own may write one in any case."""
    if type(log).access is not Logger.access:
        return True
    if hasattr(log, "access_log_enabled"):
        return bool(log.access_log_enabled)
    cfg = log.cfg
    is_in_syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
    return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or is_in_syslog)
