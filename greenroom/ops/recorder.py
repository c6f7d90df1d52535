"""The flight recorder: when something spikes, what the workers remember is saved as one HTML file.

    calm    -> a signal at or above its threshold                          -> settling: what follows belongs to it too
    settling-> SETTLE_SECONDS later, and every worker answers or can't      -> saved; spiking
    spiking -> all signals below half of their threshold for CALM_SECONDS   -> calm

So one incident is one file, however long it lasts, and a signal that flickers round its threshold makes no second one.
The workers only remember; the file is written by this process, so a full disk costs nobody an answer.
"""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..insight.ring import records_in
from .collect import Moment
from .report import recording
from .verdict import LEVELS, OK

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
NAME = re.compile(r"recording-\d{8}-\d{6}-\d{1,9}\.html")
LONGEST_RECORDING = 64_000_000


class Recorder:
    """Runs on: the collecting thread; a thread of its own asks the workers and saves."""

    def __init__(
        self,
        folder: Path,
        kept: int,
        ask: Callable[[int], Any],
        about: Mapping[str, Any],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.kept = kept
        self.ask = ask
        self.about = about
        self.wall = wall
        self.state = "calm"
        self.reason = ""
        self._since = 0.0
        self._number = 0
        # What the page showed when it was at its worst: that is what the recording begins with.
        self._worst: Mapping[str, Any] = {}
        self._saving = threading.Lock()

    def look(self, moment: Moment, seen: Mapping[str, Any]) -> None:
        """Judge one moment; may save."""
        if not self.kept:
            return
        high, loud = self._signals(moment)
        if self.state == "calm" and high:
            self.state, self._since = "settling", moment.now
            self.reason = high
            self._worst = seen
        elif self.state == "settling":
            self._worst = min(self._worst, seen, key=_rank)
            self._settle(moment)
        elif self.state == "spiking":
            if loud:
                self._since = moment.now
            elif moment.now - self._since >= CALM_SECONDS:
                self.state = "calm"

    def _signals(self, moment: Moment) -> tuple[str, bool]:
        """What is above its threshold, and whether anything is above half of its."""
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
        threading.Thread(
            target=self.save, args=(moment, self.reason, self._worst), name="recorder", daemon=True
        ).start()

    def save(self, moment: Moment, reason: str, seen: Mapping[str, Any] | None = None) -> str | None:
        """Ask all workers and write the file; its name, or None when it could not be written."""
        with self._saving:
            answers = {worker.pid: (worker.number, self.ask(worker.pid)) for worker in moment.workers}
            records = [
                {**record, "worker": number}
                for number, answer in answers.values()
                if isinstance(answer, dict) and "data" in answer
                for record in records_in(answer)
            ]
            silent = [number for number, answer in answers.values() if not isinstance(answer, dict)]
            at = self.wall()
            page = recording(sorted(records, key=lambda row: row["at"]), reason, at, self.about, seen or {}, silent)
            return self._write(page, at)

    def _write(self, page: str, at: float) -> str | None:
        self._number += 1
        name = time.strftime("recording-%Y%m%d-%H%M%S", time.localtime(at)) + f"-{self._number}.html"
        part = self.folder / f".{name}.part"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Only its owner may read it: paths of requests are in it.
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
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

    def _forget_old(self) -> None:
        for path in self._paths()[self.kept :]:
            path.unlink(missing_ok=True)

    def _paths(self) -> list[Path]:
        """The newest first."""
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


def _rank(seen: Mapping[str, Any]) -> int:
    level = (seen.get("verdict") or {}).get("level", OK)
    return LEVELS.index(level) if level in LEVELS else len(LEVELS)
