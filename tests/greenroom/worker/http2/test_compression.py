"""Header fields come through as they were, whatever was said before."""

from typing import Any

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greenroom.worker.http2.compression import MOST_BLOCKS, SIZE_UPDATE, Decoder, Encoder

from ..fuzz import examples

NAMES = [b":status", b"server", b"date", b"set-cookie", b"x-a", b"x-b", b"content-length", b"vary", b"x-long"]
VALUES = [b"200", b"", b"a", b"b" * 126, b"c" * 127, b"d" * 3_000, "caf\xe9".encode("latin-1")]
fields = st.tuples(st.sampled_from(NAMES), st.one_of(st.sampled_from(VALUES), st.binary(max_size=300)))
blocks = st.lists(st.lists(fields, max_size=12), max_size=20)


@given(
    blocks=blocks, sizes=st.lists(st.tuples(st.integers(0, 20), st.sampled_from([0, 100, 4096, 65_536])), max_size=2)
)
@examples(200)
def test_clients_read_what_we_write(blocks: list[Any], sizes: list[tuple[int, int]]) -> None:
    ours, theirs = Encoder(), hpack.Decoder()
    for number, block in enumerate(blocks):
        for at, size in sizes:
            if at == number:
                ours.header_table_size = size
                theirs.max_allowed_table_size = size

        assert [tuple(field) for field in theirs.decode(ours.encode(block), raw=True)] == block


@given(blocks=blocks, again=st.lists(st.integers(0, 19), max_size=30))
@examples(200)
def test_we_read_what_clients_write(blocks: list[Any], again: list[int]) -> None:
    theirs, ours, reference = hpack.Encoder(), Decoder(), hpack.Decoder()
    for number in [*range(len(blocks)), *again]:
        if number < len(blocks):
            data = theirs.encode(blocks[number])
            expected = [tuple(field) for field in reference.decode(data, raw=True)]

            assert [tuple(field) for field in ours.decode(data, raw=True)] == expected


def test_what_repeats_is_a_byte_and_what_is_secret_is_never_remembered() -> None:
    ours = Encoder()
    head = [(b":status", b"200"), (b"content-type", b"text/html"), (b"set-cookie", b"id=1")]

    first, second = ours.encode(head), ours.encode(head)

    assert len(second) < len(first)
    assert second.count(b"id=1") == 1
    assert second[2] & 0xF0 == 0x10


def test_table_is_never_larger_than_the_client_allows_for() -> None:
    ours, theirs = Encoder(), hpack.Decoder()
    for number in range(500):
        theirs.decode(ours.encode([(b"x-%d" % number, b"y" * 50)]), raw=True)
    ours.header_table_size = 0

    assert ours.encode([(b"x-0", b"y" * 50)])[0] == SIZE_UPDATE


@pytest.mark.parametrize("block", [b"\xff\xff\xff\xff\xff\xff\xff", b"\x80", b"\xc0"])
def test_what_is_no_block_is_refused(block: bytes) -> None:
    ours = Decoder()
    for _ in range(2):
        with pytest.raises(hpack.HPACKError):
            ours.decode(block, raw=True)


def test_client_fills_no_memory_with_blocks() -> None:
    ours = Decoder()
    for number in range(1_000):
        ours.decode(b"\x00\x01a\x04%04d" % number, raw=True)

    assert len(ours._known) <= MOST_BLOCKS
