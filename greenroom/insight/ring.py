"""What happened in a worker lately: a ring of records of one size, for the flight recorder.

    arrival and end   one record for each finished request: when it came, route, status, seconds by state
    shed              one for each that was turned away
    slice             one for each slice that held the loop for long, and one for each stall

Memory is bounded, and untouched until it is used: 32,768 records of 64 bytes are 2 MB, a minute of 500 requests a
second. Writing one costs a microsecond and takes no lock: the loop's thread writes, the answering thread copies.
A record that is being overwritten while it is copied is the oldest one, and at most one.
"""

import base64
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .. import clock

FINISHED, SHED, SLICE, STALL, FINISHED_AT_ONCE = 1, 2, 3, 4, 5
KINDS = {FINISHED: "request", SHED: "shed", SLICE: "slice", STALL: "stall", FINISHED_AT_ONCE: "request"}
# kind, status, name (a route or a line), when it began (clock), seconds, seconds by state
STATE_COUNT = 11  # of account.STATES, which is not for a process without gevent
RECORD = struct.Struct(f"<BxHIdf{STATE_COUNT}f")
# A request that never waited has only been running and ready: the rest of its record is left as it was. It takes a
# third of the time, and most requests of a busy worker are such.
AT_ONCE = struct.Struct("<BxHIdfff")
RECORD_BYTES = RECORD.size
pack_record, pack_at_once = RECORD.pack_into, AT_ONCE.pack_into
RECORDS = 32_768
KEPT_SECONDS = 60.0
MOST_NAMES = 2000
NO_SECONDS = (0.0,) * STATE_COUNT


class Ring:
    """Runs on: hub and request greenlets write; any thread reads."""

    def __init__(self, records: int = RECORDS, now: Callable[[], float] = clock.now) -> None:
        self.records = records
        self.now = now
        self.count = 0
        self._buffer = bytearray(records * RECORD.size)
        self._names: dict[str, int] = {}

    def finished(
        self, route: str, status: int, began: float, seconds: float, by_state: Sequence[float], has_waited: bool = True
    ) -> None:
        number = self._names.get(route)
        if number is None:
            number = self._name(route)
        count = self.count
        place = count % self.records * RECORD_BYTES
        if has_waited:
            pack_record(self._buffer, place, FINISHED, status, number, began, seconds, *by_state)
        else:
            cpu, ready = by_state[0], by_state[1]
            pack_at_once(self._buffer, place, FINISHED_AT_ONCE, status, number, began, seconds, cpu, ready)
        self.count = count + 1

    def shed(self) -> None:
        self._write(SHED, 503, self._name("shed"), self.now(), 0.0, NO_SECONDS)

    def slice(self, where: str, began: float, seconds: float) -> None:
        self._write(SLICE, 0, self._name(where), began, seconds, NO_SECONDS)

    def stalled(self, line: str, began: float, seconds: float) -> None:
        self._write(STALL, 0, self._name(line), began, seconds, NO_SECONDS)

    def _write(
        self, kind: int, status: int, name: int, began: float, seconds: float, by_state: Sequence[float]
    ) -> None:
        RECORD.pack_into(
            self._buffer, self.count % self.records * RECORD.size, kind, status, name, began, seconds, *by_state
        )
        self.count += 1

    def _name(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            if len(self._names) >= MOST_NAMES:
                name = "other"
            number = self._names.setdefault(name, len(self._names))
        return number

    def read(self) -> dict[str, Any]:
        """All of it, for `records_in`; the clock in both times."""
        count = self.count
        used = min(count, self.records) * RECORD.size
        return {
            "now": self.now(),
            "at": time.time(),
            "count": count,
            "first": count % self.records if count > self.records else 0,
            "names": list(self._names),
            # In base64 and not as numbers: making a million of those would hold the GIL for a stall of its own.
            "data": base64.b64encode(memoryview(self._buffer)[:used]).decode(),
        }


def records_in(answer: Mapping[str, Any], kept_seconds: float = KEPT_SECONDS) -> Iterator[dict[str, Any]]:
    """The records of a worker's answer, oldest first; `at` is Unix time. What can't be read is left out."""
    names = list(answer.get("names", []))
    data = base64.b64decode(answer.get("data", ""))
    shift = answer["at"] - answer["now"]
    whole = len(data) // RECORD.size
    for number in range(whole):
        place = (answer.get("first", 0) + number) % whole
        kind, status, name, began, seconds, *by_state = RECORD.unpack_from(data, place * RECORD.size)
        if kind not in KINDS or name >= len(names) or answer["now"] - began - seconds > kept_seconds:
            continue
        if kind == FINISHED_AT_ONCE:
            by_state[2:] = NO_SECONDS[2:]
        yield {
            "kind": KINDS[kind],
            "status": status,
            "name": names[name],
            "at": began + shift,
            "seconds": seconds,
            "by_state": by_state,
        }
