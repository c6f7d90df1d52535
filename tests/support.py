"""Constants and helpers that several rings of tests use."""

import re

PASSWORD = "correct horse battery staple"


def csrf_token(page: str) -> str:
    """The form token on a page."""
    return re.search(r'name="csrf_token"[^>]*value="([^"]+)"', page)[1]
