"""Registries, forms, documents, paths and threads that look like a finding and are none."""

from collections.abc import Callable

import pytest

from greenroom.doctor.examination import Report

from .conftest import FLASK

CASES = {
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
