"""The application is imported twice: as what, with which files, and behind which agent."""

import sys
from pathlib import Path

import pytest

from greenroom import agents
from greenroom.doctor import examination
from greenroom.doctor.findings import Finding
from greenroom.doctor.importing import Imported, _own_place, import_twice
from greenroom.doctor.inside.importing import is_asgi
from greenroom.doctor.reading.project import Project
from greenroom.doctor.reading.sources import Sources
from greenroom.doctor.scratch import Scratch

# Must not expire when all is well.
SECONDS = 30.0
OPENTELEMETRY = "opentelemetry-instrument"
WSGI = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n"


def imported(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> Imported:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    with Scratch() as scratch:
        return import_twice(scratch, "shop:app", [], SECONDS)


def found(told: Imported, folder: Path) -> list[Finding]:
    sources = Sources(folder, [], folder)
    sources.follow("shop")
    return list(told.findings(Project(sources)))


def test_an_asgi_application_can_not_be_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = imported(tmp_path, monkeypatch, shop="async def app(scope, receive, send):\n    pass\n")

    assert "shop:app is an ASGI application" in told.why_not
    assert [(one.rule, one.level, "a2wsgi" in one.do) for one in found(told, tmp_path)] == [
        ("import-fails", "error", True)
    ]


def test_it_is_known_by_its_call() -> None:
    class Asgi:
        async def __call__(self, scope: object, receive: object, send: object) -> None: ...

    class Wsgi:
        def __call__(self, environ: object, start_response: object) -> list[bytes]:
            return []

    assert is_asgi(Asgi())
    assert not is_asgi(Wsgi())
    assert not is_asgi(Wsgi().__call__)


def test_each_import_has_databases_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = imported(
        tmp_path,
        monkeypatch,
        shop="import sqlite3\n\nwith sqlite3.connect('shop.db') as db:\n"
        "    db.execute('CREATE TABLE IF NOT EXISTS users (name TEXT UNIQUE)')\n"
        "    db.execute('INSERT INTO users VALUES (?)', ('ada',))\n\n\n" + WSGI,
    )

    assert (told.patched["error"], told.plain["error"]) == ("", "")
    assert not (tmp_path / "shop.db").exists()


@pytest.mark.parametrize("is_made_first_by", ["patched", "plain"])
def test_an_import_whose_effect_is_in_the_way_of_the_next_works_once(
    is_made_first_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = tmp_path / "queue"  # made by a program, so outside of what the doctor puts back
    wait = "import subprocess, time\n\nfrom gevent.monkey import is_module_patched\n\n"
    wait += f"if is_module_patched('socket') != {is_made_first_by == 'patched'}:\n    time.sleep(2)\n"
    make = f"subprocess.run(['mkdir', {str(queue)!r}], check=True)\n"

    told = imported(tmp_path, monkeypatch, shop=wait + make + "\n\n" + WSGI)

    assert queue.is_dir()
    assert [(one.line, "imported once" in one.says) for one in found(told, tmp_path) if one.rule == "import-fails"] == [
        (7, True)
    ]
    assert not any("Unpatched" in one for one in told.differences())


@pytest.mark.parametrize(
    ("connects", "what"),
    [
        ("psycopg2.connect('host=127.0.0.1 port=1 dbname=shop')", "PostgreSQL"),
        ("psycopg.connect('host=127.0.0.1 port=1 dbname=shop')", "PostgreSQL"),
        ("socket.socket(socket.AF_UNIX).connect('redis.sock')", "redis.sock"),
    ],
)
def test_a_connection_at_import_is_seen_whatever_opens_it(
    connects: str, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = connects.partition(".")[0]
    pytest.importorskip(module)
    told = imported(
        tmp_path, monkeypatch, shop=f"import {module}\n\ntry:\n    {connects}\nexcept Exception:\n    pass\n\n\n" + WSGI
    )

    assert [(one.rule, one.level, one.line, f"it connects to {what}" in one.says) for one in found(told, tmp_path)] == [
        ("io-at-import", "note", 4, True)
    ]
    assert told.differences() == []


def test_a_connection_at_import_without_which_no_worker_starts_is_more_than_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connects = "def ask():\n    with socket.socket() as one:\n        one.connect(('127.0.0.1', 1))\n\n\n"
    told = imported(tmp_path, monkeypatch, shop=f"import socket\n\n\n{connects}ask()\n\n\n" + WSGI)
    handled = imported(
        tmp_path,
        monkeypatch,
        shop=f"import socket\n\n\n{connects}try:\n    ask()\nexcept OSError:\n    pass\n\n\n" + WSGI,
    )

    assert ("io-at-import", "warning", 6) in [(one.rule, one.level, one.line) for one in found(told, tmp_path)]
    assert [(one.rule, one.level, one.line) for one in found(handled, tmp_path)] == [("io-at-import", "note", 6)]


def test_files_that_the_list_of_routes_brings_in_are_the_applications(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = imported(
        tmp_path,
        monkeypatch,
        shop="class App:\n    view_functions = {}\n\n    @property\n    def url_map(self):\n        import views\n\n"
        "        return views\n\n    def __call__(self, environ, start_response):\n        return []\n\n\n"
        "app = App()\n",
        views="def iter_rules():\n    return []\n",
    )

    assert {module for module, _ in told.files} >= {"shop", "views"}


def test_the_place_of_a_hanging_import_is_not_the_doctors(tmp_path: Path) -> None:
    dump = f'File "{tmp_path}/package/greenroom/hub.py", line 3\nFile "/srv/shop.py", line 7\n'

    assert _own_place(dump, tmp_path).endswith("shop.py:7")


def test_what_was_there_before_patching_is_told_once(tmp_path: Path) -> None:
    told = Imported(
        patched={"error": "too late to patch", "advice": "`greenroom run -- x ...`", "holders": ["a holds time.sleep"]}
    )

    assert [(one.rule, one.do) for one in found(told, tmp_path)] == [("patched-too-late", "`greenroom run -- x ...`")]


def test_an_agent_wants_greenroom_run_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "launcher", lambda: OPENTELEMETRY)

    (one,) = examination.behind_an_agent()

    assert (one.rule, one.level, one.file) == ("patched-too-late", "warning", OPENTELEMETRY)
    assert f"`greenroom run -- {OPENTELEMETRY} gunicorn -k greenroom.Worker ...`" in one.do


@pytest.mark.parametrize(
    ("launcher", "is_patched", "folder"),
    [("", False, ""), (OPENTELEMETRY, True, ""), ("ddtrace-run", False, "/ddtrace/x")],
)
def test_no_agent_or_one_behind_greenroom_run_is_no_finding(
    launcher: str, is_patched: bool, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "launcher", lambda: launcher)
    monkeypatch.setattr(agents, "folder", lambda: folder)
    monkeypatch.setattr(examination.patching, "is_patched", lambda: is_patched)

    assert list(examination.behind_an_agent()) == []


def test_behind_an_agent_a_child_is_patched_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "launcher", lambda: OPENTELEMETRY)
    command = [sys.executable, "-c", "from gevent import monkey; print(monkey.is_module_patched('socket'))"]
    with Scratch() as scratch:
        children = [scratch.start(command, {}, is_patched_first=first) for first in (True, False)]
        assert all(child.wait(SECONDS) for child in children)

        assert [child.output().split()[-1] for child in children] == ["True", "False"]
