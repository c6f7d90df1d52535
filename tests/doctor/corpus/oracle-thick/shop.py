"""Thick mode, where thin would do."""

import importlib.util

from flask import Flask

app = Flask(__name__)

if importlib.util.find_spec("oracledb") is not None:
    import oracledb

    oracledb.init_oracle_client()  # <- driver-cannot-wait


@app.get("/")
def index():
    return "shop"
