"""Somebody else's application, in a package with the most common name there is."""

import sys

from flask import Flask

app = Flask(__name__)


@app.get("/")
def index() -> dict[str, object]:
    ours = {name for name in sys.modules if name.partition(".")[0] in ("app", "greenroom")}
    return {"shop": True, "file": __file__, "app_modules": sorted(name for name in ours if name.startswith("app"))}


def create_app() -> Flask:
    return app
