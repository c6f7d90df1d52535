"""Code that looks like a finding and is none: a person who knows gevent would laugh at these."""

from collections.abc import Callable
from pathlib import Path

import pytest

from greenroom.doctor.examination import Examination, Options, Report

FLASK = "from flask import Flask, request\n\napp = Flask(__name__)\n\n\n"
CASES = {
    "what Greenroom makes harmless: a session for each request, and a body that an async view reads": """
import requests


@app.get("/weather")
def weather():
    with requests.Session() as session:
        return session.get("http://127.0.0.1:9/", timeout=2).text


@app.post("/events")
async def events():
    return {"count": len(request.get_json())}
""",
    "a container of an object that one request makes": """
class Plan:
    def __init__(self):
        self.steps = []

    def add(self, step):
        self.steps.append(step)


@app.get("/plan")
def plan():
    made = Plan()
    made.add("one")
    return made.steps
""",
    "a lock round what is prepared once": """
import threading
import time

lock = threading.Lock()
state = type("State", (), {"is_ready": False})()


def prepare():
    with lock:
        time.sleep(0.1)
    state.is_ready = True


@app.get("/")
def index():
    if not state.is_ready:
        prepare()
    return "ok"
""",
    "a session whose adapter bounds all calls": """
import requests
from requests.adapters import HTTPAdapter


class Bounded(HTTPAdapter):
    def send(self, *args, **kwargs):
        kwargs["timeout"] = kwargs.get("timeout") or 3
        return super().send(*args, **kwargs)


session = requests.Session()
session.mount("https://", Bounded())


@app.get("/")
def index():
    return session.get("https://example.com").text
""",
    "a timeout among other options": """
import requests

OPTIONS = {"timeout": 3, "verify": True}


@app.get("/")
def index():
    return requests.get("https://example.com", **OPTIONS).text
""",
    "a session with somebody's own login": """
import requests


@app.get("/")
def index():
    session = requests.Session()
    session.auth = (request.args["user"], request.args["word"])
    return session.get("https://example.com", timeout=3).text
""",
    "a path that is made absolute": """
from pathlib import Path

HERE = Path("data").resolve()


@app.get("/")
def index():
    return (HERE / "prices.json").read_text()
""",
    "a loop with a bound": """
import requests


@app.get("/")
def index():
    attempts = 0
    while True:
        try:
            return requests.get("https://example.com", timeout=1).text
        except requests.RequestException:
            attempts += 1
            if attempts > 3:
                raise
""",
    "a dictionary that start-up fills": """
HANDLERS = {}


def handles(name):
    def register(function):
        HANDLERS[name] = function
        return function

    return register


@handles("a")
def first():
    return "a"


@app.get("/<name>")
def index(name):
    return HANDLERS[name]()
""",
    "a commit before the call": """
import requests
from flask_sqlalchemy import SQLAlchemy

db = SQLAlchemy(app, engine_options={"pool_size": 20, "max_overflow": 0})


@app.get("/")
def index():
    found = db.session.execute(db.text("SELECT 1")).scalar()
    db.session.commit()
    return requests.get(f"https://example.com/{found}", timeout=2).text
""",
    "a command that sleeps, exits and forks": """
import sys
import time


@app.cli.command("wait")
def wait():
    time.sleep(5)
    sys.exit(1)


@app.get("/")
def index():
    return "ok"
""",
    "a file that is run by itself": """
import time


@app.get("/")
def index():
    return "ok"


if __name__ == "__main__":
    time.sleep(1)
    app.run(debug=True)
""",
    "a timeout that is None until somebody says it, and all do": """
import requests


def fetch(path, timeout=None):
    return requests.get(f"http://127.0.0.1:9{path}", timeout=timeout)


def patient(path, timeout=None):
    timeout = timeout or 3
    return requests.get(f"http://127.0.0.1:9{path}", timeout=timeout)


@app.get("/")
def index():
    return fetch("/a", timeout=2).text + fetch("/b", 3).text + patient("/c").text
""",
    "a lock in a decorator of what does not wait": """
import functools
import threading

lock = threading.Lock()


def exclusive(function):
    @functools.wraps(function)
    def inner(*args):
        with lock:
            return function(*args)

    return inner


@exclusive
def total():
    return sum(range(10))


@app.get("/")
def index():
    return str(total())
""",
    "an attribute of the application that is the same for all": """
@app.before_request
def prepare():
    app.is_ready = True


@app.get("/")
def index():
    return "ok"
""",
    "asking again with a bound, or in a stream": """
import time

import requests


@app.get("/built")
def built():
    deadline = time.monotonic() + 5
    while True:
        state = requests.get("http://127.0.0.1:9/", timeout=1).text
        if state == "done" or time.monotonic() > deadline:
            return state
        time.sleep(0.2)


@app.get("/events")
def events():
    def stream():
        while True:
            yield "data: 1\\n\\n"
            time.sleep(1)

    return app.response_class(stream(), mimetype="text/event-stream")
""",
    "an executor that ends with the request": """
from concurrent.futures import ThreadPoolExecutor


def double(number):
    return 2 * number


@app.get("/")
def index():
    with ThreadPoolExecutor(max_workers=4) as pool:
        return list(pool.map(double, range(3)))
""",
    "a registry that decorators fill": """
STEPS = {}


def step(name):
    def wrapper(view):
        STEPS[name] = view

        def inner(*args):
            return view(*args)

        return inner

    return wrapper


def adapter(model):
    def inner(cls):
        STEPS[model] = cls
        return cls

    return inner


@app.get("/")
@step("first")
def index():
    adapter = STEPS.get("first")
    return adapter and "ok" or "none"
""",
    "errors that a form begins anew": """
class Field:
    def __init__(self):
        self.errors = {}

    def parse(self, data):
        self.errors = {}
        for name in data:
            self.errors[name] = "wrong"
        return self.errors


field = Field()


@app.post("/")
def index():
    return field.parse(request.form)
""",
    "a class's constant that its constructor completes": """
class Select:
    CHOICES = {"day": [1, 2]}

    def __init__(self, years=(1, 2)):
        self.CHOICES["year"] = list(years)


@app.get("/")
def index():
    return Select((3, 4)).CHOICES
""",
    "a URL in an example, and somebody's file": """
import sqlite3

from sqlalchemy import create_engine


def field(default, examples=(), help=""):
    return default


URL = field("", examples=["sqlite:///shop.db", "postgresql://user@host/shop"], help="mysql://host/shop")


def layers(file):
    with sqlite3.connect(file.name) as connection:
        return connection.execute("SELECT 1").fetchone()


@app.post("/layers")
def show():
    return list(layers(request.files["file"]))
""",
    "a register that is filled with the class, and asked with its name": """
class Kinds:
    def __init__(self, known):
        self.registered = {}
        for key, kind in known.items():
            self.register(key, kind)

    def register(self, key, kind):
        self.registered[key] = kind

    def validate(self, values):
        super(Kinds, self).validate(values)
        return isinstance(values, Kinds) or all(key in self.registered for key in values)


kinds = Kinds({"a": int})


@app.post("/")
def index():
    return {"right": kinds.validate(request.json)}
""",
    "a method of the same name in another family of classes": """
import requests
from flask.views import MethodView


class Found:
    def first(self, key):
        return self.get(key)


found = Found()


class Captcha(MethodView):
    def get(self):
        return requests.get("http://captcha/", timeout=3).text


@app.get("/")
def index():
    row = Row.query.get(1)
    return found.first(row.name)
""",
    "a thread that ends itself": """
import sys
import threading


def reap():
    sys.exit()


@app.post("/")
def index():
    timer = threading.Timer(1, reap)
    timer.start()
    timer.join()
    return "ok"
""",
    "a folder that is joined to another": """
import os


class Store:
    TEMPORARY_DIR = "temporary"

    def __init__(self, base):
        self.folder = os.path.join(base, self.TEMPORARY_DIR)
""",
    "containers that the constructor fills": """
class Router:
    def __init__(self, handlers):
        self.paths = []
        self.found = {}
        for key, handler in handlers.items():
            self.paths.append(key)
            self.found[key] = handler(self)


router = Router({})


@app.get("/")
def index():
    router.__init__({})
    return "ok"
""",
    "a decorator that keeps what it is put on": """
class Loaders:
    def __init__(self):
        self.loaders = []

    def loader(self, function):
        self.loaders.append(function)
        return function


loaders = Loaders()


@app.get("/")
def index():
    return str(loaders.loader(len))
""",
    "a code that is called after a folder": """
class Refused(Exception):
    INVALID_DIRECTORY = "invalid_directory"
""",
    "a path that is made of itself": """
import os

path = os.environ["BASE"]
path = os.path.join(path, "pages")


@app.get("/")
def index():
    with open(path) as file:
        return file.read()
""",
    "an upstream after a document of MongoEngine": """
import requests


@app.get("/")
def index():
    one = Page.objects.get_or_404(id=1)
    return requests.get(one.url, timeout=3).text
""",
    "thread-local state": """
import threading

local = threading.local()


@app.get("/")
def index():
    local.user = request.args.get("user")
    return local.user or ""
""",
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_nothing_is_found(text: str, read: Callable[..., Report]) -> None:
    report = read(FLASK + text)

    assert [(one.rule, one.line, one.says) for one in report.findings if one.level != "note"] == []


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
