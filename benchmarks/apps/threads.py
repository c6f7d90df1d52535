"""One Flask route with twenty jobs that end at once in a ThreadPoolExecutor of its own: nothing but its threads."""

from concurrent.futures import ThreadPoolExecutor

from flask import Flask

JOBS = 20
app = Flask(__name__)


@app.get("/")
def threads() -> dict[str, int]:
    with ThreadPoolExecutor(JOBS) as pool:
        return {"jobs": sum(pool.map(bool, range(1, JOBS + 1)))}
