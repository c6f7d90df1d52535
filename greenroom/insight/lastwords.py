"""The last lines of a worker in the error log: what it was doing when it was ended.

    killed by the arbiter, its loop did not turn for `timeout`     SIGABRT first, SIGKILL a second later
    asked to go at once (SIGQUIT, SIGINT)                          with requests still running
    not done in the graceful timeout                               the requests that are cut
    over its memory limit                                          how much, and how many greenlets from which line

SIGABRT comes to a worker that may hold the GIL for ever, so faulthandler writes the stacks from within the signal
handler, in C. A process that can still run Python adds what is in flight and the last stalls.

Several workers may die at the same time, and all write to one log. So what is written at once is whole lines, of a
length that a pipe does not tear apart; and faulthandler, which writes word by word, writes into a file of the worker's
own, which the arbiter copies into the log when the worker is gone.
"""

import faulthandler
import logging
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator

from ..gunicorns_parts import Worker
from . import snapshot
from .observer import Insight

logger = logging.getLogger("gunicorn.error")

MOST_REQUESTS = 50
MOST_STACKS = 10
# The largest write that a pipe takes in one piece, without the line's head that is put before it.
LARGEST_PIECE_BYTES = select.PIPE_BUF - 128
LONGEST_STACKS_BYTES = 65_536


def prepare(worker: Worker) -> None:
    """Give the worker a file for faulthandler, which `tell` reads. Runs on: arbiter, before it forks."""
    try:
        worker.stacks_file = tempfile.TemporaryFile(buffering=0, dir=worker.cfg.worker_tmp_dir)
    except OSError as exc:
        logger.warning("the stacks of a worker that is killed will not be told: %s", exc)


def tell(worker: Worker) -> None:
    """Write what faulthandler wrote about a worker that has ended. Runs on: arbiter; never raises."""
    file = getattr(worker, "stacks_file", None)
    if file is None:
        return
    try:
        with file:
            file.seek(0)
            text = file.read(LONGEST_STACKS_BYTES).decode("utf-8", "replace").strip()
    except OSError as exc:
        logger.warning("the stacks of worker %s can't be told: %s", worker.pid, exc)
        return
    if text:
        for piece in pieces(f"Worker {worker.pid} has ended; its threads were:\n{text}"):
            logger.error("%s", piece)


def register(worker: Worker) -> None:
    """Have the stacks written when the arbiter gives this worker up.

    And when it crashes. gunicorn's own handler, which must be there already, has its turn afterwards, when Python next
    runs. Runs on: worker start-up.
    """
    try:
        file = getattr(worker, "stacks_file", None)
        if faulthandler.is_enabled():
            # By PYTHONFAULTHANDLER, before gunicorn's handler came: enabling it again would not put it before that one.
            faulthandler.disable()
            signal.signal(signal.SIGABRT, signal.getsignal(signal.SIGABRT))
        # Afterwards it raises the signal anew. A descriptor of its own: a log that is rotated is closed.
        faulthandler.enable(os.dup(error_log(worker) if file is None else file.fileno()), all_threads=True)
    except (OSError, ValueError, RuntimeError) as exc:
        logger.warning("stacks can't be written when this worker is killed: %s", exc)


def error_log(worker: Worker) -> int:
    """The descriptor that gunicorn's error log goes to."""
    for handler in worker.log.error_log.handlers:
        stream = getattr(handler, "stream", None)
        if stream is not None:
            try:
                return int(stream.fileno())
            except (OSError, ValueError):
                continue
    return sys.__stderr__.fileno() if sys.__stderr__ is not None else 2


def say(worker: Worker, reason: str) -> None:
    """Write what the worker is doing. Runs on: any greenlet; never raises."""
    for piece in pieces(_words(worker, reason)):
        logger.error("%s", piece)


def cry(worker: Worker, reason: str) -> None:
    """Write what `tell` writes, without logging, whose locks may be held. Runs on: signal handler; never raises."""
    at = time.strftime("%Y-%m-%d %H:%M:%S %z")
    try:
        for piece in pieces(_words(worker, reason)):
            os.write(error_log(worker), f"[{at}] [{worker.pid}] [ERROR] {piece}\n".encode(errors="replace"))
    except OSError:
        pass  # nobody listens


def pieces(text: str) -> Iterator[str]:
    """The text in whole lines, as many at once as a pipe takes without mixing them with another worker's."""
    piece: list[str] = []
    size = 0
    for line in text.splitlines():
        data = line.encode(errors="replace")
        if len(data) >= LARGEST_PIECE_BYTES:
            data = data[: LARGEST_PIECE_BYTES - 1]
            line = data.decode(errors="ignore")
        if piece and size + len(data) + 1 > LARGEST_PIECE_BYTES:
            yield "\n".join(piece)
            piece, size = [], 0
        piece.append(line)
        size += len(data) + 1
    if piece:
        yield "\n".join(piece)


def _words(worker: Worker, reason: str) -> str:
    try:
        return words(worker, reason)
    except Exception as exc:
        return f"{reason}; what was in flight can't be told: {type(exc).__name__}: {exc}"


def words(worker: Worker, reason: str) -> str:
    if not hasattr(worker, "serving"):
        return reason
    insight: Insight | None = worker.serving.insight
    if insight is None:
        return f"{reason}; {len(worker.serving.in_flight)} requests in flight"
    now = insight.slices.now()
    live = list(insight.slices.live)
    lines = [f"{reason}; {len(live)} requests in flight, the oldest first:"]
    for number, account in enumerate(live[:MOST_REQUESTS]):
        said = snapshot.in_flight(account, now)
        budget = "" if said["budget_seconds"] is None else f", {said['budget_seconds']:.3f} s of its budget left"
        lines.append(
            f"  request {said['id'] or '-'} {said['method']} {said['path']} (route {said['route']}), "
            f"{said['age_seconds']:.3f} s old, {said['state']} {said['detail']} "
            f"for {said['state_seconds']:.3f} s{budget}"
        )
        if number < MOST_STACKS:
            for greenlet in snapshot.greenlets_of(insight, account):
                lines.append(f"    {greenlet['name']}: {greenlet['state']}, innermost call first")
                lines += [f"      {call}" for call in greenlet["stack"]]
    if len(live) > MOST_REQUESTS:
        lines.append(f"  and {len(live) - MOST_REQUESTS} more")
    for stall in list(insight.stalls.last)[:5]:
        at = time.strftime("%H:%M:%S", time.localtime(stall.at))
        lines.append(f"  stall at {at}: {stall.seconds:.3f} s at {stall.line}, request {stall.request or '-'}")
    return "\n".join(lines)


def memory(worker: Worker, rss_bytes: int) -> str:
    """Runs on: the loop's thread."""
    insight: Insight | None = getattr(getattr(worker, "serving", None), "insight", None)
    if insight is None:
        return f"{rss_bytes / 1e6:.0f} MB"
    counts = insight.greenlets_by_spawner()
    shown = ", ".join(f"{count} from {line}" for line, count in list(counts.items())[:5])
    return f"{rss_bytes / 1e6:.0f} MB; greenlets: {shown or 'none'}"
