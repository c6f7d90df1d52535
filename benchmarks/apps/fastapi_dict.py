"""One FastAPI route that returns a dict."""

from typing import Any

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello() -> dict[str, Any]:
    return {"message": "hello", "numbers": [1, 2, 3]}
