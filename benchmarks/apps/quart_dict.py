"""One Quart route that returns a dict."""

from typing import Any

from quart import Quart

app = Quart(__name__)


@app.get("/")
async def hello() -> dict[str, Any]:
    return {"message": "hello", "numbers": [1, 2, 3]}
