from typing import Any

import pytest
from gunicorn.config import Config

from greenroom.gunicorns_names import NAMES, in_force, take_ours
from greenroom.settings import Settings


@pytest.fixture
def cfg() -> Any:
    return Config()


def test_every_name_is_one_of_both() -> None:
    assert set(NAMES.values()) <= set(Config().settings)
    assert all(hasattr(Settings(), name) for name in NAMES)


def test_what_gunicorn_was_told_is_in_force(cfg: Any) -> None:
    for name, value in {"workers": 7, "graceful_timeout": 5, "certfile": "c.pem", "accesslog": "-"}.items():
        cfg.set(name, value)
    cfg.set("bind", ["127.0.0.1:1", "unix:/x"])

    settings = in_force(Settings(graceful_timeout_seconds=9), cfg)

    assert (settings.web_concurrency, settings.graceful_timeout_seconds) == (7, 5)
    assert (settings.tls_certificate, settings.tls_key) == ("c.pem", "")
    assert settings.access_log
    assert settings.bind == "127.0.0.1:1,unix:/x"


def test_ours_are_told_to_gunicorn_while_they_can_be_and_else_named(cfg: Any) -> None:
    environ = {"GREENROOM_KEEPALIVE_SECONDS": "9", "GREENROOM_BIND": "127.0.0.1:1", "GREENROOM_LOG_LEVEL": "info"}

    ignored = take_ours(Settings.read(environ), environ, cfg)

    assert cfg.keepalive == 9
    assert ignored == ["GREENROOM_BIND (gunicorn's name is bind)"], "the log level is what gunicorn has anyway"


def test_what_is_not_set_leaves_gunicorns_values_alone(cfg: Any) -> None:
    cfg.set("keepalive", 3)

    assert take_ours(Settings(), {}, cfg) == []
    assert cfg.keepalive == 3
