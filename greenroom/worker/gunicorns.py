"""Parts of gunicorn that not every version has, under one name for all of them.

until 23        signals are kept in a list, and ended workers are reaped in the signal handler
until 24.0      addresses of proxies are no networks; the PROXY protocol has one version
until 24        no HTTP/2, no early hints, nothing to ask whether the client waits for "100 Continue"; while the server
                stops, nobody listens to a second signal
until 26.0      bodies of answers that have none are sent
until 26        a wrong header of the application's is no error of its own; a body does not know that reading it failed

Each is recognised by what is there, and not by a number where that can be.
"""

import inspect
import signal
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar
from wsgiref.types import WSGIEnvironment

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http import errors, message, wsgi
from gunicorn.http.body import Body

from ..errors import GreenroomError
from ..gunicorns_parts import Config
from ..replacements.versions import installed_version, parts
from .request import ClientRequest

OLDEST = "23.0"
Made = TypeVar("Made")


class _InvalidResponseHeader(errors.InvalidHeader):  # type: ignore[misc]  # gunicorn has no types
    def __str__(self) -> str:
        return f"Invalid response header from the application: {self.hdr}"


InvalidResponseHeader: Any = getattr(errors, "InvalidResponseHeader", _InvalidResponseHeader)
InvalidResponseHeaderName: Any = getattr(errors, "InvalidResponseHeaderName", InvalidResponseHeader)
InvalidProxyHeader: Any = getattr(errors, "InvalidProxyHeader", errors.InvalidProxyLine)
# What reading a body raises when it is no HTTP. Until 25 those of chunks are no errors of parsing.
MALFORMED_BODY: tuple[type[Exception], ...] = (
    errors.ParseException, errors.NoMoreData, errors.InvalidChunkSize, errors.ChunkMissingTerminator,
)  # fmt: skip


def refuse_older() -> None:
    """Raises GreenroomError where this gunicorn is older than any that was tested."""
    installed = installed_version("gunicorn") or ""
    if parts(installed) < parts(OLDEST):
        raise GreenroomError(
            f"gunicorn {installed} is too old for Greenroom's worker: pip install 'gunicorn>={OLDEST}'"
        )


# --- connections


def let_go(listener: Any) -> None:
    """Leave the descriptor to gevent's socket alone. Until 23 both close it: the second one closes another file."""
    if listener.sock is not None and listener.sock.fileno() >= 0:
        listener.sock.detach()


def has_proxy_protocol(cfg: Any) -> bool:
    """Whether a PROXY header may come first: a word since 24.1, and yes or no before."""
    return cfg.proxy_protocol not in ("off", False)


def is_trusted(address: str, cfg: Any) -> bool:
    """Whether forwarding headers of this peer count."""
    if not hasattr(cfg, "forwarded_allow_networks"):
        return "*" in cfg.forwarded_allow_ips or address in cfg.forwarded_allow_ips
    return bool(message._ip_in_allow_list(address, cfg.forwarded_allow_ips, cfg.forwarded_allow_networks()))


def create(
    request: ClientRequest,
    client: object,
    server: object,
    cfg: Config,
    response_class: Callable[..., Made],
    *arguments: object,
) -> tuple[Made, WSGIEnvironment]:
    """gunicorn's environ of a request, and a response of ours."""
    environ: WSGIEnvironment
    _, environ = wsgi.create(request, _Nobody(), client, server, cfg)
    return response_class(request, None, cfg, *arguments), environ


class _Nobody:
    """A client's socket for gunicorn's create(): "100 Continue" is sent by us, and later."""

    def send(self, data: bytes) -> int:
        return len(data)


def take_continue(request: ClientRequest) -> bool:
    """Whether the client waits to be asked for its body. gunicorn does not ask for it afterwards."""
    if hasattr(request, "_expected_100_continue"):
        is_expected = bool(request._expected_100_continue)
        request._expected_100_continue = False
        return is_expected
    return request.version >= (1, 1) and any(
        name == "EXPECT" and value.lower() == "100-continue" for name, value in request.headers
    )


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


# --- answers


def early_hints(request: ClientRequest, sock: Any, response: Any) -> Callable[[Sequence[Any]], None]:
    """Return the function that sends 103 Early Hints."""
    send: Callable[[Sequence[Any]], None] = getattr(wsgi, "_make_early_hints_callback", _make_early_hints)(
        request, sock, response
    )
    return send


def _make_early_hints(request: ClientRequest, sock: Any, response: Any) -> Callable[[Sequence[Any]], None]:
    def send(headers: Sequence[Any]) -> None:
        if response.headers_sent or request.version < (1, 1):
            return
        fields = [(_text(name), _text(value)) for name, value in headers]
        demand_valid(fields)
        lines = [f"{name}: {value}\r\n" for name, value in fields]
        sock.sendall(f"HTTP/1.1 103 Early Hints\r\n{''.join(lines)}\r\n".encode("latin-1"))

    return send


def _text(part: str | bytes) -> str:
    return part.decode("latin-1") if isinstance(part, bytes) else part


def demand_valid(headers: Iterable[tuple[str, str]]) -> None:
    """Check header fields as gunicorn's response does. Raises what gunicorn raises."""
    for name, value in headers:
        if not message.TOKEN_RE.fullmatch(name):
            raise InvalidResponseHeaderName(repr(name))
        if not wsgi.HEADER_VALUE_RE.fullmatch(value):
            raise InvalidResponseHeader(repr(name))


class _OlderResponse(wsgi.Response):  # type: ignore[misc]  # gunicorn has no types
    """Leaves out the body of an answer that has none, and the length of it (RFC 9110 6.4.1), as gunicorn does now."""

    headers: list[tuple[str, str]]
    _omits_body = False

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        write = super().start_response(status, headers, exc_info)
        code = self.status_code or 0
        has_no_length = code == 204 or 100 <= code < 200
        self._omits_body = self.req.method == "HEAD" or code == 304 or has_no_length
        if has_no_length:
            self.headers = [header for header in self.headers if header[0].lower() != "content-length"]
            self.response_length = None
        return write

    def write(self, data: bytes) -> None:
        if not isinstance(data, bytes) or not self._omits_body:
            super().write(data)
        else:
            self.send_headers()


Response: Any = wsgi.Response if hasattr(wsgi.Response, "_response_omits_body") else _OlderResponse


# --- the arbiter

# Until 23 SIGCHLD is handled where it comes, also in the middle of a turn of ours.
REAPS_IN_HANDLER = len(inspect.signature(Arbiter.handle_chld).parameters) > 1
# Since 25 a server that stops gracefully looks whether it is told to stop at once.
LISTENS_WHILE_IT_STOPS = parts(installed_version("gunicorn") or "") >= (25,)


def queue_signal(server: Any, number: int) -> None:
    """Have the arbiter handle this signal in its loop. Runs on: signal handler, arbiter."""
    if isinstance(server.SIG_QUEUE, list):
        server.SIG_QUEUE.append(number)
        server.wakeup()
    else:
        server.SIG_QUEUE.put_nowait(number)
    if not LISTENS_WHILE_IT_STOPS and not server.LISTENERS and number in (signal.SIGINT, signal.SIGQUIT):
        server.kill_workers(signal.SIGQUIT)


def forget_the_dead(server: Any) -> None:
    """Have gunicorn forget workers that are gone. One that could not start stays on its list until 26."""
    server.kill_workers(0)


# --- logs


def writes_access_log(log: Any) -> bool:
    """Whether this configuration has an access log at all; a class of somebody's own may write one in any case."""
    if type(log).access is not Logger.access:
        return True
    if hasattr(log, "access_log_enabled"):
        return bool(log.access_log_enabled)
    cfg = log.cfg
    is_in_syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
    return bool(cfg.accesslog or cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json or is_in_syslog)
