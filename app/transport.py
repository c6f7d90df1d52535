"""How one request reaches its source: the address is looked up, checked and connected to, and another thread can cut
the wire.

    PublicAdapter.send -> resolve -> every address public? -> PoolManager -> WatchedPool hands out a connection
                                                                          -> its socket is attached to the thread's Wire

The address that was checked is the address connected to (it replaces the URL's host), so a name that resolves
differently a moment later gains nothing.
"""

import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import ProtocolError

from .addresses import is_public

logger = logging.getLogger(__name__)
DEFAULT_PORTS = {"http": 80, "https": 443}


class SourceError(Exception):
    """A source can't be used; the message is for the user and names what to change."""


class Cut(Exception):
    """The wire was cut by another thread: nobody waits for this answer any more."""


class Wire:
    """The socket that one call waits on at the moment, so that another thread can end the wait.

    A socket is attached while it is this call's alone: from the moment it is connected or taken out of the pool, until
    it goes back. So a cut never touches a connection that another call has taken over.
    """

    _threads = threading.local()

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_reused = False  # the connection had served another request before
        self._socket: socket.socket | None = None
        self._is_cut = False
        self._lock = threading.Lock()

    def __enter__(self) -> "Wire":
        """From here on this is the wire of the thread."""
        Wire._threads.wire = self
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()
        Wire._threads.wire = None

    @staticmethod
    def of_this_thread() -> "Wire":
        return Wire._threads.wire

    def attach(self, sock: socket.socket) -> None:
        """Wait on `sock` from now on. Raises Cut if there is nothing left to wait for."""
        with self._lock:
            if not self._is_cut:
                self._socket = sock
                return
        sock.close()
        raise Cut

    def detach(self) -> None:
        with self._lock:
            self._socket = None

    def cut(self) -> None:
        """End the call from another thread: its socket is shut down, so a blocked read returns at once."""
        with self._lock:
            self._is_cut = True
            if self._socket is not None:
                shut_down(self._socket)

    def remaining_seconds(self) -> float:
        """Seconds until the deadline. Raises requests.Timeout once it has passed, Cut if the wire was cut."""
        if self._is_cut:
            raise Cut
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise requests.Timeout
        return remaining


class PublicAdapter(HTTPAdapter):
    """Sends each request to an address that was looked up and checked first, within the wire's time."""

    def __init__(
        self,
        *,
        allow_private: bool,
        pool_size: int,
        resolve: Callable[[str, int], list[str]],
        tls: ssl.SSLContext | None,
    ) -> None:
        self.allow_private = allow_private
        self.resolve = resolve
        self.tls = tls
        super().__init__(pool_connections=pool_size, pool_maxsize=pool_size)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = {"http": WatchedHTTPPool, "https": WatchedHTTPSPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        last_error: requests.ConnectionError | None = None
        for address in self.addresses(str(request.url)):
            try:
                return self._send_to(address, request, *args, **kwargs)
            except requests.Timeout:
                raise
            except requests.ConnectionError as exc:
                if was_connected(exc):
                    raise
                last_error = exc  # not reached at all; the next address may be up: 127.0.0.1 after ::1, say
        assert last_error is not None
        raise last_error

    def addresses(self, url: str) -> list[str]:
        """Where to send a request for `url`. Raises SourceError unless every address may be used."""
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise SourceError("only http:// and https:// addresses can be fetched")
        port = DEFAULT_PORTS[parts.scheme] if parts.port is None else parts.port
        try:
            found = self.resolve(parts.hostname, port)
        except (OSError, ValueError) as exc:
            raise SourceError(f"the name {parts.hostname} was not found") from exc
        if not self.allow_private and not all(is_public(address) for address in found):
            raise SourceError(f"{parts.hostname} is not a public address")
        return found

    def _send_to(self, address: str, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        url = urlsplit(str(request.url))
        host = f"[{address}]" if ":" in address else address
        pinned = request.copy()
        pinned.url = urlunsplit(url._replace(netloc=host if url.port is None else f"{host}:{url.port}"))
        pinned.headers["Host"] = url.netloc.rpartition("@")[2]
        # Read by build_connection_pool_key_attributes(); the certificate must be the name's, not the address's.
        pinned.server_hostname = url.hostname  # type: ignore[attr-defined]
        wire = Wire.of_this_thread()
        try:
            response = super().send(pinned, *args, **kwargs | {"timeout": wire.remaining_seconds()})
        except requests.ConnectionError as exc:
            if not (wire.is_reused and was_connected(exc)):
                raise
            # The other side closed a kept connection as we took it; a GET may be sent again, once.
            response = super().send(pinned, *args, **kwargs | {"timeout": wire.remaining_seconds()})
        response.url = str(request.url)  # a relative redirect starts from the name, not from the address
        response.request = request
        return response

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host_params, pool_kwargs = super().build_connection_pool_key_attributes(request, verify, cert)
        if host_params["scheme"] == "https":
            pool_kwargs |= {"server_hostname": request.server_hostname, "ssl_context": self.tls or public_tls()}
        return host_params, pool_kwargs

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Nothing: `tls` has the authorities already. requests would load all of them anew for each connection."""


class CuttableTLS(ssl.SSLContext):
    """TLS with the usual checks, whose handshake can be cut as well: a source may dribble its certificate."""

    @classmethod
    def trusting(cls, authorities: str) -> "CuttableTLS":
        """Certificates must be signed by one of the `authorities`, a file of certificates, and name the host."""
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(authorities)
        return context

    def wrap_socket(self, sock: socket.socket, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        wrapped = super().wrap_socket(sock, *args, **kwargs | {"do_handshake_on_connect": False})
        Wire.of_this_thread().attach(wrapped)
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


@cache
def public_tls() -> CuttableTLS:
    """The certificate authorities that browsers trust; read once in a process, when first needed: it takes 25 ms."""
    return CuttableTLS.trusting(requests.certs.where())


class WatchedConnection:
    """A urllib3 connection that attaches the socket it makes to the wire of the thread."""

    def _new_conn(self) -> socket.socket:
        sock: socket.socket = super()._new_conn()  # type: ignore[misc]
        Wire.of_this_thread().attach(sock)
        return sock


class WatchedPool:
    """A urllib3 pool that attaches a kept connection to the wire of the thread while it is checked out."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection = super()._get_conn(timeout)  # type: ignore[misc]
        wire = Wire.of_this_thread()
        wire.is_reused = connection.sock is not None
        if wire.is_reused:
            wire.attach(connection.sock)
        return connection

    def _put_conn(self, connection: Any) -> None:
        Wire.of_this_thread().detach()
        super()._put_conn(connection)  # type: ignore[misc]


class WatchedHTTPConnection(WatchedConnection, HTTPConnection):
    pass


class WatchedHTTPSConnection(WatchedConnection, HTTPSConnection):
    pass


class WatchedHTTPPool(WatchedPool, HTTPConnectionPool):
    ConnectionCls = WatchedHTTPConnection


class WatchedHTTPSPool(WatchedPool, HTTPSConnectionPool):
    ConnectionCls = WatchedHTTPSConnection


def was_connected(exc: requests.ConnectionError) -> bool:
    """True when the connection was made and then broken by the other side."""
    return bool(exc.args) and isinstance(exc.args[0], ProtocolError)


def shut_down(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as exc:
        logger.debug("socket was closed already", extra={"reason": str(exc)})
