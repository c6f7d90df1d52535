"""The application's own names: classes made of threads, helpers that pass keywords on, what pip put beside them."""

from collections.abc import Callable
from pathlib import Path

from greenroom.doctor.examination import Report
from greenroom.doctor.reading import lazy_imports
from greenroom.doctor.reading.project import Project
from greenroom.doctor.reading.sources import Sources

FLASK = "from flask import Flask, request\n\napp = Flask(__name__)\n\n\n"


def lines(report: Report, rule: str) -> list[tuple[str, int]]:
    return [(one.file, one.line) for one in report.findings if one.rule == rule]


def test_a_class_made_of_a_thread_is_a_thread(read: Callable[..., Report]) -> None:
    report = read(
        FLASK + "from letters import Express\n\n\n@app.get('/order')\ndef order():\n"
        "    letter = Express('owner')\n    letter.start()\n    return 'ordered'\n",
        **{
            "letters.py": "from threading import Thread\n\n\nclass Letter(Thread):\n    def __init__(self, to):\n"
            "        super().__init__()\n        self.to = to\n\n\nclass Express(Letter):\n    pass\n"
        },
    )

    assert lines(report, "thread-per-request") == [("shop.py", 11)]


def test_a_class_made_of_a_thread_that_is_joined_is_bounded(read: Callable[..., Report]) -> None:
    report = read(
        FLASK
        + "import threading\n\n\nclass Letter(threading.Thread):\n    pass\n\n\n@app.get('/order')\ndef order():\n"
        "    letter = Letter()\n    letter.start()\n    letter.join(2)\n    return 'ordered'\n"
    )

    assert report.findings == []


def fetching(helper: str, call: str) -> str:
    return (
        f"import requests\n\n{FLASK}def fetch(path, **options):\n    {helper}\n\n\n"
        f"@app.get('/')\ndef index():\n    return {call}.text\n"
    )


def test_a_helper_that_passes_keywords_on_has_no_timeout_when_no_call_of_it_has(read: Callable[..., Report]) -> None:
    report = read(fetching("return requests.get('http://example.com' + path, **options)", "fetch('/', headers={})"))

    assert lines(report, "no-timeout") == [("shop.py", 9)]


def test_a_helper_that_passes_keywords_on_is_bounded_by_its_calls(read: Callable[..., Report]) -> None:
    helper = "return requests.get('http://example.com' + path, **options)"
    for text in (
        fetching(helper, "fetch('/', timeout=3)"),
        fetching(helper, "fetch('/', **{'timeout': 3})"),
        fetching(f"options.setdefault('timeout', 3); {helper}", "fetch('/')"),
        fetching(helper, "partial(fetch, timeout=3)('/')").replace(
            "import requests", "import requests; from functools import partial"
        ),
    ):
        assert lines(read(text), "no-timeout") == []


def test_packages_that_pip_put_beside_the_application_are_not_read_as_its_own(read: Callable[..., Report]) -> None:
    report = read(
        FLASK + "import wanted\n\n\n@app.get('/')\ndef index():\n    return wanted.fetch()\n",
        **{
            "wanted/__init__.py": "import requests\n\n\ndef fetch():\n    return requests.get('http://a').text\n",
            "wanted-1.0.dist-info/RECORD": "wanted/__init__.py,sha256=x,9\nwanted-1.0.dist-info/RECORD,,\n",
        },
    )

    assert report.findings == []


def test_what_pip_put_there_is_not_own_when_the_import_shows_it(tmp_path: Path) -> None:
    for name in ("wanted/__init__.py", "wanted/deep/part.py", "alone.py", "own/__init__.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "wanted-1.0.dist-info").mkdir()
    (tmp_path / "wanted-1.0.dist-info" / "RECORD").write_text("wanted/__init__.py,,\nalone.py,,\n")
    sources = Sources(tmp_path, [], tmp_path)

    def is_read(name: str, module: str) -> bool:
        return sources.read_imported(tmp_path / name, module) is not None

    assert not is_read("wanted/__init__.py", "wanted")
    assert not is_read("wanted/deep/part.py", "wanted.deep.part")
    assert not is_read("alone.py", "alone")
    assert is_read("own/__init__.py", "own")


def test_a_module_that_set_up_imports_on_the_same_condition_is_no_import_in_a_request(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(
        "from flask import Flask\n\nimport jobs\n\n\ndef create_app():\n    app = Flask(__name__)\n"
        "    jobs.init_app(app)\n    app.add_url_rule('/', view_func=index)\n    return app\n\n\n"
        "def index():\n    import tables\n\n    jobs.send()\n    return 'ok'\n"
    )
    (tmp_path / "jobs.py").write_text(
        "def init_app(app):\n    if app.config.get('CELERY'):\n        import celery_jobs\n\n"
        "        celery_jobs.start(app)\n\n\n"
        "def send():\n    if True:\n        import celery_jobs\n\n        celery_jobs.send()\n"
    )
    (tmp_path / "celery_jobs.py").write_text("")
    (tmp_path / "tables.py").write_text("")
    sources = Sources(tmp_path, [], tmp_path)
    sources.follow("shop")

    assert lazy_imports.names(Project(sources, "create_app")) == ["tables"]


def test_a_program_for_which_greenroom_waits_in_the_loop_is_a_note(read: Callable[..., Report]) -> None:
    report = read(
        FLASK + "import os\nimport pty\n\n\n@app.get('/')\ndef index():\n    os.system('convert')\n"
        "    pty.spawn('convert')\n    return 'ok'\n"
    )

    assert [(one.rule, one.line, one.level) for one in report.findings] == [
        ("stops-loop", 13, "error"),
        ("stops-loop", 12, "note"),
    ]
