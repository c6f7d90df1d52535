"""Installed by patching, in a process of its own each time: what is replaced stays replaced."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]


def run(code: str) -> None:
    begin = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom greenroom import patching\n"
    begin += "from greenroom.settings import Settings\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", begin + textwrap.dedent(code)], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr


def test_requests_is_not_imported_by_patching_but_ours_as_soon_as_it_is() -> None:
    run("""
        patching.patch(Settings(upstream_connections=7, upstream_idle_seconds=9))
        assert "requests" not in sys.modules
        assert "greenroom.waits.http.adapter" not in sys.modules
        import requests
        from greenroom.waits.http import install
        assert install.is_installed()
        before = requests.adapters.HTTPAdapter.send
        patching.patch(Settings())
        assert requests.adapters.HTTPAdapter.send is before
        assert (install._transport.connections, install._transport.idle_seconds) == (7, 9)
    """)


def test_the_bound_of_an_upstream_is_that_of_requests_in_flight() -> None:
    run("""
        patching.patch(Settings(limit_requests=250))
        import requests
        from greenroom.waits.http import install
        assert install._transport.connections == 250
    """)


def test_a_setting_leaves_requests_alone() -> None:
    run("""
        patching.patch(Settings(patch_requests=False))
        import requests
        assert requests.adapters.HTTPAdapter.send.__module__ == "requests.adapters"
        assert "greenroom.waits.http.adapter" not in sys.modules
    """)


def test_patched_greenlets_share_connections_over_http_and_a_child_makes_its_own() -> None:
    run("""
        patching.patch(Settings(upstream_connections=3))
        import os, threading, requests
        from concurrent.futures import ThreadPoolExecutor
        from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
        ports = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                ports.append(self.client_address[1])
                threading.Event().wait(0.01)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://localhost:{server.server_port}/"
        with ThreadPoolExecutor(20) as pool:
            assert list(pool.map(lambda _: requests.get(url, timeout=30).text, range(60))) == ["ok"] * 60
        assert len(set(ports)) <= 3, ports

        from greenroom.waits.http import install
        pid = os.fork()
        if not pid:
            os._exit(0 if install._transport.pools is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert requests.get(url, timeout=30).text == "ok"
        assert len(set(ports)) <= 3, ports
    """)


def test_requests_of_a_version_that_is_not_known_is_left_alone() -> None:
    """Names that we would look for are missing there."""
    run("""
        import logging
        said = []
        handler = logging.Handler()
        handler.emit = said.append
        logging.getLogger("greenroom").addHandler(handler)
        from greenroom import replacements
        real = replacements.registry.installed
        replacements.registry.installed = lambda name: "1.25.11" if name == "urllib3" else real(name)
        patching.patch(Settings())
        import requests
        assert "greenroom.waits.http.adapter" not in sys.modules
        assert requests.adapters.HTTPAdapter.send.__code__.co_filename == requests.adapters.__file__
        assert ["urllib3 1.25.11: unknown to us" in each.getMessage() for each in said] == [True], said
    """)
