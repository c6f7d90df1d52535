"""Bad input gets one sentence that says what to change, and no server that tries for ever."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import PYTHON_MODULE, ROOT, Server, Servers, free_port, wait_until

SHOP = """
from flask import Flask
app = Flask(__name__)

@app.get("/")
def index():
    return {"folder": __import__("os").getcwd()}
"""


@pytest.fixture
def serve(tmp_path: Path, servers: Servers) -> Callable[..., Server]:
    """`serve(source, *options)` runs `greenroom serve shop:app` in the shop's folder."""
    folder = tmp_path / "shop"
    folder.mkdir()

    def run(source: str, *options: str, port: int | None = None, **environ: str) -> Server:
        (folder / "shop.py").write_text(source)
        port = port or free_port()
        settings = {"GREENROOM_OPS_BIND": "off", "PYTHONPATH": str(ROOT), "WEB_CONCURRENCY": "1", **environ}
        command = [*PYTHON_MODULE, "greenroom", "serve", "shop:app", "--bind", f"127.0.0.1:{port}", *options]
        return servers.start(command, settings, port, cwd=folder)

    return run


def test_an_import_that_fails_shows_the_applications_line_first_and_none_of_ours(serve: Callable[..., Server]) -> None:
    server = serve("import os\n\ndef settings():\n    return os.environ['NO_SUCH']\n\napp = settings()\n")

    assert server.wait_gone() == 4
    said = server.text()
    assert "the application can't be imported: KeyError: 'NO_SUCH' at " in said
    assert "shop.py, line 4, in settings" in said.partition("Traceback")[0]
    assert 'shop.py", line 6, in <module>' in said
    for theirs in ("gunicorn/", "greenroom/", "importlib"):
        assert f"{theirs}" not in said.partition("Traceback")[2].partition("Worker exiting")[0]
    assert said.count("Traceback") == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import no_such_package\n", "Install it in this environment"),
        ("def app(:\n", "shop.py, line 1"),
        ("from flask import Flask\nshop = Flask('shop')\n", "Failed to find attribute 'app' in 'shop'. Name the"),
    ],
    ids=["missing package", "syntax error", "missing name"],
)
def test_what_is_wrong_with_the_application_is_said(serve: Callable[..., Server], source: str, said: str) -> None:
    server = serve(source)

    assert server.wait_gone() == 4
    assert said in server.text()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys\nsys.exit('no database')\n", "SystemExit: no database at "),
        ("import os\nos._exit(1)\n", "exited with code 1"),
        ("import os\nos.kill(os.getpid(), 11)\n", "was sent SIGSEGV"),
    ],
    ids=["exits", "is gone", "crashes"],
)
def test_a_start_that_fails_three_times_in_the_same_way_ends(
    serve: Callable[..., Server], source: str, said: str
) -> None:
    server = serve(source)

    assert server.wait_gone() == 3
    assert server.text().count(said) == 3
    assert "3 workers in a row could not start, in the same way" in server.text()


def test_an_application_runs_in_its_own_folder(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(SHOP).wait_ready("/")

    assert requests.get(server.url, timeout=10).json() == {"folder": str(tmp_path / "shop")}


def test_two_servers_on_one_port(serve: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = serve(SHOP, port=taken.getsockname()[1])

        assert server.wait_gone() == 1
    assert f"127.0.0.1:{server.port} is taken by " in server.text()
    assert f"(pid {os.getpid()}): stop it, or choose another address with --bind" in server.text()
    assert "Traceback" not in server.text()


def test_a_folder_in_which_nothing_can_be_written(serve: Callable[..., Server], tmp_path: Path) -> None:
    """Not by its permissions, which mean nothing to root: a file lies where the folder is to be."""
    (tmp_path / "shop" / "instance").touch()
    server = serve(SHOP, GREENROOM_OPS_BIND=f"127.0.0.1:{free_port()}").wait_ready("/")

    wait_until(lambda: "GREENROOM_RECORDINGS_PATH" in server.text(), f"it is said:\n{server.text()}")
    assert requests.get(server.url, timeout=10).ok
