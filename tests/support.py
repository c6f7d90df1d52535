"""Constants and helpers that several rings of tests use."""

import re
import subprocess
from pathlib import Path

PASSWORD = "correct horse battery staple"


def csrf_token(page: str) -> str:
    """The form token on a page."""
    return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)[1]


def self_signed(folder: Path, key: str = "ec") -> tuple[Path, Path]:
    """A certificate for localhost and 127.0.0.1 that signed itself, and its key; `key` is "ec" or "rsa:2048"."""
    pem, secret = folder / "cert.pem", folder / "key.pem"
    curve = ("-pkeyopt", "ec_paramgen_curve:P-256") if key == "ec" else ()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", key, *curve, "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", str(secret), "-out", str(pem)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return pem, secret
