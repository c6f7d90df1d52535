"""The flight recorder: when something spikes, what the workers remember is saved as one HTML file.

    calm    -> a signal at or above its threshold                          -> what is there is copied; settling:
                                                                               what follows belongs to it, too
    settling-> SETTLE_SECONDS later, and every worker answers or can't      -> saved; spiking
    spiking -> all signals below half of their threshold for CALM_SECONDS   -> calm

So one incident is one file, however long it lasts, and a signal that flickers round its threshold makes no second one.
The copy is of the minute before the spike: a worker that is blocked may be killed before anything is saved, and others
may have more to do meanwhile than they can remember. Workers that answer are asked; of the others the memory is read.
The workers only remember; the file is written by this process, so a full disk costs nobody an answer.
"""

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..insight.recent import KEPT_SECONDS, Remembered, covered_seconds, read_of, records_in
from .collect import Moment, Seen
from .report import recording
from .shapes import Row
from .verdicts import LEVELS, OK

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 5.0
# A worker that is blocked is waited for: what it remembers is what is of interest.
PATIENCE_SECONDS = 60.0
CALM_SECONDS = 30.0
# Signal: (threshold, what it is called). All are of the last second.
THRESHOLDS = {
    "lag_seconds": (1.0, "lag"),
    "shed": (5.0, "requests turned away"),
    "expired": (2.0, "deadlines"),
}
# A worker that did not answer for longer is not asked.
UNANSWERED_SECONDS = 2.0
NAME = re.compile(r"recording-\d{8}-\d{6}-\d{1,9}\.html")
PART = re.compile(rf"\.{NAME.pattern}\.part")


@dataclass(frozen=True)
class Copy:
    """A worker's memory at one moment; `covered` seconds of it, infinite if all since its start."""

    number: int
    answer: Remembered
    covered: float

    @property
    def began_at(self) -> float:
        """Unix time from which on nothing is missing."""
        return float(self.answer["at"]) - self.covered

    def rows(self, kept_seconds: float, before: float = float("inf")) -> list[dict[str, Any]]:
        """Its records, those that ended before that moment."""
        found: Iterator[Row] = ({**row, "worker": self.number} for row in records_in(self.answer, kept_seconds))
        return [row for row in found if row["at"] + row["seconds"] < before]


Copies = dict[tuple[int, int], Copy | None]


class Recorder:
    """Runs on: the collecting thread; a thread of its own asks the workers and saves."""

    def __init__(
        self,
        folder: Path,
        kept: int,
        ask: Callable[[int], Any],
        about: Mapping[str, Any],
        wall: Callable[[], float] = time.time,
        read: Callable[[int, Any], Any] = read_of,
    ) -> None:
        self.folder = folder
        self.kept = kept
        self.ask = ask
        self.about = about
        self.wall = wall
        self.read_of = read
        self.state = "calm"
        self.reason = ""
        self._since = 0.0
        self._number = 0
        # The page at its worst moment: the recording begins with it.
        self._worst: Mapping[str, Any] = {}
        # Of when it began to spike, by number and pid.
        self._copies: Copies = {}
        self._saving = threading.Lock()
        self._forget_parts()

    def look(self, moment: Moment, seen: Mapping[str, Any]) -> None:
        """Judge one moment; may save."""
        if not self.kept:
            return
        high, loud = self._signals(moment)
        if self.state == "calm" and high:
            self.state, self._since = "settling", moment.now
            self.reason = high
            self._worst = seen
            self._copies = {}
            self._start(self._copy, moment)
        elif self.state == "settling":
            self._worst = min(self._worst, seen, key=_rank)
            self._settle(moment)
        elif self.state == "spiking":
            if loud:
                self._since = moment.now
            elif moment.now - self._since >= CALM_SECONDS:
                self.state = "calm"

    def _signals(self, moment: Moment) -> tuple[str, bool]:
        """Return the signal that is above its threshold, and whether any is above half of its threshold."""
        newest = moment.history[-1] if moment.history else {}
        high = [words for name, (most, words) in THRESHOLDS.items() if newest.get(name, 0.0) >= most]
        return ", ".join(high), any(newest.get(name, 0.0) >= most / 2 for name, (most, _) in THRESHOLDS.items())

    def _settle(self, moment: Moment) -> None:
        """Ask once who can answer; wait for those that are blocked, up to a point."""
        waited = moment.now - self._since
        if waited < SETTLE_SECONDS:
            return
        blocked = [worker for worker in moment.workers if worker.silent_seconds > 1.0 and not worker.is_gone]
        if blocked and waited < PATIENCE_SECONDS:
            return
        self.state, self._since = "spiking", moment.now
        self._start(self._save, moment, self.reason, self._worst, KEPT_SECONDS + waited)

    @staticmethod
    def _start(work: Callable[..., Any], *arguments: Any) -> None:
        threading.Thread(target=work, args=arguments, name="recorder", daemon=True).start()

    def _copy(self, moment: Moment) -> None:
        """Read what all remember, at once: one that is blocked may be killed at any moment. Ask where that can't be.

        Runs on: a thread of its own, as a worker may take its time to answer.
        """
        with self._saving:
            for worker in moment.workers:
                copy = self._read(worker) or self._asked(worker)
                self._copies[worker.number, worker.pid] = copy

    def save(self, moment: Moment, reason: str, seen: Mapping[str, Any] | None = None) -> str | None:
        """Write what all workers remember now; the file's name, or None when it could not be written."""
        with self._saving:
            return self._save_with({}, moment, reason, seen or {}, KEPT_SECONDS)

    def _save(self, moment: Moment, reason: str, seen: Mapping[str, Any], kept_seconds: float) -> None:
        """Save a spike: what the workers remember now, and what was copied of it when it began."""
        with self._saving:
            self._save_with(self._copies, moment, reason, seen, kept_seconds)
            self._copies = {}

    def _save_with(
        self,
        early: Copies,
        moment: Moment,
        reason: str,
        seen: Mapping[str, Any],
        kept_seconds: float,
    ) -> str | None:
        at = self.wall()
        living = [worker for worker in moment.workers if not worker.is_gone]
        late: Copies = {(worker.number, worker.pid): self._remembered(worker) for worker in living}
        rows: list[dict[str, Any]] = []
        short: dict[int, float] = {}
        silent: list[int] = []
        lost: list[int] = []
        for worker in {**early, **late}:
            number, newer, older = worker[0], late.get(worker), early.get(worker)
            if newer is not None:
                rows += newer.rows(kept_seconds)
            if older is not None:
                rows += older.rows(kept_seconds, before=newer.began_at if newer is not None else float("inf"))
            if newer is None:
                (silent if older is None else lost).append(number)
            began_at = min((copy.began_at for copy in (newer, older) if copy is not None), default=at)
            if number not in silent and at - began_at < kept_seconds:
                short[number] = at - began_at
        page = recording(
            sorted(rows, key=lambda row: row["at"]),
            reason,
            at,
            self.about,
            seen,
            silent=silent,
            lost=lost,
            short=short,
            seconds=kept_seconds,
        )
        return self._write(page, at)

    def _remembered(self, worker: Seen) -> Copy | None:
        """Asked, as what is in flight is known to it only; read, if it can't answer."""
        if worker.unanswered_seconds <= UNANSWERED_SECONDS:
            return self._asked(worker) or self._read(worker)
        return self._read(worker) or self._asked(worker)

    def _asked(self, worker: Seen) -> Copy | None:
        return _copy_of(worker, self.ask(worker.pid))

    def _read(self, worker: Seen) -> Copy | None:
        where = (worker.where or {}).get("ring")
        answer = self.read_of(worker.pid, where)
        return _copy_of(worker, answer and {**answer, "in_flight": _in_flight(worker)})

    def _write(self, page: str, at: float) -> str | None:
        self._number += 1
        name = time.strftime("recording-%Y%m%d-%H%M%S", time.localtime(at)) + f"-{self._number}.html"
        part = self.folder / f".{name}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Only its owner may read it: paths of requests are in it.
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # somebody is at it: see _forget_parts
                file.write(page)
            part.replace(self.folder / name)
            self._forget_old()
        except OSError as exc:
            logger.warning("a recording can't be saved in %s: %s", self.folder, exc)
            self._discard(part)
            return None
        logger.info("what happened in the last minute is saved as %s", self.folder / name)
        return name

    def _discard(self, part: Path) -> None:
        try:
            part.unlink(missing_ok=True)
        except OSError as exc:
            logger.warning("%s can't be removed: %s", part, exc)

    def _forget_parts(self) -> None:
        """Remove files that a killed process left half-written. A process that lives locks its own.

        Runs on: start of the ops process, which is started again when it is killed.
        """
        try:
            parts = [path for path in self.folder.iterdir() if PART.fullmatch(path.name)]
        except OSError as exc:
            logger.debug("nothing was saved yet: %s", exc)
            return
        for part in parts:
            try:
                with part.open("rb") as file:
                    fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                    part.unlink()
            except OSError as exc:
                logger.debug("%s stays: %s", part, exc)

    def _forget_old(self) -> None:
        for path in self._paths()[self.kept :]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """List the recordings, the newest first."""
        if not self.folder.is_dir():
            return []
        found = [(path.stat().st_mtime, path.name, path) for path in self.folder.iterdir() if NAME.fullmatch(path.name)]
        return [path for _, _, path in sorted(found, reverse=True)]

    def listing(self) -> list[dict[str, Any]]:
        try:
            return [
                {"name": path.name, "at": path.stat().st_mtime, "bytes": path.stat().st_size} for path in self._paths()
            ][:50]
        except OSError as exc:
            logger.debug("recordings can't be listed: %s", exc)  # one was removed just now, or all of them
            return []

    def read(self, name: str) -> bytes | None:
        """A recording's content. A name that is none of ours is None, wherever it points."""
        if not NAME.fullmatch(name):
            return None
        try:
            return (self.folder / name).read_bytes()
        except OSError:
            return None


def _copy_of(worker: Seen, answer: Any) -> Copy | None:
    if not isinstance(answer, dict) or "data" not in answer:
        return None
    remembered = cast(Remembered, answer)
    return Copy(worker.number, remembered, covered_seconds(remembered))


def _in_flight(worker: Seen) -> list[tuple[str, float, list[float]]]:
    """Return the requests in flight of a worker that does not answer, as they were in its last answer."""
    return [
        (str(row.get("route", "")), row.get("age_seconds", 0.0) + worker.unanswered_seconds, row["seconds"])
        for row in (worker.snapshot or {}).get("in_flight") or []
        if row.get("seconds")
    ]


def _rank(seen: Mapping[str, Any]) -> int:
    level = (seen.get("verdict") or {}).get("level", OK)
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)
