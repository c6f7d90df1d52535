"""`greenroom load` on a Greenroom server: each second carries what the server says; recordings are played again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from greenroom.load import commands
from greenroom.load.running import run as run_load
from tests.live.conftest import Server, free_port
from tests.live.staging import TROUBLE, Ops
from tests.live.synthetic import has_ended_as

Start = Callable[..., Server]


def load(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    import argparse

    parser = argparse.ArgumentParser()
    commands.add_to(parser.add_subparsers())
    file = tmp_path / "result.json"
    code = run_load(parser.parse_args(["load", *arguments, "--json", str(file), "--live", "off"]))
    return code, json.loads(file.read_text())


@pytest.fixture
def trouble(start: Start, tmp_path: Path) -> tuple[Server, int]:
    """One worker that runs two requests at once, each as long as it is asked to, and the port of its ops page."""
    ops_port = free_port()
    environ = {
        **TROUBLE,
        "WEB_CONCURRENCY": "1",
        "GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}",
        "GREENROOM_RECORDINGS_PATH": str(tmp_path / "recordings"),
        "GREENROOM_LIMIT_REQUESTS": "2",
    }
    return start(environ).wait_ready(), ops_port


def test_overload_is_explained_recorded_and_reproduced(
    trouble: tuple[Server, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server, ops_port = trouble
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GREENROOM_OPS_BIND", f"127.0.0.1:{ops_port}")

    asked = ("--rate", "60", "--for", "5s", "--timeout", "2s", "--expect", "p95<300ms", "--expect", "errors<1%")
    code, said = load(tmp_path, f"{server.url}/sleep/100", *asked)

    # Three times as much as two requests at once of 100 ms each can be.
    assert has_ended_as(1, code, said)
    told = [row["server"] for row in said["seconds"] if "server" in row]
    assert len(told) >= 4
    assert all(row["verdict"] and "cpu_ratio" in row and "lag_ms" in row for row in told)
    assert max(row["queued"] for row in told) > 2
    assert said["ops"] == f"http://127.0.0.1:{ops_port}"
    assert said["limited_by"].startswith("Overload")

    name = requests.post(f"{Ops(ops_port).url}/recordings", headers={"X-Greenroom": "1"}, timeout=60).json()["name"]
    recording = str(tmp_path / "recordings" / name)
    played = ("--replay", recording, "--against", server.url, "--timeout", "2s", "--map")
    _, again = load(tmp_path, *played, "ms=100")
    _, fixed = load(tmp_path, *played, "ms=1")

    recorded = again["recorded"]["all"]
    assert again["planned"] == fixed["planned"] == recorded["requests"] > 100
    assert recorded["shed"] > 100
    assert again["errors"] + again["shed"] > 0.5 * recorded["shed"]
    assert fixed["errors"] + fixed["shed"] < 0.1 * recorded["shed"]
    assert fixed["p50_ms"] < again["p50_ms"]
    assert "recorded" in capsys.readouterr().out


def test_ops_page_that_does_not_answer_is_said_before_the_run(trouble: tuple[Server, int], tmp_path: Path) -> None:
    from greenroom.load.units import LoadError

    with pytest.raises(LoadError, match=r"nothing listens at .* \(--ops\)"):
        load(tmp_path, f"{trouble[0].url}/", "--rate", "5", "--for", "1s", "--ops", f"127.0.0.1:{free_port()}")
