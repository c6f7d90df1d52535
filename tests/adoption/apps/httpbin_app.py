"""httpbin as it is."""

from httpbin import app  # noqa: F401
