"""The reference application's fetcher under whatever server: 127.0.0.1 stands for a public address, and nothing else.

`changes.test` is 127.0.0.1 when it is looked up for the first time, and 127.0.0.2 from then on.
"""

import itertools
import socket
from typing import Any

import requests
from flask import Flask, request

from app import lanes
from app.upstream import Fetcher, Target

app = Flask(__name__)
really_look_up, really_public = socket.getaddrinfo, lanes.is_public
changes = itertools.chain(["127.0.0.1"], itertools.repeat("127.0.0.2"))


def look_up(host: Any, *args: Any, **kwargs: Any) -> Any:
    is_changing = host in ("changes.test", b"changes.test")
    return really_look_up(next(changes) if is_changing else host, *args, **kwargs)


socket.getaddrinfo = look_up
lanes.is_public = lambda address: address == "127.0.0.1" or really_public(address)
fetcher = Fetcher(allow_private=False, response_bytes=1000, redirects=3, budget_ms=20_000)


@app.get("/")
def ready() -> str:
    return "ready"


@app.get("/fetch")
def fetch() -> dict[str, Any]:
    """The sources `url`, each under its own name, all at once."""
    targets = [Target(url, url, int(request.args.get("timeout_ms", 10_000))) for url in request.args.getlist("url")]
    return {outcome.name: outcome.as_dict() for outcome in fetcher.fetch_all(targets)}


@app.get("/unchecked")
def unchecked() -> str:
    """Act as another part of an application: keep a connection to an address that no source may name."""
    return requests.get(request.args["url"], timeout=20).text


@app.get("/pools")
def pools() -> dict[str, int]:
    """How many kept lanes have a pool of their own, made by requests."""
    adapters = [lane.session.get_adapter("http://") for lane in fetcher.lanes._kept]
    return {"kept": len(adapters), "own": sum("poolmanager" in vars(adapter) for adapter in adapters)}
