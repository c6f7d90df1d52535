"""TLS contexts, made once for each setting: reading the certificate authorities takes 25 ms, `requests` does it for
every connection.

A context is made anew when one of its files has changed. What it checks is what `requests` and urllib3 check.
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


def context_for(verify: bool | str | None, cert: str | tuple[str, str] | None) -> ssl.SSLContext:
    """The context for these arguments of `requests`. Raises FileMissing for files that are missing, urllib3's SSLError
    for such that are no certificates.
    """
    authorities = _authorities(verify)
    certificate, key = files_of(cert)
    # What makes contexts is part of the key: truststore, for one, puts a class of its own in its place.
    known_by = (ssl_.SSLContext, *(_version(path) for path in (authorities, certificate, key)))
    context = _contexts.get(known_by)
    if context is None:
        if len(_contexts) >= MOST_CONTEXTS:
            _contexts.clear()
        context = _contexts[known_by] = _make(authorities, certificate, key)
    return context


def files_of(cert: str | tuple[str, str] | None) -> tuple[str | None, str | None]:
    """Certificate and key of a client. Raises FileMissing, which `requests` does for http:// URLs as well."""
    certificate, key = cert if isinstance(cert, tuple) else (cert, None)
    for what, path in (("certificate", certificate), ("key", key)):
        if path and not os.path.exists(path):
            raise FileMissing(f"Could not find the TLS {what} file, invalid path: {path}")
    return certificate, key


def wrap(sock: Any, context: ssl.SSLContext, host: str) -> Any:
    """`sock` as a TLS socket for `host` whose handshake is still to be done."""
    return context.wrap_socket(sock, server_hostname=host.rstrip("."), do_handshake_on_connect=False)


def _authorities(verify: bool | str | None) -> str | None:
    """Where the authorities are, None if nothing is checked; as requests' `cert_verify` has it."""
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


def _make(authorities: str | None, certificate: str | None, key: str | None) -> ssl.SSLContext:
    context = ssl_.create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED if authorities else ssl.CERT_NONE)
    if authorities is not None:
        is_folder = os.path.isdir(authorities)
        try:
            context.load_verify_locations(None if is_folder else authorities, authorities if is_folder else None)
        except OSError as exc:
            raise SSLError(exc) from exc
    if certificate:
        if key and _is_encrypted(key):
            raise SSLError("Client private key is encrypted, password is required")
        context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(ssl_.ALPN_PROTOCOLS)
    return context


def _is_encrypted(key: str) -> bool:
    """OpenSSL would ask for the password on the terminal."""
    with open(key) as file:
        return any("ENCRYPTED" in line for line in file)
