"""Celery: a view that sends a task and waits for its result, over Redis; a worker beside the server."""

import os

from celery import Celery
from flask import Flask

celery = Celery("celery_app", broker=os.environ["ADOPTION_REDIS"], backend=os.environ["ADOPTION_REDIS"])
celery.conf.broker_connection_retry_on_startup = True
app = Flask(__name__)


@celery.task(name="add")
def add(x, y):
    return x + y


@app.get("/add/<int:x>/<int:y>")
def view(x, y):
    return {"sum": add.delay(x, y).get(timeout=30)}
