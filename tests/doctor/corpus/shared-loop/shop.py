"""One asyncio loop for all requests."""

import asyncio

from flask import Flask

app = Flask(__name__)
loop = asyncio.new_event_loop()


async def fetch():
    await asyncio.sleep(0.02)
    return {"ok": True}


@app.get("/fetch")
def show():
    return loop.run_until_complete(fetch())  # <- shared-event-loop
