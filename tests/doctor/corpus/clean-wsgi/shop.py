"""No framework at all."""

import json
import time


def app(environ, start_response):
    time.sleep(0.001)
    body = json.dumps({"path": environ["PATH_INFO"]}).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
