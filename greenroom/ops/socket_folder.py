"""The folder in which the ops process and the workers of one server meet: each worker has a socket there.

Only its owner can enter it, so whoever can connect may ask. Its path is short: the path of a unix socket is at most 104
bytes long on some systems.
"""

import json
import logging
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LONGEST_FOLDER = 80
# Where the ops process finds the scoreboard.
BOARD_DESCRIPTOR = 3


@dataclass(frozen=True)
class SocketFolder:
    folder: Path

    @classmethod
    def make(cls, uid: int = -1, gid: int = -1) -> "SocketFolder":
        """A new folder for the user that the workers will be."""
        base = tempfile.gettempdir()
        folder = tempfile.mkdtemp(prefix="greenroom-", dir=base if len(base) < LONGEST_FOLDER else "/tmp")
        if os.geteuid() == 0:
            os.chown(folder, uid, gid)
        return cls(Path(folder))

    def socket(self, pid: int) -> Path:
        return self.folder / f"{pid}.sock"

    def last_words(self, pid: int) -> Path:
        """The file with the last counts of a worker that ended in order, for sums that miss nothing."""
        return self.folder / f"{pid}.json"

    def ending(self, pid: int) -> Path:
        """How the process ended, see endings."""
        return self.folder / f"{pid}.end"

    def boot_failure(self, pid: int) -> Path:
        """Why the application could not be imported."""
        return self.folder / f"{pid}.boot"

    def descriptors(self, pid: int) -> Path:
        """Where the ops process finds what a worker can't say while it is blocked, see WorkerServer.say_where."""
        return self.folder / f"{pid}.descriptors"

    @property
    def reload(self) -> Path:
        return self.folder / "reload"

    @property
    def counters(self) -> Path:
        """The file with the counts that the ops process needs when it is started anew."""
        return self.folder / "sums"

    def tidy(self, pid: int) -> None:
        """Forget a worker that is gone."""
        self.socket(pid).unlink(missing_ok=True)
        self.last_words(pid).unlink(missing_ok=True)
        self.ending(pid).unlink(missing_ok=True)
        self.boot_failure(pid).unlink(missing_ok=True)
        self.descriptors(pid).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the content of a file of the folder; None where it is not there, or can\'t be read."""
    try:
        said = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        logger.warning("%s can't be read: %s", path.name, exc)
        return None
    return said if isinstance(said, dict) else None
