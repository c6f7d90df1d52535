"""The h2 library, with gunicorn's settings for HTTP/2, and an end that lets streams finish."""

import struct
from typing import Any

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

from .compression import Decoder, Encoder

# GOAWAY without an error, for streams up to the last there can be: "open no more" (RFC 9113 6.8). h2's own would not
# let anything be sent any more.
GOING_AWAY = b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + struct.pack(">II", 2**31 - 1, 0)
# Names and values come as bytes; what we send was checked by the response already.
CONFIG = h2.config.H2Configuration(
    client_side=False, header_encoding=None, validate_outbound_headers=False, normalize_outbound_headers=False
)


class Engine(h2.connection.H2Connection):
    """One connection's state. A client that says goodbye in peace still gets its answers (RFC 9113 6.8).

    Private to h2: `_receive_goaway_frame`. A test holds it fast.
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
