"""Code that looks like a finding and is none: a person who knows gevent would laugh at these."""

from collections.abc import Callable

import pytest

from greenroom.doctor.examination import Report

from .conftest import FLASK

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
}


@pytest.mark.parametrize("text", CASES.values(), ids=CASES)
def test_nothing_is_found(text: str, read: Callable[..., Report]) -> None:
    report = read(FLASK + text)

    assert [(one.rule, one.line, one.says) for one in report.findings if one.level != "note"] == []
