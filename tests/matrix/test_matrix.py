"""Each set of versions serves, waits in the loop, says in one line what is off, and prints what is replaced."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
import requests

from tests.live.conftest import ROOT, Server, clean_environment, free_port, wait_until

from .sets import SETS, Set
from .shop import LONG_WAIT_SECONDS, MEETING

pytestmark = [pytest.mark.nightly, pytest.mark.live]
INSTALL_SECONDS = 900
SHOP = Path(__file__).with_name("shop.py")


def run(*command: str, cwd: Path) -> str:
    environ = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python_of(version: str) -> str:
    """An interpreter of this version: this one, one on the PATH, or one of pyenv's."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    candidates = [shutil.which(f"python{version}")]
    if shutil.which("pyenv"):
        names = subprocess.run(["pyenv", "versions", "--bare"], capture_output=True, text=True).stdout.split()
        for name in names:
            if name.startswith(f"{version}."):
                folder = subprocess.run(["pyenv", "prefix", name], capture_output=True, text=True).stdout.strip()
                candidates.append(f"{folder}/bin/python")
    for candidate in candidates:
        if candidate and subprocess.run([candidate, "-c", ""], capture_output=True).returncode == 0:
            return candidate
    pytest.fail(f"no Python {version} is on the PATH, and pyenv has none: install one for the matrix")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT), cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module", params=SETS)
def versions(request: pytest.FixtureRequest) -> Set:
    return SETS[request.param]


@pytest.fixture(scope="module")
def python(versions: Set, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("venv")
    run(python_of(versions.python), "-m", "venv", str(folder), cwd=folder)
    python = folder / "bin" / "python"
    run(str(python), "-m", "pip", "install", "--quiet", str(wheel), *versions.requirements, cwd=folder)
    return python


@pytest.fixture(scope="module")
def shop(python: Path, postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(SHOP, folder)
    port = free_port()
    command = [str(python.parent / "greenroom"), "serve", "shop:app", "--bind", f"127.0.0.1:{port}", "--workers", "1"]
    environ = {"GREENROOM_OPS_BIND": "off", "PWD": str(folder), "SHOP_DATABASE": postgres_url}
    server = Server(command, environ, folder / "server.log", port, cwd=folder)
    yield server.wait_ready("/")
    server.stop()
    print(server.text())


def at_once(shop: Server, path: str) -> list[object]:
    with ThreadPoolExecutor(2 * MEETING) as threads:
        answers = threads.map(
            lambda _: requests.get(f"{shop.url}/{path}", timeout=LONG_WAIT_SECONDS), range(2 * MEETING)
        )
        return [answer.json() for answer in answers]


def test_answers_are_right(shop: Server) -> None:
    assert requests.get(shop.url, timeout=LONG_WAIT_SECONDS).json() == {"is_open": True}
    assert requests.get(f"{shop.url}/sqlite", timeout=LONG_WAIT_SECONDS).json() == {"answer": 42}
    assert requests.post(shop.url, data={"a": "b"}, timeout=LONG_WAIT_SECONDS).status_code == 405


def test_waits_for_an_upstream_are_in_the_loop(shop: Server) -> None:
    """The worker has requests that call others of it: none would ever end if one of them held the loop."""
    answers = at_once(shop, "upstream")

    assert answers == [{"met": True}] * len(answers)


def test_waits_for_postgres_are_in_the_loop(shop: Server, postgres_url: str) -> None:
    with closing(psycopg2.connect(postgres_url)) as holder, ThreadPoolExecutor(2 * MEETING) as threads:
        holder.autocommit = True
        cursor = holder.cursor()
        cursor.execute("SELECT pg_advisory_lock(7)")
        asked = [
            threads.submit(requests.get, f"{shop.url}/lock", timeout=LONG_WAIT_SECONDS) for _ in range(2 * MEETING)
        ]

        def count() -> bool:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            return bool(cursor.fetchone()[0] >= MEETING)

        try:
            wait_until(count, "so many wait in PostgreSQL at once")
            assert requests.get(shop.url, timeout=LONG_WAIT_SECONDS).json() == {"is_open": True}
        finally:
            cursor.execute("SELECT pg_advisory_unlock(7)")
        assert [future.result().json() for future in asked] == [{"unlocked": True}] * len(asked)


def test_what_is_off_is_said_in_one_line(shop: Server, versions: Set) -> None:
    assert "Traceback" not in shop.text()
    for said in versions.said:
        assert shop.text().count(f"{said}") >= 1, shop.text()
    assert shop.text().count("unknown to us") == len(versions.said), shop.text()


def test_what_is_replaced_is_printed(python: Path, versions: Set, tmp_path: Path) -> None:
    found = json.loads(run(str(python), "-m", "greenroom", "patched", "--json", cwd=tmp_path))

    off = {each["package"]: each["reason"] for each in found if each["state"] == "off"}
    assert set(off) == {package for package, _ in versions.off}
    for package, reason in versions.off:
        assert reason in off[package]
    for each in found:
        states = {name["state"] for name in each["names"]}
        if each["state"] == "on":
            assert not states & {"left alone", "package not there"}
        else:
            assert states <= {"left alone", "package not there"}
