"""Four threads for all requests of a worker."""

import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask

app = Flask(__name__)
executor = ThreadPoolExecutor(max_workers=4)  # <- executor-full


def fetch(name):
    time.sleep(0.05)
    return name


@app.get("/all")
def everything():
    futures = [executor.submit(fetch, name) for name in ("a", "b", "c")]
    return {"found": [future.result() for future in futures]}
