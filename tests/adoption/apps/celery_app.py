"""Celery: a view that sends a task and waits for its result, over Redis; a worker beside the server."""

import os

from celery import Celery, group
from flask import Flask

celery = Celery("celery_app", broker=os.environ["ADOPTION_REDIS"], backend=os.environ["ADOPTION_REDIS"])
celery.conf.broker_connection_retry_on_startup = True
app = Flask(__name__)


@celery.task(name="add")
def add(x, y):
    return x + y


@celery.task(name="fail")
def fail():
    raise ValueError("asked for it")


@app.get("/add/<int:x>/<int:y>")
def view(x, y):
    return {"sum": add.delay(x, y).get(timeout=30)}


@app.get("/group/<int:count>")
def many(count):
    return {"sums": group(add.s(number, number) for number in range(count))().get(timeout=30)}


@app.get("/fail")
def failure():
    try:
        fail.delay().get(timeout=30)
    except ValueError as exc:
        return {"failed": str(exc)}
    return {}
