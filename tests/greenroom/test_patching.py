"""Each test patches a process of its own: patching this one would change every other test."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCH = "from greenroom import patching\nfrom greenroom.settings import Settings\npatching.patch(Settings())\n"


def run(code: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", path + textwrap.dedent(code)], capture_output=True, text=True, timeout=60
    )


def test_importing_greenroom_patches_nothing() -> None:
    result = run("import greenroom, greenroom.patching, greenroom.hooks, greenroom.cli\n"
                 "from gevent import monkey\nassert not monkey.saved, monkey.saved")  # fmt: skip

    assert result.returncode == 0, result.stderr


def test_patching_replaces_sockets_threads_and_the_psycopg2_wait() -> None:
    result = run(
        PATCH + "import inspect, queue, socket, ssl, threading, time\n"
        "from greenroom.waits import postgres\n"
        "assert socket.socket.__module__ == 'gevent._socket3'\n"
        "assert ssl.SSLContext.__module__ == 'gevent.ssl'\n"
        "from greenroom.waits.stdlib import locks, queues\n"
        "assert threading.Lock is locks.Lock and queue.SimpleQueue is queues.SimpleQueue\n"
        "assert inspect.unwrap(time.sleep).__code__.co_filename.endswith('hub.py')  # gevent's\n"
        "assert postgres.is_installed()"
    )

    assert result.returncode == 0, result.stderr


def test_what_is_no_name_is_refused_as_python_refuses_it() -> None:
    result = run(
        PATCH + "import socket\ntry: socket.gethostbyname(None)\nexcept TypeError: pass\nelse: raise SystemExit(1)"
    )

    assert result.returncode == 0, result.stderr


def test_patching_twice_is_once() -> None:
    result = run(PATCH + "import socket; before = socket.socket\n" + PATCH + "assert socket.socket is before")

    assert result.returncode == 0, result.stderr


def test_each_part_can_be_switched_off() -> None:
    result = run(
        "from greenroom import patching\nfrom greenroom.settings import Settings\n"
        "from greenroom.waits import postgres\n"
        "from gevent import monkey\n"
        "patching.patch(Settings(patch=False)); assert not monkey.is_module_patched('socket')\n"
        "patching.patch(Settings(patch_psycopg2=False)); assert monkey.is_module_patched('socket')\n"
        "assert not postgres.is_installed()"
    )

    assert result.returncode == 0, result.stderr


def test_names_and_connections_go_our_way_and_can_be_left_alone() -> None:
    result = run(
        PATCH + "import gevent, socket, urllib3.util.connection\n"
        "from greenroom.waits import dns, happy_eyeballs\n"
        "assert isinstance(gevent.get_hub().resolver, dns.Resolver)\n"
        "assert socket.create_connection.__wrapped__ is happy_eyeballs.create_connection\n"
        "assert 'greenroom' in urllib3.util.connection.create_connection.__module__\n"
        "names = dns.Resolver.names\n"
        "import os; assert os.environ['RES_OPTIONS']\n"
        "assert socket.getaddrinfo('127.0.0.1', 80)[0][0] is socket.AF_INET\n"
        "assert socket.gethostbyname('127.1') == '127.0.0.1' and socket.gethostbyname('') == '0.0.0.0'\n"
        "assert socket.getnameinfo(('127.0.0.1', 80), 3) == ('127.0.0.1', '80')\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "port = listener.getsockname()[1]\n"
        "socket.create_connection(('localhost', port), 10).close()\n"
        "urllib3.util.connection.create_connection(('localhost', port), 10).close()\n"
        "assert not names.threads.idle_threads, 'addresses and localhost need no thread'\n"
        "listener.close()\n"
    )
    left_alone = run(
        "from greenroom import patching\nfrom greenroom.settings import Settings\n"
        "patching.patch(Settings(patch_dns=False))\n"
        "import gevent, socket\n"
        "assert type(gevent.get_hub().resolver).__module__ == 'gevent.resolver.thread'\n"
        "assert 'gevent' in socket.create_connection.__module__\n"
    )

    assert result.returncode == 0, result.stderr
    assert left_alone.returncode == 0, left_alone.stderr


def test_too_late_names_the_holder_and_who_imported_it(tmp_path: Path) -> None:
    (tmp_path / "shop_client.py").write_text("import requests\n")

    result = run("import shop_client\n" + PATCH, tmp_path)

    assert result.returncode != 0
    assert "too late to patch" in result.stderr
    assert "urllib3.util.ssl_ holds ssl.SSLContext; imported by shop_client" in result.stderr


def test_an_agent_that_came_first_is_named_with_what_to_do(tmp_path: Path) -> None:
    agent = tmp_path / "newrelic" / "bootstrap"
    agent.mkdir(parents=True)
    (agent / "sitecustomize.py").write_text("import requests\n")

    result = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\nimport gunicorn\n" + PATCH],
        env={**os.environ, "PYTHONPATH": str(agent)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert "imported by newrelic-admin run-program" in result.stderr
    assert "`greenroom run -- newrelic-admin run-program ...`" in result.stderr


def test_a_lock_born_before_patching_is_named(tmp_path: Path) -> None:
    (tmp_path / "shop_locks.py").write_text(
        "import threading\nguard = threading.Lock()\n\nclass Till:\n    drawer = threading.RLock()\n"
    )

    result = run("import shop_locks\n" + PATCH, tmp_path)

    assert "shop_locks holds the lock Till.drawer, the lock guard" in result.stderr


def test_a_thread_that_runs_already_is_named() -> None:
    result = run(
        "import threading; go = threading.Event()\n"
        "threading.Thread(target=go.wait, name='early-bird', daemon=True).start()\n" + PATCH
    )

    assert "threads run already: early-bird" in result.stderr


def test_gunicorn_itself_holds_nothing_that_patching_would_miss() -> None:
    result = run("import gunicorn.app.wsgiapp, gunicorn.arbiter, gunicorn.workers.gthread\n" + PATCH)

    assert result.returncode == 0, result.stderr


def test_the_library_imported_after_patching_is_green_all_the_way_down() -> None:
    result = run(
        PATCH + "import gevent, requests, urllib3.util.ssl_, queue\n"
        "assert urllib3.util.ssl_.SSLContext.__module__ == 'gevent.ssl'\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "import threading\n"
        "with ThreadPoolExecutor(1) as pool:\n"
        "    assert pool.submit(gevent.getcurrent).result() is not gevent.getcurrent()\n"
        "    assert isinstance(pool.submit(gevent.getcurrent).result(), gevent.Greenlet)"
    )

    assert result.returncode == 0, result.stderr


def test_each_module_of_gevent_can_still_be_imported() -> None:
    result = run(
        PATCH + "import gevent, importlib, pkgutil, warnings\n"
        "warnings.simplefilter('ignore')  # some are deprecated\n"
        "for module in pkgutil.iter_modules(gevent.__path__):\n"
        "    if module.name not in ('tests', 'testing'):\n"
        "        importlib.import_module(f'gevent.{module.name}')\n"
        "import gevent.core\n"
        "assert gevent.core.loop in gevent.config.loop.__mro__"
    )

    assert result.returncode == 0, result.stderr
