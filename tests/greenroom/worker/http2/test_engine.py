"""The engine does what h2 does: the same bytes, the same events, the same refusals."""

from types import SimpleNamespace
from typing import Any

import h2.connection
import h2.events
import pytest
from h2.config import H2Configuration
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from greenroom.worker.http2.engine import CONFIG, Engine, EngineStream

from ..fuzz import examples

LIMITS = SimpleNamespace(
    http2_max_concurrent_streams=100,
    http2_initial_window_size=65_535,
    http2_max_frame_size=16_384,
    http2_max_header_list_size=65_536,
)
ASK = [(":method", "GET"), (":scheme", "https"), (":authority", "x"), (":path", "/"), ("user-agent", "a test")]
HEADS = {
    "200": [(b":status", b"200"), (b"server", b"gunicorn"), (b"content-length", b"5")],
    "204": [(b":status", b"204")],
    "103": [(b":status", b"103"), (b"link", b"</a>; rel=preload")],
    "long": [(b":status", b"200"), (b"x-long", b"a" * 40_000)],
    "trailers": [(b"grpc-status", b"0")],
}


class ByH2:
    """The engine if it left all writing to h2."""

    def __init__(self) -> None:
        self.engine = Engine(LIMITS)

    def head(self, stream_id: int, name: str, ends: bool) -> None:
        self.engine.send_headers(stream_id, HEADS[name], end_stream=ends)

    def data(self, stream_id: int, size: int, ends: bool) -> None:
        self.engine.send_data(stream_id, bytes(size), end_stream=ends)


class ByOurs(ByH2):
    def head(self, stream_id: int, name: str, ends: bool) -> None:
        self.engine.respond(stream_id, HEADS[name], ends=ends)

    def data(self, stream_id: int, size: int, ends: bool) -> None:
        self.engine.respond_data(stream_id, bytes(size), ends=ends)


def a_client() -> h2.connection.H2Connection:
    client = h2.connection.H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    return client


def done(work: Any, *arguments: Any) -> str:
    """`ok`, or that it was refused."""
    try:
        work(*arguments)
    except (ProtocolError, KeyError):
        return "refused"
    return "ok"


operations = st.one_of(
    st.tuples(st.just("head"), st.sampled_from([1, 3, 5, 99]), st.sampled_from(sorted(HEADS)), st.booleans()),
    st.tuples(
        st.just("data"), st.sampled_from([1, 3, 5, 99]), st.sampled_from([0, 5, 16_384, 16_385, 40_000]), st.booleans()
    ),
    st.tuples(st.just("reset"), st.sampled_from([1, 3, 5])),
    st.tuples(st.just("window"), st.sampled_from([0, 1, 3])),
)


@given(work=st.lists(operations, max_size=25))
@examples(100)
def test_engine_writes_what_h2_writes(work: list[Any]) -> None:
    client, servers = a_client(), (ByH2(), ByOurs())
    for stream_id in (1, 3, 5):
        client.send_headers(stream_id, ASK, end_stream=stream_id != 3)
    asked = client.data_to_send()
    for server in servers:
        server.engine.initiate_connection()
        server.engine.receive_data(asked)

    for kind, *arguments in work:
        if kind in ("reset", "window"):
            said = (
                done(client.reset_stream, arguments[0], ErrorCodes.CANCEL)
                if kind == "reset"
                else done(client.increment_flow_control_window, 20_000, arguments[0] or None)
            )
            data = client.data_to_send()
            assert said == "refused" or data
            assert len({done(server.engine.receive_data, data) for server in servers}) == 1
        else:
            results = [done(getattr(server, kind), *arguments) for server in servers]
            assert results[0] == results[1], (kind, arguments)
        written = [server.engine.data_to_send() for server in servers]
        assert written[0] == written[1]
        done(client.receive_data, written[1])

    windows = [server.engine.outbound_flow_control_window for server in servers]
    assert windows[0] == windows[1]


LATER_REFUSED = [*ASK, ("x", "a\nb")]  # not by h2 4.1; the parser of heads does
HOSTILE = [
    [*ASK, ("Upper", "a")],
    [*ASK, ("connection", "close")],
    [*ASK, ("te", "gzip")],
    LATER_REFUSED,
    [*ASK, (":path", "/again")],
    [("x", "before"), *ASK],
    [*ASK[:2], ("host", "another"), *ASK[2:]],
    ASK[1:],
]


@pytest.mark.parametrize("fields", HOSTILE)
@pytest.mark.parametrize("before", [0, 2])
def test_head_that_h2_refuses_is_refused_each_time(fields: list[tuple[str, str]], before: int) -> None:
    """Also after good ones, and when it comes again: only what has passed is remembered."""
    results = []
    config = H2Configuration(client_side=True, validate_outbound_headers=False, normalize_outbound_headers=False)
    for server in (Engine(LIMITS), h2.connection.H2Connection(CONFIG)):
        client = h2.connection.H2Connection(config)
        client.initiate_connection()
        for number in range(before):
            client.send_headers(1 + 2 * number, ASK, end_stream=True)
        server.initiate_connection()
        server.receive_data(client.data_to_send())
        client.send_headers(101, fields, end_stream=True)

        results.append(done(server.receive_data, client.data_to_send()))

    assert results[0] == results[1]
    assert results[0] == "refused" or fields == LATER_REFUSED


def test_same_block_is_a_request_the_first_time_and_trailers_the_second() -> None:
    """The meaning of a head depends on where it stands: as trailers the same fields are wrong."""
    client, server = a_client(), Engine(LIMITS)
    client.update_settings({SettingCodes.HEADER_TABLE_SIZE: 0})
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    client.receive_data(server.data_to_send())
    server.receive_data(client.data_to_send())
    block = b"\x82\x87\x84\x01\x01x"  # GET https://x/, nothing of it for the table

    def head(stream_id: int, flags: int) -> bytes:
        return len(block).to_bytes(3, "big") + bytes((1, flags)) + stream_id.to_bytes(4, "big") + block

    for stream_id in (1, 3, 5):
        (came, *_) = server.receive_data(head(stream_id, 4))
        assert isinstance(came, h2.events.RequestReceived)
        assert [tuple(field) for field in came.headers] == [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/"),
            (b":authority", b"x"),
        ]
    with pytest.raises(ProtocolError):
        server.receive_data(head(5, 5))


def test_streams_are_ours_however_they_began() -> None:
    """Private to h2: how it makes its streams. Else each head would be checked each time."""
    client, server = a_client(), Engine(LIMITS)
    client.send_headers(1, ASK, end_stream=True)
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    upgraded = Engine(LIMITS)
    upgraded.initiate_upgrade_connection(b"")

    assert type(server.streams[1]) is type(upgraded.streams[1]) is EngineStream
    assert isinstance(server._data_to_send, bytes | bytearray)
