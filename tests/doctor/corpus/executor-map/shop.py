import time
from concurrent.futures import ThreadPoolExecutor

from flask import Flask

app = Flask(__name__)
pool = ThreadPoolExecutor(2)  # <- executor-full


def fetch(n):
    time.sleep(0.02)
    return n


@app.get("/x")
def x():
    return str(list(pool.map(fetch, range(4))))
