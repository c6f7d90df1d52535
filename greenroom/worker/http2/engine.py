"""The h2 library, with gunicorn's settings for HTTP/2, and an end that lets streams finish.

h2 decides what is allowed: each head, each frame of data and each end goes through its state machines. Left out is what
it works out again though nothing has changed, and the objects that it makes of each frame:

    a head that came    is checked once, as long as the block that it was in means the same (see compression)
    what is sent        is written as bytes. Checked by the response already, it is checked no more
"""

import struct
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from h2.connection import ConnectionInputs
from h2.stream import H2Stream, StreamInputs

from .compression import Decoder, Encoder, Fields
from .frames import CONTINUATION, DATA, END_STREAM, HEADERS

# GOAWAY without an error, for streams up to the last there can be: "open no more" (RFC 9113 6.8). h2's own would not
# let anything be sent any more.
GOING_AWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">II", 2**31 - 1, 0)
END_HEADERS = 4
# Names and values come as bytes; what we send was checked by the response already.
CONFIG = h2.config.H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)


class EngineStream(H2Stream):
    """One stream's state.

    Private to h2: `_process_received_headers`, which checks a head and makes of it what the application gets. Only what
    has passed is remembered.
    """

    def _process_received_headers(self, headers: Any, header_validation_flags: Any, header_encoding: Any) -> Any:
        if type(headers) is not Fields:
            return super()._process_received_headers(headers, header_validation_flags, header_encoding)
        checked = headers.checked.get(header_validation_flags)
        if checked is None:
            checked = list(super()._process_received_headers(headers, header_validation_flags, header_encoding))
            headers.checked[header_validation_flags] = checked
        return checked


class Engine(h2.connection.H2Connection):
    """One connection's state. A client that says goodbye in peace still gets its answers (RFC 9113 6.8).

    Private to h2: `_receive_goaway_frame`, `_begin_new_stream`, `_data_to_send`. A test holds them fast, and compares
    what is written with what h2 writes.
    """

    has_said_goodbye = False  # the client has

    def __init__(self, cfg: Any) -> None:
        super().__init__(config=CONFIG)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_header_list_size = self.DEFAULT_MAX_HEADER_LIST_SIZE
        codes = h2.settings.SettingCodes
        told: dict[h2.settings.SettingCodes | int, int] = {
            codes.MAX_CONCURRENT_STREAMS: cfg.http2_max_concurrent_streams,
            codes.INITIAL_WINDOW_SIZE: cfg.http2_initial_window_size,
            codes.MAX_FRAME_SIZE: cfg.http2_max_frame_size,
        }
        if cfg.http2_max_header_list_size:
            told[codes.MAX_HEADER_LIST_SIZE] = cfg.http2_max_header_list_size
        self.update_settings(told)

    def _receive_goaway_frame(self, frame: Any) -> Any:
        if frame.error_code == h2.errors.ErrorCodes.NO_ERROR:
            self.has_said_goodbye = True
            return [], []
        return super()._receive_goaway_frame(frame)

    def _begin_new_stream(self, stream_id: int, allowed_ids: Any) -> H2Stream:
        stream = super()._begin_new_stream(stream_id, allowed_ids)
        stream.__class__ = EngineStream
        return stream

    def respond(self, stream_id: int, fields: list[tuple[bytes, bytes]], *, ends: bool) -> None:
        """Send a head, or trailers, as `send_headers` does. Raises ProtocolError, KeyError."""
        stream = self.streams[stream_id]
        self.state_machine.process_input(ConnectionInputs.SEND_HEADERS)
        machine = stream.state_machine
        if fields[0][0] == b":status" and fields[0][1][:1] == b"1":
            if ends:
                raise h2.exceptions.ProtocolError("an informational response does not end a stream")
            machine.process_input(StreamInputs.SEND_INFORMATIONAL_HEADERS)
        else:
            machine.process_input(StreamInputs.SEND_HEADERS)
        # After that: what has been encoded has changed the client's table, and has to be sent.
        block = self.encoder.encode(fields)
        if ends:
            machine.process_input(StreamInputs.SEND_END_STREAM)
        elif machine.trailers_sent:
            raise h2.exceptions.ProtocolError("trailers end a stream")
        most = self.max_outbound_frame_size
        kind, flags = HEADERS, END_STREAM if ends else 0
        while len(block) > most:
            self._data_to_send += frame(kind, flags, stream_id, block[:most])
            block, kind, flags = block[most:], CONTINUATION, 0
        self._data_to_send += frame(kind, flags | END_HEADERS, stream_id, block)

    def respond_data(self, stream_id: int, data: bytes, *, ends: bool) -> None:
        """Send data, as `send_data` does; it must have room. Raises ProtocolError, KeyError."""
        size = len(data)
        if size and size > min(self.local_flow_control_window(stream_id), self.max_outbound_frame_size):
            self.send_data(stream_id, data, end_stream=ends)  # which says why it can't
            return
        stream = self.streams[stream_id]
        self.state_machine.process_input(ConnectionInputs.SEND_DATA)
        stream.state_machine.process_input(StreamInputs.SEND_DATA)
        if ends:
            stream.state_machine.process_input(StreamInputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        self._data_to_send += frame(DATA, END_STREAM if ends else 0, stream_id, data)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    return b"%b%c%c%b%b" % (len(payload).to_bytes(3, "big"), kind, flags, stream_id.to_bytes(4, "big"), payload)
