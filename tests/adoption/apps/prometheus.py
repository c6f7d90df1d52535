"""prometheus_client in multiprocess mode: one counter over all workers."""

import os
import tempfile

os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", tempfile.mkdtemp(prefix="adoption-"))

from flask import Flask  # noqa: E402
from prometheus_client import CollectorRegistry, Counter, generate_latest  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector  # noqa: E402

app = Flask(__name__)
sold = Counter("shop_sold", "Things sold", ["thing"])


@app.post("/sell/<thing>")
def sell(thing):
    sold.labels(thing).inc()
    return {"sold": thing}


@app.get("/metrics")
def metrics():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return generate_latest(registry), 200, {"Content-Type": "text/plain"}
