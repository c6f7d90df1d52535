"""Agents that instrument a program from outside: started in front of gunicorn or of `greenroom serve`."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import ROOT, Server, Servers, free_port, wait_until

SHOP = """
import socket
import threading
import time
import requests
from flask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    return {"socket": socket.socket.__module__, "lock": type(threading.Lock()).__module__, "view": VIEW}

VIEW = "instrumented" if hasattr(requests.Session.send, "__wrapped__") else "plain"
"""
INSTALL_SECONDS = 900
OPENTELEMETRY = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
Start = Callable[..., Server]


@pytest.fixture
def start_in_shop(tmp_path: Path, servers: Servers) -> Start:
    """`start(command, environ)` runs a command in the shop's folder; {port} is where it is to listen."""
    (tmp_path / "shop.py").write_text(SHOP)

    def run(command: str, bin: Path = Path(sys.executable).parent, **environ: str) -> Server:
        port = free_port()
        settings = {
            "PYTHONPATH": str(ROOT),
            "PATH": f"{bin}{os.pathsep}{os.environ['PATH']}",
            "GREENROOM_OPS_BIND": "off",
            "WEB_CONCURRENCY": "1",
            **environ,
        }
        words = [str(bin / word) if (bin / word).is_file() else word for word in command.format(port=port).split()]
        return servers.start(words, settings, port, cwd=tmp_path)

    return run


GUNICORN = "gunicorn -k greenroom.Worker -b 127.0.0.1:{port} shop:app"
SERVE = "python -m greenroom serve shop:app --bind 127.0.0.1:{port}"
RUN = "python -m greenroom run -- "


@pytest.mark.parametrize(
    "command",
    [f"{RUN}opentelemetry-instrument {GUNICORN}", f"opentelemetry-instrument {SERVE}"],
    ids=["run", "serve"],
)
def test_opentelemetry_instruments_a_server_that_was_patched_first(start_in_shop: Start, command: str) -> None:
    server = start_in_shop(command, **OPENTELEMETRY).wait_ready("/")

    seen = requests.get(server.url, timeout=10).json()

    assert seen["socket"] == "gevent._socket3"
    assert seen["lock"].startswith("greenroom")
    assert seen["view"] == "instrumented"
    assert server.stop() == 0
    assert "Traceback" not in server.text()


def test_without_it_the_agent_is_named_with_the_command_that_works(start_in_shop: Start) -> None:
    server = start_in_shop(f"opentelemetry-instrument {GUNICORN}", **OPENTELEMETRY)

    assert server.wait_gone() != 0
    assert "imported by opentelemetry-instrument (" in server.text()
    assert "`greenroom run -- opentelemetry-instrument ...`" in server.text()
    assert "Traceback" not in server.text()


@pytest.fixture(scope="module")
def agents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with all three agents."""
    folder = tmp_path_factory.mktemp("agents")
    packages = [
        "flask",
        "requests",
        "newrelic",
        "ddtrace",
        "opentelemetry-distro",
        "opentelemetry-instrumentation-flask",
    ]
    ours = ["gunicorn>=26.1,<28", "gevent", "psutil", "python-dotenv", "packaging"]
    for command in ([sys.executable, "-m", "venv", "."], ["bin/pip", "install", "--quiet", *packages, *ours]):
        subprocess.run(command, cwd=folder, check=True, timeout=INSTALL_SECONDS)
    return folder / "bin"


AGENTS = {
    "newrelic-admin run-program": {"NEW_RELIC_LICENSE_KEY": "x", "NEW_RELIC_DEVELOPER_MODE": "true"},
    "ddtrace-run": {"DD_TRACE_ENABLED": "true", "DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false"},
    "opentelemetry-instrument": OPENTELEMETRY,
}


@pytest.mark.nightly
@pytest.mark.parametrize("way", ["run", "serve"])
@pytest.mark.parametrize("agent", AGENTS)
def test_all_three_agents_work(start_in_shop: Start, agents: Path, agent: str, way: str) -> None:
    command = f"{RUN}{agent} {GUNICORN}" if way == "run" else f"{agent} {SERVE}"
    server = start_in_shop(command, agents, **AGENTS[agent]).wait_ready("/")

    seen = requests.get(server.url, timeout=10).json()

    assert (seen["socket"], seen["lock"].partition(".")[0]) == ("gevent._socket3", "greenroom")
    if agent.startswith("opentelemetry"):
        wait_until(lambda: '"http.route": "/"' in server.text(), "the request's span is written by the worker")
    assert server.stop() == 0
