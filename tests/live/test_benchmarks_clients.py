"""The benchmarks of difficult clients and of many workers: run short, they measure and judge aloud."""

import subprocess
import sys

import pytest

from .conftest import ROOT, clean_environment

pytestmark = pytest.mark.nightly  # each takes up to a minute
SLOW = "benchmarks.slow --heads 20 --bodies 20 --seconds 1 --rounds 1 --rate 50"
BALANCE = "benchmarks.balance --workers 2 --clients 10 --seconds 1 --rounds 1 --rate 20"
ROLLING = "benchmarks.rolling --ways max_requests --requests 300 --rate 200 --clients 8"


@pytest.mark.parametrize(
    ("command", "judged"),
    [
        (SLOW, ["p99 with slow clients / quiet", "memory at the end", "failed requests of the others"]),
        (BALANCE, ["busiest / idlest worker of 10 connections", "share of new connections over 1 s"]),
        (ROLLING, ["requests lost of 3"]),
    ],
    ids=["slow", "balance", "rolling"],
)
def test_it_measures_and_judges_every_target(command: str, judged: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split(), "--worker-classes", "greenroom"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=110,
    )

    lines = done.stdout.splitlines()
    verdicts = [line for line in lines if line.endswith("reached")]
    assert done.stderr == ""
    assert [next((line for line in verdicts if what in line), None) is not None for what in judged] == [True] * len(
        judged
    ), done.stdout
    assert done.returncode == (1 if any(line.endswith("not reached") for line in verdicts) else 0)


def test_a_busy_client_is_measured_beside_the_others() -> None:
    command = ["benchmarks.beside", "--servers", "greenroom", "--seconds", "1", "--kinds", "none"]
    busy = ["the same, from a file", "pipelining over TLS", "upload over HTTP/2", "HTTP/2: pings"]
    done = subprocess.run(
        [sys.executable, "-m", *command, *busy],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )

    assert done.stderr == ""
    assert [one for one in busy if one not in done.stdout] == []
    assert "greenroom: /healthz beside any of them, p99 in ms: " in done.stdout
    assert done.returncode == (1 if "not reached" in done.stdout else 0)


def test_tls_and_http2_are_measured_beside_the_stock_worker() -> None:
    done = subprocess.run(
        [sys.executable, "-m", *"benchmarks.tls --clients 4 --rounds 1 --seconds 0.2 --idle 20".split()],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=110,
    )

    assert done.stderr == ""
    assert [line.split()[:-2] for line in done.stdout.splitlines()[1:5]] == [
        ["TLS,", "kept", "greenroom"],
        ["TLS,", "kept", "gevent"],
        ["HTTP/2", "greenroom"],
        ["HTTP/2", "gevent"],
    ]
    assert [line.split()[:2] for line in done.stdout.splitlines()[5:]] == [["idle", "greenroom"], ["idle", "gevent"]]
