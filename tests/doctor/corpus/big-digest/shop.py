"""C code that gives the GIL away, and still is not somewhere else."""

import zlib

from flask import Flask

app = Flask(__name__)
CONTENT = bytes(range(256)) * 60_000


@app.get("/archive")
def archive():
    packed = zlib.compress(CONTENT, 9)  # <- stops-loop
    return {"bytes": len(packed)}
