"""TLS of the standard library in a patched process: where gevent's differs from CPython's, it is CPython's."""

from .patched import check

SERVER = """
import socket, ssl
certificate, key = {certificate!r}
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
listener = socket.create_server(("127.0.0.1", 0))
names = []
context.sni_callback = lambda sock, name, context: names.append(name)
accepted = []

def serve():
    "Shakes hands, and reads nothing."
    while True:
        sock, _ = listener.accept()
        accepted.append(context.wrap_socket(sock, server_side=True))

gevent.spawn(serve)
"""


def test_a_socket_that_does_not_block_says_when_nothing_more_can_be_sent(certificate: tuple[str, str]) -> None:
    check(
        SERVER.format(certificate=certificate)
        + """
client = ssl.create_default_context(cafile=certificate)
for call in ("send", "sendall"):
    sock = client.wrap_socket(socket.create_connection(listener.getsockname()), server_hostname="localhost")
    sock.setblocking(False)
    try:
        for _ in range(10_000):
            getattr(sock, call)(b"x" * 8192)
    except ssl.SSLWantWriteError:
        sock.close()
    else:
        raise AssertionError(call)
"""
    )


def test_the_certificate_of_a_server_is_asked_for_by_name_and_in_time(certificate: tuple[str, str]) -> None:
    check(
        SERVER.format(certificate=certificate)
        + """
address = ("localhost", listener.getsockname()[1])
assert ssl.get_server_certificate(address, timeout=20).strip() in open(certificate).read()
assert names == ["localhost"], names
silent = socket.create_server(("127.0.0.1", 0))
turns = []
gevent.spawn_later(0.01, turns.append, 1)
try:
    ssl.get_server_certificate(silent.getsockname(), timeout=0.1)
except TimeoutError:
    assert turns
else:
    raise AssertionError
"""
    )
