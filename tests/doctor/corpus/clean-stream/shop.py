"""An answer in pieces, an async view, a program with a timeout."""

import asyncio
import subprocess
import sys
import time

from flask import Flask, Response

app = Flask(__name__)


@app.get("/lines")
def lines():
    def each():
        for number in range(5):
            time.sleep(0.002)
            yield f"{number}\n"

    return Response(each(), mimetype="text/plain")


@app.get("/async")
async def waits():
    await asyncio.sleep(0.01)
    return {"ok": True}


@app.post("/run")
def program():
    subprocess.run([sys.executable, "-c", ""], timeout=5, check=False)
    return "", 204
