"""The core: health checks and the pages of the boards."""

from . import editor, filters, health, pages
from .routes import blueprint

__all__ = ["blueprint", "editor", "filters", "health", "pages"]
