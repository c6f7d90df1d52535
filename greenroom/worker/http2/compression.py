"""HPACK (RFC 7541) for a server that says and hears nearly the same again and again; hpack's own works out each anew.

Decoder    a block that changed nothing in the client's table means the same when it comes again
Encoder    what repeats goes into the table until that is full, what does not (dates, ids, cookies) never does. So an
           entry's place is a subtraction, and nothing is ever evicted. Plain strings: Huffman's code would save a
           fifth of the bytes of what does not repeat, and cost more than all the rest
"""

from collections.abc import Iterable
from typing import Any

import hpack
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

MOST_BLOCKS = 16
LONGEST_BLOCK_BYTES = 1_000
SIZE_UPDATE = 0x20
TABLE_BYTES = 4_096  # what every client allows for until it says something else
ENTRY_BYTES = 32
MOST_ENTRIES = 64  # so each index is one byte
FIRST_INDEX = 62
# Fields that differ from answer to answer.
VARYING = frozenset(
    b"content-length content-range date etag expires last-modified location server-timing x-request-id".split()
)
SECRET = frozenset((b"set-cookie", b"authorization"))  # not to be remembered by anybody between
LITERAL, SECRET_LITERAL, REMEMBERED_LITERAL = 0x00, 0x10, 0x40
STATIC: dict[tuple[bytes, bytes], int] = {field: index for index, field in enumerate(HeaderTable.STATIC_TABLE, 1)}
STATIC_NAMES: dict[bytes, int] = {name: index for (name, _), index in reversed(STATIC.items())}


class Fields(list[Any]):
    """The fields of a block that means the same whenever it comes; `checked` is what the engine made of them."""

    __slots__ = ("checked",)

    def __init__(self, fields: Iterable[Any]) -> None:
        super().__init__(fields)
        self.checked: dict[Any, list[Any]] = {}


class Decoder(hpack.Decoder):
    """One client's. Nobody may change the lists that it returns."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[bytes, Fields] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[Any]:
        known = self._known.get(data)
        if known is not None and raw:
            return known
        entries = self.header_table.dynamic_entries
        before = (len(entries), entries[0] if entries else None)
        fields = list(super().decode(data, raw))
        if before[0] != len(entries) or (entries and before[1] is not entries[0]):
            self._known.clear()
        elif raw and len(data) <= LONGEST_BLOCK_BYTES and data and data[0] & 0xE0 != SIZE_UPDATE:
            if len(self._known) >= MOST_BLOCKS:
                self._known.clear()
            known = self._known[bytes(data)] = Fields(fields)
            return known
        return fields


class Encoder(hpack.Encoder):
    """Encodes the heads of the answers to one client. Names and values are bytes."""

    def __init__(self) -> None:
        super().__init__()
        self._places: dict[tuple[bytes, bytes], int] = {}  # the number of the entry
        self._room_bytes = TABLE_BYTES
        self._update = b""

    @property
    def header_table_size(self) -> int:
        return self._room_bytes

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        """The client allows for less, or more, of its memory. More is of no use; with less we do without."""
        if size < TABLE_BYTES:
            self._places.clear()
            self._room_bytes = 0
            self._update = bytes((SIZE_UPDATE,))

    def encode(self, headers: Any, huffman: bool = True) -> bytes:
        parts, self._update = [self._update], b""
        places = self._places
        for field in headers:
            place = places.get(field)
            if place is not None:
                parts.append(bytes((0x80 | (FIRST_INDEX + len(places) - 1 - place),)))
            elif field in STATIC:
                parts.append(bytes((0x80 | STATIC[field],)))
            else:
                parts.append(self._say(*field))
        return b"".join(parts)

    def _say(self, name: bytes, value: bytes) -> bytes:
        size = ENTRY_BYTES + len(name) + len(value)
        if name in SECRET:
            kind, bits = SECRET_LITERAL, 4
        elif name in VARYING or size > self._room_bytes or len(self._places) >= MOST_ENTRIES:
            kind, bits = LITERAL, 4
        else:
            kind, bits = REMEMBERED_LITERAL, 6
            self._places[name, value] = len(self._places)
            self._room_bytes -= size
        index = encode_integer(STATIC_NAMES.get(name, 0), bits)
        index[0] |= kind
        return bytes(index) + (b"" if name in STATIC_NAMES else _string(name)) + _string(value)


def _string(data: bytes) -> bytes:
    return bytes(encode_integer(len(data), 7)) + data
