"""`pytest -p greenroom.pytest` runs an application's own tests in a process that is patched first of all."""

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import LONG_WAIT_SECONDS, ROOT, clean_environment

CONFTEST = """
import socket, requests          # before anything of the tests
SEEN = socket.socket.__module__
"""
PATCHED = """
import ssl, threading, time
import conftest
import pytest
import urllib3.util.ssl_
from greenroom.waits.stdlib.locks import Lock

@pytest.mark.parametrize("number", range(8))
def test_first_of_all(number, request):
    assert conftest.SEEN == "gevent._socket3"
    assert urllib3.util.ssl_.SSLContext.__module__ == "gevent.ssl"
    assert type(threading.Lock()) is Lock

def test_threads_wait_together():
    began = time.monotonic()
    threads = [threading.Thread(target=time.sleep, args=(0.2,)) for _ in range(20)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert time.monotonic() - began < 3
"""
SHOP = """
import hashlib, socket, threading, time
import gevent
from sqlalchemy import create_engine, text

engine = create_engine("postgresql+psycopg2://nobody@127.0.0.1:1/none")
lock = threading.Lock()

class Lazy:
    # Made when somebody asks for its class, which fails here: Django's settings and storages are such.
    __class__ = property(lambda self: 1 / 0)

kept = [Lazy()]

def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))

def forever():
    threading.Event().wait(600)
"""
TROUBLE = """
import asyncio
import shop, socket, threading, time
import gevent

def test_spins():
    shop.spin(0.4)

def test_waits():
    time.sleep(0.4)

def test_leaves_a_thread():
    threading.Thread(target=shop.forever, name="forgotten", daemon=True).start()

def test_leaves_a_greenlet():
    shop.kept.append(gevent.spawn(time.sleep, 600))

def test_leaves_a_lock():
    shop.lock.acquire()

def test_leaves_a_listener():
    shop.kept.append(socket.create_server(("127.0.0.1", 0)))

def test_runs_a_coroutine():
    async def calls():
        return await asyncio.to_thread(int)

    assert asyncio.run(calls()) == 0

def test_tidies_up():
    thread = threading.Thread(target=time.sleep, args=(0.01,))
    thread.start()
    thread.join()
    with socket.create_server(("127.0.0.1", 0)):
        pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\npythonpath = .\n")
    return tmp_path


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "greenroom.pytest", *arguments],
        cwd=folder,
        env={**clean_environment(), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LONG_WAIT_SECONDS,
    )


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["alone", "xdist"])
def test_the_process_is_patched_before_conftest(folder: Path, processes: list[str]) -> None:
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "test_patched.py").write_text(PATCHED)

    result = run(folder, "-q", *processes)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "9 passed" in result.stdout


@pytest.mark.parametrize(
    "processes", [[], pytest.param(["-n", "2"], marks=pytest.mark.nightly)], ids=["alone", "xdist"]
)
def test_what_stops_the_loop_or_is_left_behind_is_reported_with_its_line(folder: Path, processes: list[str]) -> None:
    (folder / "shop.py").write_text(SHOP)
    (folder / "test_trouble.py").write_text(TROUBLE)

    result = run(folder, "--greenroom-stalls", "150ms", "--greenroom-strict", *processes)

    assert result.returncode == 1, result.stdout + result.stderr
    assert "8 passed" in result.stdout
    said = [
        line for line in result.stdout.splitlines() if line.startswith("test_trouble.py::") and "PASSED" not in line
    ]
    for test, what in {
        "test_spins": " in spin",
        "test_leaves_a_thread": "shop.py:20 in forever, started at",
        "test_leaves_a_greenlet": "test_trouble.py:16",
        "test_leaves_a_lock": "test_trouble.py:19 (made at",
        "test_leaves_a_listener": "a socket still listens on ('127.0.0.1'",
    }.items():
        assert [line for line in said if f"::{test} " in line and what in line], f"{test}: {what}\n{result.stdout}"
    for test in ("test_waits", "test_runs_a_coroutine", "test_tidies_up"):
        assert not [line for line in said if f"::{test} " in line], result.stdout


def test_without_strict_they_are_said_and_nothing_fails(folder: Path) -> None:
    (folder / "test_spin.py").write_text("def test_spin():\n    for _ in range(60):\n        sum(range(1_000_000))\n")

    result = run(folder, "--greenroom-stalls", "100ms")

    assert result.returncode == 0, result.stdout + result.stderr
    assert "test_spin.py:3 in test_spin" in result.stdout


@pytest.mark.parametrize("time", ["soon", "0ms"])
def test_a_time_that_is_none_is_one_sentence(folder: Path, time: str) -> None:
    result = run(folder, "--greenroom-stalls", time)

    assert result.returncode == 4
    assert "must look like 50ms or 0.5s" in result.stderr + result.stdout
