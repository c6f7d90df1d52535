"""How workers end, written down for the ops process: by which signal, with which code, and why one could not boot.

    <pid>.end     the arbiter: {"signal": "SIGKILL"} or {"code": 3}; looked at before gunicorn reaps the child
    <pid>.boot    the worker: {"error", "message", "line", "at"}
    reload        the arbiter, at each reload: {"at": when, in Unix time}; "refused" says why, where nothing came of it

All in the folder that the ops process shares with them. It lives as long as the server, so a few files are left there.
"""

import json
import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

from .. import clock, observing, replacements
from ..gunicorns_parts import Arbiter, Worker
from .socket_folder import SocketFolder

LONGEST_STACKS_BYTES = 65_536

logger = logging.getLogger("gunicorn.error")


def watch(server: Arbiter, socket_folder: SocketFolder) -> None:
    """Have it written how each worker ends, from now on. Runs on: arbiter, at its start."""
    reap = server.reap_workers

    def look_and_reap() -> None:
        for pid in list(server.WORKERS):
            said = ending_of(pid)
            if said is not None:
                said["line"] = last_line(server.WORKERS.get(pid))
                write(socket_folder.folder / f"{pid}.end", said)
        reap()

    replacements.put("gunicorn", (server, "reap_workers", look_and_reap))


def last_line(worker: Worker | None) -> str:
    """The application's innermost line when it crashed or was given up, as faulthandler wrote it; "" if it did not."""
    file = getattr(worker, "stacks_file", None)
    if file is None:
        return ""
    from ..insight import stacks

    try:
        text = os.pread(file.fileno(), LONGEST_STACKS_BYTES, 0).decode("utf-8", "replace")
    except (OSError, ValueError) as exc:
        logger.debug("what a worker wrote last can't be read: %s", exc)
        return ""
    _, mark, current = text.rpartition("Current thread")
    calls = [call for line in current.splitlines() if (call := stacks.of_dump_line(line)) is not None] if mark else []
    guilty = stacks.guilty(calls)
    return guilty.place if guilty is not None else ""


def ending_of(pid: int) -> dict[str, Any] | None:
    """How this child has ended; None while it lives. It stays to be reaped, where gevent's loop has not done so."""
    try:
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (AttributeError, ChildProcessError):
        status = next((ended[pid] for ended in observing.ended_children if pid in ended), None)
        if status is None:
            return None
        return _signal(os.WTERMSIG(status)) if os.WIFSIGNALED(status) else {"code": os.waitstatus_to_exitcode(status)}
    if result is None or not result.si_pid:
        return None
    return {"code": result.si_status} if result.si_code == os.CLD_EXITED else _signal(result.si_status)


def _signal(number: int) -> dict[str, Any]:
    try:
        return {"signal": signal.Signals(number).name}
    except ValueError:
        return {"signal": f"signal {number}"}


def boot_failed(socket_folder: SocketFolder, exc: BaseException) -> None:
    """Runs on: worker start-up, when the application could not be imported."""
    write(socket_folder.folder / f"{os.getpid()}.boot", {**told(exc), "since": clock.now()})


def reloading(socket_folder: SocketFolder, refused_because: BaseException | None = None) -> None:
    """A reload begins, or comes to nothing before it has begun. Runs on: arbiter."""
    refused = {} if refused_because is None else {"refused": told(refused_because)}
    write(socket_folder.folder / "reload", {"at": time.time(), "since": clock.now(), **refused})


def told(exc: BaseException) -> dict[str, Any]:
    from ..insight import failures

    return {
        "error": failures.class_name(exc),
        "message": failures.message_of(exc),
        "line": failures.place_of(exc),
    }


def write(path: Path, said: dict[str, Any]) -> None:
    try:
        part = path.with_name(f"{path.name}.part")
        part.write_text(json.dumps(said))
        part.replace(path)
    except OSError as exc:
        logger.info("the ops page will not know of it: %s can't be written: %s", path.name, exc)
