"""Judgements on a run: no more than was seen."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from greenroom.doctor import executors, first_imports
from greenroom.doctor.answers import differences
from greenroom.doctor.driving import Drive, Seen
from greenroom.doctor.examination import Report
from greenroom.doctor.findings import Finding
from greenroom.doctor.importing import Imported
from greenroom.doctor.inside.importing import _said
from greenroom.doctor.inside.probe import Probe
from greenroom.doctor.judging import Judge
from greenroom.doctor.log import last_error
from greenroom.doctor.plan import Route
from greenroom.doctor.reading import changes, lazy_imports
from greenroom.doctor.reading.project import Project
from greenroom.doctor.reading.sources import Sources
from greenroom.doctor.server import Answer
from greenroom.doctor.versions import untested
from greenroom.in_flight import CURRENT
from greenroom.insight.stacks import UNKNOWN

PROJECT: Any = SimpleNamespace(sources=[SimpleNamespace(shown="shop.py")])


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "what": "git", "line": "shop.py:3", "seconds": 0.0, "count": 1, "stack": [], **more}


def levels(*events: dict[str, Any]) -> list[tuple[str, str]]:
    found = Imported(patched={"events": list(events)}).findings(PROJECT)
    return [(one.rule, one.level) for one in found]


def test_a_thread_that_is_gone_when_the_import_is_over_is_no_finding() -> None:
    assert levels(event("thread", has_ended=True)) == []
    assert levels(event("thread", has_ended=False, by="apscheduler")) == [("thread-at-import", "warning")]
    assert levels(event("thread", has_ended=False, by="pymongo")) == [("thread-at-import", "note")]


@pytest.mark.parametrize(
    ("more", "level"),
    [
        ({"has_ended": True, "by": "sentry_sdk"}, "note"),
        ({"has_ended": True, "by": ""}, "warning"),
        ({"has_ended": False, "by": "sentry_sdk"}, "warning"),
    ],
)
def test_a_program_that_a_package_has_run_and_ended_is_a_note(more: dict[str, Any], level: str) -> None:
    assert levels(event("process", **more)) == [("process-at-import", level)]


def test_an_import_that_others_kept_from_running_is_no_finding() -> None:
    starved = Imported(patched={"hangs": True, "hangs_at": "shop.py:3", "queued": 14.0, "waited": 16.0})
    hanging = Imported(patched={"hangs": True, "hangs_at": "shop.py:3", "queued": 1.0, "waited": 16.0})

    assert list(starved.findings(PROJECT)) == []
    assert starved.why_not.startswith("the machine is too busy: for 14 s")
    assert [(one.rule, one.place) for one in hanging.findings(PROJECT)] == [("import-hangs", "shop.py:3")]
    assert hanging.why_not.startswith("the import did not end within 16 s")


def test_an_exception_is_named_whatever_its_name() -> None:
    output = """
Traceback (most recent call last):
  File "shop.py", line 30, in list_
    return s3.list_objects_v2(Bucket="shop")
           ^^^^^^^^^^^^^^^^^
botocore.errorfactory.NoSuchBucket: An error occurred: it is not there
[2026-11-30 12:00:00 +0000] [7] [INFO] Booting worker
"""

    assert last_error(output, lambda place: place.startswith("shop.py")) == (
        "botocore.errorfactory.NoSuchBucket",
        "shop.py:30",
    )


def test_answers_differ_by_more_than_numbers() -> None:
    ours = [Answer(200, 0.01, b'{"pid": 12, "name": "a"}')] * 2

    assert differences(ours, [Answer(200, 0.01, b'{"pid": 99, "name": "a"}')] * 2) == ""
    assert differences(ours, [Answer(200, 0.01, b'{"name": "b"}')] * 2).startswith("another body")
    assert differences(ours, [Answer(500, 0.01)] * 2) == "status 200, and 500 under sync"


@pytest.mark.parametrize(
    ("imported", "levels"),
    [
        ("from cassandra.cluster import Cluster", ["note"]),
        ("from cassandra.cluster import Cluster\nfrom cassandra.io.libevreactor import LibevConnection", ["error"]),
        ("from cassandra.cluster import Cluster\nfrom cassandra.io.geventreactor import GeventConnection", []),
    ],
)
def test_cassandra_takes_the_right_loop_unless_told_otherwise(
    imported: str, levels: list[str], read: Callable[..., Report]
) -> None:
    report = read(f"{imported}\nfrom flask import Flask\n\napp = Flask(__name__)\n")

    assert [one.level for one in report.findings if one.rule == "driver-cannot-wait"] == levels


def test_a_module_that_is_there_already_is_no_first_import(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "import sys\nfrom flask import Flask\n\napp = Flask(__name__)\n\n\n@app.get('/')\ndef index():\n"
        "    if 'newrelic' in sys.modules:\n        import newrelic.agent\n    import json.tool\n    return 'shop'\n"
    )
    sources = Sources(tmp_path, [], tmp_path)
    sources.follow("shop")

    assert lazy_imports.names(Project(sources, "")) == ["json.tool"]


def test_the_module_that_a_first_request_imports_is_named() -> None:
    stack = [
        "/x/site-packages/kombu/transport/redis.py:30 <module>",
        "<frozen importlib._bootstrap>:241 _call_with_frames_removed",
        "/x/site-packages/kombu/transport/__init__.py:60 <module>",
        "<frozen importlib._bootstrap>:1027 _find_and_load",
        "shop.py:20 view",
    ]

    assert first_imports.module_of(stack, lambda place: place.startswith("shop.py")) == "kombu.transport"


def test_a_module_that_a_library_loads_by_its_name_is_named_where_the_stack_does_not() -> None:
    stack = [
        "<frozen importlib._bootstrap_external>:1073 get_data",
        "/x/celery/utils/imports.py:5 f",
        "shop.py:20 view",
    ]
    stall = {"at": 1.0, "seconds": 0.2, "line": "shop.py:20", "stack": stack}
    imports = [["shop.py:20", "redis", 1], ["shop.py:20", "celery.backends.redis", 7], ["shop.py:9", "json", 9]]
    drive = Drive(routes=[Seen(Route("GET /", "/"), stalls=[stall])], last={"imports": imports})

    (found,) = Judge(PROJECT, []).findings(drive)

    assert (found.rule, found.place, found.level) == ("import-in-request", "shop.py:20", "warning")
    assert found.do == "Import celery.backends.redis at the top of the module."


def test_the_probe_notes_the_module_that_an_own_line_asks_for_and_not_what_that_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = Probe()
    monkeypatch.setattr(sys, "look", lambda: probe.hook("compile", ()), raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lazy_outer.py").write_text("import lazy_inner\n")
    (tmp_path / "lazy_inner.py").write_text("import sys\nsys.look()\n")
    record: Any = object()
    token = CURRENT.set(record)
    try:
        importlib.import_module("lazy_outer")
    finally:
        CURRENT.reset(token)

    ((line, module, count),) = probe.as_dict()["imports"]

    assert (line.rpartition(":")[0], module, count) == ("tests/doctor/test_judgements.py", "lazy_outer", 1)


def test_a_full_executor_is_found_where_it_is_made() -> None:
    binding = SimpleNamespace(source=SimpleNamespace(shown="shop.py"), line=9)
    project: Any = SimpleNamespace(sources=PROJECT.sources, module_values={"shop": {"pool": binding}})
    seen = Seen(Route("GET /work", "/work", "shop.py:17"), at_once=50)
    seen.executors = [
        {"name": "pool of shop.py", "size": 3, "queued": 40},
        {"name": "pool of shop.py", "size": 3, "queued": 47},
    ]

    found = list(executors.full(seen, project, []))

    assert [(one.rule, one.place) for one in found] == [("executor-full", "shop.py:9")]
    assert "47 jobs of 50 requests of GET /work waited for 3 threads" in found[0].says


def test_an_executor_with_a_few_jobs_in_line_is_no_finding() -> None:
    seen = Seen(
        Route("GET /work", "/work"), at_once=50, executors=[{"name": "pool of shop.py", "size": 40, "queued": 10}]
    )

    assert list(executors.full(seen, PROJECT, [])) == []


def test_a_stall_whose_line_nobody_saw_is_where_another_of_its_route_was() -> None:
    seen = Seen(Route("GET /check", "/check", "shop.py:7"), alone=[Answer(200, 0.6)] * 3)
    known = {"at": 1.0, "seconds": 0.6, "line": "shop.py:10", "stack": ["re.py:5 match", "shop.py:10 check"]}
    unseen = [{"at": at, "seconds": 0.6, "line": UNKNOWN, "stack": []} for at in (2.0, 3.0)]

    def told(*stalls: dict[str, Any]) -> list[str]:
        seen.stalls = list(stalls)
        return [one.place for one in Judge(PROJECT, []).stalls(seen)]

    assert told(*unseen, known) == ["shop.py:10"]
    assert told(*unseen) == ["shop.py:7"]
    assert told(unseen[0], known) == [], "once each: the first time something is made"


def test_what_an_import_did_before_the_doctor_kept_it_from_writing_is_no_finding() -> None:
    error = "EmbeddedError: the database can't be used: cannot execute CREATE DATABASE in a read-only transaction"
    imported = Imported(patched={"error": error, "error_place": "shop.py:3", "events": [event("process")]})

    (found,) = imported.findings(PROJECT)

    assert (found.rule, found.place) == ("import-fails", "shop.py:3")
    assert "--allow-writes" in found.do


def test_an_error_at_import_is_told_in_one_line_without_its_statement() -> None:
    said = _said(ValueError("can't be used:\nread only\n\n  Set DATABASE_URL\n[SQL: INSERT INTO users VALUES ('ada')]"))

    assert said == "ValueError: can't be used: read only; Set DATABASE_URL"


def test_a_stall_in_which_nothing_was_computed_is_a_wait_of_the_driver() -> None:
    driver = Finding("driver-cannot-wait", "shop.py", 1, "confluent-kafka waits.", "Leave flush() to a thread.")
    waited = {"at": 1.0, "seconds": 0.3, "cpu_seconds": 0.001, "line": "shop.py:11", "stack": ["shop.py:11 event"]}
    seen = Seen(Route("GET /event", "/event"), alone=[Answer(200, 0.3)] * 2)

    def told(*stalls: dict[str, Any]) -> list[str]:
        seen.stalls = list(stalls)
        return [one.do for one in Judge(PROJECT, [driver]).stalls(seen)]

    assert told(waited, {**waited, "at": 2.0}) == ["Leave flush() to a thread."]
    still = {name: value for name, value in waited.items() if name != "cpu_seconds"}
    assert told({**still, "is_current": True}) == ["Leave flush() to a thread."]
    computed = {**waited, "cpu_seconds": 0.29}
    assert told(computed, {**computed, "at": 2.0})[0].startswith("Compute less")


CRASHED = """\
[ERROR] Worker 7 has ended; its threads were:
Fatal Python error: Segmentation fault

Thread 0x00007fdc85dbe6c0 (most recent call first):
  File "shop.py", line 3 in background

Current thread 0x00007fdc8b9e8b80 (most recent call first):
  File "/x/site-packages/cffi/api.py", line 519 in call
  File "shop.py", line 27 in thumbnail
  File "shop.py", line 40 in view

Extension modules: greenlet._greenlet
"""


def test_a_crash_is_at_the_innermost_line_of_the_thread_that_crashed() -> None:
    seen = Seen(Route("GET /thumb", "/thumb", "shop.py:38"), alone=[Answer(0, 0.1, error="RemoteDisconnected")])
    seen.died, seen.output = True, CRASHED

    (found,) = Judge(PROJECT, []).findings(Drive(routes=[seen]))

    assert (found.rule, found.place) == ("worker-dies", "shop.py:27")
    assert found.says == "The worker ended while it answered GET /thumb: Segmentation fault."


def test_a_connection_that_was_closed_without_an_answer_is_no_hang() -> None:
    seen = Seen(Route("GET /", "/", "shop.py:3"), alone=[Answer(0, 0.0, error="RemoteDisconnected")])

    assert list(Judge(PROJECT, []).findings(Drive(routes=[seen]))) == []


def test_an_import_that_does_otherwise_when_it_is_patched_is_told() -> None:
    connects, sleeps = event("connect", line="shop.py:3"), event("sleep", line="shop.py:4")
    both = Imported(patched={"events": [connects, sleeps], "seconds": 4.0}, plain={"events": [sleeps], "seconds": 1.0})

    assert both.differences() == [
        "Only when it is patched the import does this: connect at shop.py:3.",
        "The patched import takes 4.0 s, and 1.0 s unpatched.",
    ]
    assert Imported(patched={}, plain={"error": "KeyError: 'X'"}).differences() == [
        "Unpatched the import fails: KeyError: 'X'"
    ]
    assert Imported(patched={"error": "KeyError: 'X'"}, plain={"error": "KeyError: 'X'"}).differences() == []


def test_an_untested_version_is_named_where_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("flask-login==1\nflask==9.0\n")

    found = list(
        untested(
            [
                ("Flask", "Flask 9.0: unknown to us (tested: 3)", False),
                ("gevent", "gevent 99: unknown to us, it may not work", True),
            ],
            tmp_path,
        )
    )

    assert [(one.rule, one.level, one.place) for one in found] == [
        ("untested-version", "note", "requirements.txt:2"),
        ("untested-version", "warning", "gevent"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "rule", "line"),
    [
        (
            "Procfile",
            "web: gunicorn -k gevent --threads 8 app:app",
            "threads-with-gevent",
            "web: gunicorn -k gevent app:app",
        ),
        ("Procfile", "web: gunicorn -k sync app:app", "worker-class", "web: gunicorn -k greenroom.Worker app:app"),
        ("Dockerfile", 'CMD ["gunicorn", "-w", "64", "app:app"]', "workers-above-cores", 'CMD ["gunicorn", "app:app"]'),
        (
            "Dockerfile",
            'CMD ["gunicorn", "--worker-class=gthread", "app:app"]',
            "worker-class",
            'CMD ["gunicorn", "--worker-class=greenroom.Worker", "app:app"]',
        ),
        ("gunicorn.conf.py", "preload_app = True", "preload", "preload_app = False"),
        ("gunicorn.conf.py", "threads = 4  # as before", "threads-with-gevent", None),
        ("gunicorn.conf.py", "workers = max(", "workers-above-cores", ""),
    ],
)
def test_a_change_of_a_setting_is_a_diff(name: str, text: str, rule: str, line: str | None, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"{text}\n")

    told = changes.diff(rule, name, 1, tmp_path)

    new = () if line is None else (f"+{line}",)
    assert told == (() if line == "" else (f"--- {name}:1", f"-{text}", *new))
