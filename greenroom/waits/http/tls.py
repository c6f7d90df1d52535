"""TLS contexts, made once for each setting: reading the certificate authorities takes 25 ms, `requests` does it for
every connection.

A context is made anew when its file has changed. It checks as `requests` and urllib3 do. A client's own
certificate is its login: such calls go over `requests`' own pools, where nothing is shared.
"""

import os
import ssl
from typing import Any

import requests.adapters
from urllib3.exceptions import SSLError
from urllib3.util import ssl_

_contexts: dict[tuple[Any, ...], ssl.SSLContext] = {}
# More than this many settings are a sign that somebody makes files for each call; then nothing is gained by keeping.
MOST_CONTEXTS = 100


class FileMissing(OSError):
    """A file that the caller named isn't there. Reaches the caller as it is, as in requests."""


def context_for(verify: bool | str | None) -> ssl.SSLContext:
    """The context for this argument of `requests`. Raises FileMissing for a file that is missing, urllib3's SSLError
    for one that has no certificates.
    """
    authorities = authorities_for(verify)
    # The class that makes contexts is part of the key: truststore, for one, puts its own in its place.
    known_by = (ssl_.SSLContext, _version(authorities))
    context = _contexts.get(known_by)
    if context is None:
        if len(_contexts) >= MOST_CONTEXTS:
            _contexts.clear()
        context = _contexts[known_by] = _make(authorities)
    return context


def wrap(sock: Any, context: ssl.SSLContext, host: str) -> Any:
    """`sock` as a TLS socket for `host` whose handshake is still to be done."""
    return context.wrap_socket(sock, server_hostname=host.rstrip("."), do_handshake_on_connect=False)


def authorities_for(verify: bool | str | None) -> str | None:
    """Where the authorities are, None if nothing is checked; as requests' `cert_verify` has it. Raises FileMissing."""
    if not verify:
        return None
    path = requests.adapters.DEFAULT_CA_BUNDLE_PATH if verify is True else verify
    if not path or not os.path.exists(path):
        raise FileMissing(f"Could not find a suitable TLS CA certificate bundle, invalid path: {path}")
    return str(path)


def _version(path: str | None) -> tuple[Any, ...] | None:
    if path is None:
        return None
    found = os.stat(path)
    return (path, found.st_mtime_ns, found.st_size, found.st_ino)


def _make(authorities: str | None) -> ssl.SSLContext:
    context = ssl_.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if authorities else ssl.CERT_NONE)
    if authorities is not None:
        is_folder = os.path.isdir(authorities)
        try:
            context.load_verify_locations(None if is_folder else authorities, authorities if is_folder else None)
        except OSError as exc:
            raise SSLError(exc) from exc
    context.set_alpn_protocols(ssl_.ALPN_PROTOCOLS)
    return context
