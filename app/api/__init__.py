"""The JSON API: boards and their results.

    request -> auth.authenticate -> view -> schemas (what comes in) -> app.boards -> schemas (what goes out)

Errors below /api/ are problem documents (RFC 9457). openapi.yaml describes it all.
"""

from . import auth, boards, docs, openapi, results
from .routes import blueprint

__all__ = ["auth", "blueprint", "boards", "docs", "openapi", "results"]
