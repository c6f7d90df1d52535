"""The package as a shop installs it: from a wheel, into its own environment, served from its own folder."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import ROOT, Server, Servers, clean_environment, free_port, wait_until

INSTALL_SECONDS = 600
SHOP = """
import os
from flask import Flask

app = Flask(__name__)


@app.get("/")
def index():
    seen = {"version": VERSION, "name": os.environ.get("SHOP_NAME"), "hook": os.environ.get("HOOK")}
    return seen
"""
NEWEST = ("flask",)
# The oldest of each that pyproject.toml allows, with a Flask of their time.
OLDEST = (
    "flask==2.3.*",
    "werkzeug==2.3.*",
    "gunicorn==23.0.0",
    "gevent==24.10.3",
    "greenlet==3.2.*",
    "psutil==5.9.*",
    "python-dotenv==1.0.*",
)


def run(*command: str, cwd: Path) -> str:
    # Nothing of this checkout may be found by its path.
    environ = {name: value for name, value in clean_environment().items() if name != "PYTHONPATH"}
    result = subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT), cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(
    scope="module", params=[NEWEST, pytest.param(OLDEST, marks=pytest.mark.nightly)], ids=["newest", "oldest"]
)
def python(request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", str(folder), cwd=folder)
    python = folder / "bin" / "python"
    run(str(python), "-m", "pip", "install", "--quiet", str(wheel), *request.param, cwd=folder)
    return python


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "shop.py").write_text(SHOP.replace("VERSION", "1"))
    (folder / ".env").write_text("SHOP_NAME=corner\n")
    return folder


@pytest.fixture
def serve(python: Path, shop: Path, servers: Servers) -> Callable[..., Server]:
    """`serve(*arguments)` runs `greenroom serve` as its README says, in the shop's folder."""

    def run(*arguments: str, environ: dict[str, str] | None = None) -> Server:
        port = free_port()
        command = [str(python.parent / "greenroom"), "serve", *arguments, "--bind", f"127.0.0.1:{port}"]
        settings = {"GREENROOM_OPS_BIND": "off", "PWD": str(shop), **(environ or {})}
        return servers.start(command, settings, port, cwd=shop)

    return run


def test_an_installed_package_serves_reloads_and_stops(serve: Callable[..., Server], shop: Path) -> None:
    ops_port = free_port()
    server = serve("shop:app", "--workers", "1", environ={"GREENROOM_OPS_BIND": f"127.0.0.1:{ops_port}"})

    first = requests.get(server.wait_ready("/").url, timeout=10).json()
    assert (first["version"], first["name"]) == (1, "corner")
    wait_until(lambda: f"the page is on http://127.0.0.1:{ops_port}" in server.text(), "the ops page is announced")
    assert 'id="request-stacks"' in requests.get(f"http://127.0.0.1:{ops_port}/", timeout=10).text

    (shop / "shop.py").write_text(SHOP.replace("VERSION", "1 + 1"))
    (shop / ".env").write_text("SHOP_NAME=main street\n")
    server.signal(signal.SIGHUP)
    # In one answer: while workers are replaced, the old one answers as well.
    new = {"version": 2, "name": "main street", "hook": None}
    wait_until(lambda: requests.get(server.url, timeout=10).json() == new, f"a reload:\n{server.text()}")

    assert server.stop() == 0
    assert "Traceback" not in server.text()


def test_an_installed_package_serves_tls(serve: Callable[..., Server], shop: Path) -> None:
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem -out cert.pem"
    run(*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", cwd=shop)

    server = serve("shop:app", "--certfile", "cert.pem", "--keyfile", "key.pem", "--workers", "1")

    def answers() -> bool:
        try:
            return requests.get(f"https://127.0.0.1:{server.port}/", verify=shop / "cert.pem", timeout=5).ok
        except requests.ConnectionError:
            return False

    wait_until(answers, f"TLS is answered:\n{server.text()}")


def test_the_application_is_found_as_flask_finds_it(serve: Callable[..., Server], shop: Path) -> None:
    (shop / "shop.py").rename(shop / "wsgi.py")

    server = serve("--workers", "1").wait_ready("/")

    assert requests.get(server.url, timeout=10).json()["version"] == 1


def test_a_configuration_of_the_shop_counts_over_ours(serve: Callable[..., Server], shop: Path) -> None:
    (shop / "gunicorn.conf.py").write_text(
        "workers = 1\ndef post_fork(server, worker):\n    import os\n    os.environ['HOOK'] = 'own hook'\n"
    )

    server = serve("shop:app").wait_ready("/")

    assert requests.get(server.url, timeout=10).json()["hook"] == "own hook"
    assert len(server.workers()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no_such_shop:app",), "no_such_shop"),
        (("shop:missing",), "missing"),
        ((), "there is neither wsgi.py nor app.py"),
        (("shop:app", "-c", "missing.py"), "there is no configuration file missing.py"),
    ],
)
def test_a_wrong_name_gets_a_sentence(serve: Callable[..., Server], arguments: tuple[str, ...], said: str) -> None:
    server = serve(*arguments)

    assert server.wait_gone() != 0
    assert said in server.text()


def test_nothing_is_required_that_an_application_may_pin(python: Path, tmp_path: Path) -> None:
    code = "from importlib.metadata import requires; print(*requires('greenroom'), sep='\\n')"
    lines = run(str(python), "-c", code, cwd=tmp_path).splitlines()
    required = {re.split(r"[^\w-]", line)[0] for line in lines if "extra ==" not in line}

    assert required == {"gunicorn", "gevent", "greenlet", "psutil", "python-dotenv", "packaging"}


def test_the_package_is_whole_without_this_repository(python: Path, tmp_path: Path) -> None:
    assert run(str(python), "-m", "greenroom", "--version", cwd=tmp_path).strip()
    assert "GREENROOM_BACKLOG" in run(str(python), "-m", "greenroom", "settings", cwd=tmp_path)
    code = "import greenroom, sys; print(*(name for name in ('gevent', 'flask', 'gunicorn') if name in sys.modules))"
    assert run(str(python), "-c", code, cwd=tmp_path).strip() == ""
    assert os.path.commonpath(
        [run(str(python), "-c", "import greenroom; print(greenroom.__file__)", cwd=tmp_path), str(ROOT)]
    ) != str(ROOT)
