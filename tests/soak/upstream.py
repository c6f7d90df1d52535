"""An upstream that answers with the path it was asked for; now and then late, badly or not at all."""

import random
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        chance = random.random()
        if chance < 0.02:
            time.sleep(3)
        elif chance < 0.2:
            time.sleep(0.05)
        if 0.90 < chance < 0.92:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        body = self.path[1:].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body) + (5 if 0.92 < chance < 0.93 else 0)))
        if 0.93 < chance < 0.96:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)
        if 0.92 < chance < 0.93:
            self.close_connection = True  # five bytes short
        if 0.96 < chance < 0.97:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nextra!")  # that nobody asked for

    def log_message(self, *args: Any) -> None:
        pass


class Upstream(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 200

    def handle_error(self, *args: Any) -> None:
        pass  # whoever asked has left


def start() -> str:
    """Its URL."""
    server = Upstream(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
