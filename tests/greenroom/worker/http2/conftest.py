"""Clients of HTTP/2."""

import pytest

from .site import App


@pytest.fixture
def app() -> App:
    return App()
