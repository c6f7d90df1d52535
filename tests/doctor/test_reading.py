"""What reading finds, and what it says of that which it could not read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom.doctor.examination import Examination, Options, Report

from .conftest import FLASK


def test_a_configuration_that_is_ours_is_not_told_to_become_so(read: Callable[..., Report]) -> None:
    report = read(
        FLASK,
        **{
            "gunicorn.conf.py": "from greenroom.configuration import configure\n\nglobals().update(configure())\n"
            "workers = 1\n"
        },
    )

    assert report.findings == []


def test_a_file_that_nests_too_deep_is_named_and_not_read(read: Callable[..., Report]) -> None:
    report = read(FLASK + "x = " + " + ".join(["''"] * 400))

    assert [(one.what, one.why) for one in report.skipped] == [
        ("reading", "shop.py nests deeper than 300 levels and was not read")
    ]


def test_a_rule_that_fails_is_named_and_the_others_are_asked(
    read: Callable[..., Report], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(project: object) -> None:
        raise KeyError("odd")

    monkeypatch.setattr("greenroom.doctor.reading.locks.find", fail)
    (tmp_path / "shop.py").write_text(FLASK + "@app.get('/')\ndef index():\n    import os\n    os._exit(1)\n")
    monkeypatch.chdir(tmp_path)

    report = Examination(Options("shop:app", is_reading_only=True), lambda words: None).run()

    assert "exits-in-request" in {one.rule for one in report.findings}
    assert ["locks" in one.why and "KeyError('odd')" in one.why for one in report.skipped] == [True]


def places(report: Report) -> list[tuple[str, str, int]]:
    return [(one.rule, one.level, one.line) for one in report.findings]


SOCKETS = "import os\n\nfrom flask import Flask\nfrom flask_socketio import SocketIO\n\napp = Flask(__name__)\n"


@pytest.mark.parametrize(
    ("mode", "is_found"),
    [
        ("None", True),
        ("os.environ.get('MODE')", True),
        ("os.getenv('MODE')", True),
        ("os.environ.get('MODE', 'threading')", False),
        ("os.environ.get('MODE') or None", True),
        ("'threading' if os.environ.get('MODE') else None", True),
        ("os.environ.get('MODE') or 'threading'", False),
        ("os.environ['MODE']", False),
        ("'gevent'", False),
    ],
)
def test_a_mode_that_the_environment_may_leave_out_is_chosen_by_what_is_installed(
    mode: str, is_found: bool, read: Callable[..., Report]
) -> None:
    found = read(SOCKETS + f"socketio = SocketIO(app, message_queue='redis://', async_mode={mode})\n").findings

    assert [one.rule for one in found] == ["socketio-mode"] * is_found
    assert all(f"where `{mode.replace(chr(34), chr(39))}` is None" in one.says for one in found)


def test_a_configuration_of_developers_may_use_sqlite(read: Callable[..., Report]) -> None:
    text = FLASK + (
        "class DevelopmentConfig:\n    SQLALCHEMY_DATABASE_URI = 'sqlite:///dev.db'\n\n\n"
        "class ProductionConfig:\n    SQLALCHEMY_DATABASE_URI = 'sqlite:///shop.db'\n"
    )

    assert places(read(text)) == [("sqlite", "warning", 11)]


@pytest.mark.parametrize("path", ['f"{DATA}/prices.csv"', 'DATA + "/prices.csv"', '"shop/data/" + "prices.csv"'])
def test_a_relative_folder_is_seen_through_a_text_that_is_put_together(path: str, read: Callable[..., Report]) -> None:
    text = FLASK + f'DATA = "shop/data"\n\n\n@app.get("/")\ndef prices():\n    return open({path}).read()\n'

    assert places(read(text)) == [("relative-path", "warning", 11)]
    assert places(read(text.replace("shop/data", "/srv/data"))) == []


def test_requests_run_dashs_callbacks(read: Callable[..., Report]) -> None:
    text = (
        "from dash import Dash, Input, Output, callback\n\napp = Dash(__name__)\nSEEN = {}\n\n\n"
        "@callback(Output('hello', 'children'), Input('name', 'value'))\n"
        "def hello(name):\n    SEEN[name] = SEEN.get(name, 0) + 1\n    return name\n"
    )

    assert {one.rule for one in read(text).findings} == {"per-worker-state", "grows"}
    assert read(text.replace("from dash", "from signals")).findings == []


CELERY = (
    "from celery import Celery\nfrom flask import Flask\n\napp = Flask(__name__)\n"
    "jobs = Celery('shop', broker='redis://queue/0', backend='redis://queue/1')\n\n\n"
    "@jobs.task\ndef mail(to):\n    return to\n\n\n"
)
SENDS = "@app.get('/')\ndef index():\n    return mail.delay('me').id\n"


def test_celerys_backend_of_each_thread_is_one_of_each_request(read: Callable[..., Report]) -> None:
    assert places(read(CELERY + SENDS)) == [("client-per-request", "note", 5)]
    assert read(CELERY).findings == []
    assert read(CELERY + "jobs.conf.result_backend_thread_safe = True\n\n\n" + SENDS).findings == []
    assert read(CELERY + "jobs.conf.update(result_backend_thread_safe=True)\n\n\n" + SENDS).findings == []
    assert read(CELERY.replace(", backend='redis://queue/1'", "") + SENDS).findings == []


def test_a_key_that_is_written_in_the_code_does_not_grow(read: Callable[..., Report]) -> None:
    text = FLASK + (
        "BUSY = {}\n\n\n@app.get('/')\ndef index():\n"
        "    BUSY.setdefault('now', 0)\n    BUSY['last'] = 1\n    return ''\n"
    )

    assert [one.rule for one in read(text).findings] == ["per-worker-state"]
    assert "grows" in {one.rule for one in read(text.replace("'now'", "request.path")).findings}


def test_a_child_that_ends_itself_ends_no_worker(read: Callable[..., Report]) -> None:
    text = (
        "import os\n\n"
        + FLASK
        + "@app.get('/')\ndef index():\n    if not os.fork():\n        os._exit(0)\n    return ''\n"
    )

    assert [one.rule for one in read(text).findings] == ["multiprocessing"]
    assert [one.rule for one in read(text.replace("os.fork()", "request.path")).findings] == ["exits-in-request"]


@pytest.mark.parametrize(
    ("does", "is_found"),
    [
        ("subprocess.Popen(['report'])", True),
        ("child = subprocess.Popen(['report'])\n    child.wait(3)", False),
        ("subprocess.Popen(['report']).wait(3)", False),
        ("subprocess.run(['report'], timeout=3)", False),
    ],
)
def test_a_program_that_nobody_waits_for_is_found(does: str, is_found: bool, read: Callable[..., Report]) -> None:
    text = "import subprocess\n\n" + FLASK + f"@app.get('/')\ndef index():\n    {does}\n    return ''\n"

    assert [one.rule for one in read(text).findings] == ["thread-per-request"] * is_found
