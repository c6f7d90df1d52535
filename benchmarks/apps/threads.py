"""Flask with twenty jobs in a ThreadPoolExecutor of the request's own: `app`, whose jobs end at once, and `waiting`,
whose jobs wait at an event until the view has started all of them. Nothing but threads."""

from concurrent.futures import ThreadPoolExecutor
from threading import Event

from flask import Flask

JOBS = 20
app = Flask(__name__)
waiting = Flask(__name__)


@app.get("/")
def end_at_once() -> dict[str, int]:
    with ThreadPoolExecutor(JOBS) as pool:
        return {"jobs": sum(pool.map(bool, range(1, JOBS + 1)))}


@waiting.get("/")
def wait() -> dict[str, int]:
    all_started = Event()
    with ThreadPoolExecutor(JOBS) as pool:
        jobs = [pool.submit(all_started.wait) for _ in range(JOBS)]
        all_started.set()
        return {"jobs": sum(job.result() for job in jobs)}
