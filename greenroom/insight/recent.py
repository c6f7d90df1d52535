"""The last minute of a worker: a ring of records of one size, for the flight recorder.

    arrival and end   one record for each finished request: when it came, route, status, seconds by state
    shed              one for those that were turned away in a tenth of a second, with their number
    slice             one for each slice that held the loop for long, and one for each stall

Memory is bounded, and untouched until it is used: 65,536 records of 64 bytes are 4 MB, a minute of 1,000 requests a
second. How much of the minute is there, of a worker with more to do, is said by `covered_seconds`. Writing a record
costs a microsecond and takes no lock: the loop's thread writes, a reader copies. A record that is being
overwritten while it is copied is the oldest one, and at most one.

On Linux the memory is a file without a name, which the ops process can open and read by itself, also while C code keeps
the GIL of the worker. So it holds all that a reader needs:

    names     NAMES_BYTES: one a line, in the order of their numbers
    records   in the order in which they came, from some place on: see `records_in`
"""

import base64
import logging
import mmap
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NotRequired, TypedDict

from .. import clock

logger = logging.getLogger("gunicorn.error")

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
# How long those that were turned away took to come, and how many they were; behind `began`.
SHEDS = struct.Struct("<ff")
SHEDS_AT = struct.calcsize("<BxHId")
SHED_SECONDS = 0.1
RECORDS = 65_536
KEPT_SECONDS = 60.0
MOST_NAMES = 2000
NAMES_BYTES = 262_144
OTHER = "other"
NO_SECONDS = (0.0,) * STATE_COUNT


class Remembered(TypedDict):
    """The whole memory of a worker: `names` and `data` are in base64, `now` and `at` the same moment in both clocks."""

    now: float
    at: float
    names: str
    data: str
    is_full: bool
    # Requests that have no answer yet: route, age, seconds by state.
    in_flight: NotRequired[list[tuple[str, float, list[float]]]]


class PastRequest(TypedDict):
    """One record of it; several requests that were shed are one."""

    kind: str
    status: int
    name: str
    at: float
    seconds: float
    by_state: list[float]
    count: int


class Ring:
    """Runs on: hub and request greenlets write; any thread reads."""

    def __init__(self, records: int = RECORDS, now: Callable[[], float] = clock.now) -> None:
        self.records = records
        self.now = now
        self.count = 0
        self.descriptor, self._buffer = _memory(NAMES_BYTES + records * RECORD_BYTES)
        self._names: dict[str, int] = {}
        self._names_end = 0
        self._shed_number = -records  # of the record of those that were turned away last
        self._shed_began = self._shed_count = 0.0
        self._name(OTHER)

    def finished(
        self, route: str, status: int, began: float, seconds: float, by_state: Sequence[float], has_waited: bool = True
    ) -> None:
        number = self._names.get(route)
        if number is None:
            number = self._name(route)
        count = self.count
        place = NAMES_BYTES + count % self.records * RECORD_BYTES
        if has_waited:
            pack_record(self._buffer, place, FINISHED, status, number, began, seconds, *by_state)
        else:
            cpu, ready = by_state[0], by_state[1]
            pack_at_once(self._buffer, place, FINISHED_AT_ONCE, status, number, began, seconds, cpu, ready)
        self.count = count + 1

    def shed(self) -> None:
        """One was turned away. Thousands may be in a second, and must not drive out the requests that were served."""
        now = self.now()
        if now - self._shed_began > SHED_SECONDS or self.count - self._shed_number >= self.records:
            self._shed_number, self._shed_began, self._shed_count = self.count, now, 0.0
            self._write(SHED, 503, self._name("shed"), now, 0.0, NO_SECONDS)
        self._shed_count += 1.0
        place = NAMES_BYTES + self._shed_number % self.records * RECORD_BYTES + SHEDS_AT
        SHEDS.pack_into(self._buffer, place, now - self._shed_began, self._shed_count)

    def slice(self, where: str, began: float, seconds: float) -> None:
        self._write(SLICE, 0, self._name(where), began, seconds, NO_SECONDS)

    def stalled(self, line: str, began: float, seconds: float) -> None:
        self._write(STALL, 0, self._name(line), began, seconds, NO_SECONDS)

    def _write(
        self, kind: int, status: int, name: int, began: float, seconds: float, by_state: Sequence[float]
    ) -> None:
        place = NAMES_BYTES + self.count % self.records * RECORD_BYTES
        RECORD.pack_into(self._buffer, place, kind, status, name, began, seconds, *by_state)
        self.count += 1

    def _name(self, name: str) -> int:
        number = self._names.get(name)
        if number is None:
            line = "".join(letter if letter.isprintable() else "?" for letter in name).encode(errors="replace") + b"\n"
            end = self._names_end + len(line)
            if len(self._names) >= MOST_NAMES or end > NAMES_BYTES:
                return self._names[OTHER]
            self._buffer[self._names_end : end] = line
            self._names_end = end
            number = self._names[name] = len(self._names)
        return number

    def close(self) -> None:
        """Nobody else can open it any more. This process can still write and read."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def read(self) -> Remembered:
        """All of it, for `records_in`; the clock in both times."""
        end = NAMES_BYTES + min(self.count, self.records) * RECORD_BYTES
        with memoryview(self._buffer) as whole:
            return {
                "now": self.now(),
                "at": time.time(),
                "names": base64.b64encode(whole[: self._names_end]).decode(),
                # In base64 and not as numbers: making a million of those would hold the GIL for a stall of its own.
                "data": base64.b64encode(whole[NAMES_BYTES:end]).decode(),
                "is_full": self.count >= self.records,
            }


def _memory(size: int) -> tuple[int, Any]:
    """Memory that others can open, and its descriptor; -1 where there is no such thing."""
    if hasattr(os, "memfd_create"):
        try:
            descriptor = os.memfd_create("greenroom-ring")
            os.ftruncate(descriptor, size)
            return descriptor, mmap.mmap(descriptor, size)
        except OSError as exc:
            logger.debug("only this process can read what it remembers: %s", exc)
    return -1, bytearray(size)


def read_of(pid: int, descriptor: object, now: Callable[[], float] = clock.now) -> Remembered | None:
    """Return the answer of `Ring.read` in the process `pid`, without asking it; None where that can't be.

    The monotonic clock is one for the whole machine. Runs on: the ops process.
    """
    if not isinstance(descriptor, int) or descriptor < 0:
        return None
    try:
        with open(f"/proc/{pid}/fd/{descriptor}", "rb") as file:
            content = file.read()
    except OSError as exc:
        logger.debug("what worker %s remembers can't be read: %s", pid, exc)
        return None
    data = content[NAMES_BYTES:]
    kinds = data[::RECORD_BYTES]
    return {
        "now": now(),
        "at": time.time(),
        "names": base64.b64encode(content[:NAMES_BYTES].rstrip(b"\0")).decode(),
        "data": base64.b64encode(data).decode(),
        "is_full": bool(kinds) and 0 not in kinds,
    }


def records_in(answer: Remembered, kept_seconds: float = KEPT_SECONDS) -> Iterator[PastRequest]:
    """The records of a worker's answer in the order in which they ended; `at` is Unix time, `count` how many they are.

    Requests without an answer yet ("in_flight") come at the end. Records that can't be read are left out.
    """
    names = base64.b64decode(answer.get("names", "")).decode("utf-8", "replace").split("\n")[:-1]
    shift = answer["at"] - answer["now"]
    for row in sorted(_unpacked(answer), key=_ended):
        kind, status, name, began, seconds, *by_state = row
        if kind not in KINDS or name >= len(names) or answer["now"] - began - seconds > kept_seconds:
            continue
        count = 1
        if kind == SHED:
            count, by_state = max(1, int(by_state[0])), list(NO_SECONDS)
        elif kind == FINISHED_AT_ONCE:
            by_state[2:] = NO_SECONDS[2:]
        yield {
            "kind": KINDS[kind],
            "status": status,
            "name": names[name],
            "at": began + shift,
            "seconds": seconds,
            "by_state": by_state,
            "count": count,
        }
    for route, age, by_state in answer.get("in_flight", []):
        yield {
            "kind": "in_flight",
            "status": 0,
            "name": route,
            "at": answer["at"] - age,
            "seconds": age,
            "by_state": by_state,
            "count": 1,
        }


def covered_seconds(answer: Remembered) -> float:
    """How much of the past is there; infinite if nothing was overwritten yet."""
    if not answer.get("is_full"):
        return float("inf")
    return float(answer["now"] - min((_ended(row) for row in _unpacked(answer)), default=answer["now"]))


def _unpacked(answer: Remembered) -> Iterator[tuple[Any, ...]]:
    data = base64.b64decode(answer.get("data", ""))
    return RECORD.iter_unpack(data[: len(data) // RECORD_BYTES * RECORD_BYTES])


def _ended(row: tuple[Any, ...]) -> float:
    return float(row[3] + row[4])
