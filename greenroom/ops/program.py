"""The ops process: joins its parts, and lives as long as somebody holds the other end of its standard input.

main thread      waits for the end of stdin
collecting       looks at the workers, publishes the view, lets the recorder judge it
web              the page and the metrics; waits for its port when another server has it
"""

import json
import logging
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import clock
from ..cores import usable_cores
from ..worker.balance import Scoreboard
from . import log_file, processes
from .access import Access
from .collect import TICK_SECONDS, Collector, Moment
from .history import History, file_in
from .hours import Hours
from .incidents import Incidents
from .metrics import exposition
from .recorder import Recorder
from .settling import Settling
from .socket_folder import BOARD_DESCRIPTOR, SocketFolder
from .view import clean, view
from .web import Board, Part, Web
from .webhooks import Caller, Webhook
from .worker_client import Asker, ask

if TYPE_CHECKING:
    from .peers import Peers

logger = logging.getLogger(__name__)

ASK_SECONDS = 2.0
EVERYTHING_SECONDS = 5.0
BIND_AGAIN_SECONDS = 2.0
STILL_BUSY_SECONDS = 300.0
OFF = "off"
LOG_FORMAT = "[%(asctime)s] [%(process)d] [%(levelname)s] ops: %(message)s"
LOG_DATE_FORMAT = "%Y-%m-%d %H:%M:%S %z"


def serve(told: Mapping[str, Any], token: str, webhooks: Sequence[str] = ()) -> int:
    """Run until standard input ends. `told` is what the supervisor says; see Supervisor.arguments."""
    # The arbiter's listening sockets are inherited by every process it starts; a port must not outlive its server.
    close_inherited()
    # Opened before it becomes the workers' user: the folder may be root's.
    handlers = [log_file.handler(told.get("error_log", ""))]
    logging.basicConfig(format=LOG_FORMAT, datefmt=LOG_DATE_FORMAT, level=logging.INFO, handlers=handlers)
    become(*told["ids"])
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)  # meant for the server, when sent to all of its processes
    program = Program(told, token, webhooks)
    program.start()
    # No buffered reader: at the end of the process it would wait for a lock of its own.
    while os.read(0, 4096):
        pass
    program.stop()
    SocketFolder(Path(told["folder"])).remove()
    return 0


def close_inherited() -> None:
    """Close what nobody gave us. Those that are open, and not all there could be: in a container that is a billion."""
    folder = Path("/dev/fd")
    numbers = [int(name) for name in os.listdir(folder) if name.isdecimal()] if folder.is_dir() else list(range(1024))
    for number in numbers:
        if number > BOARD_DESCRIPTOR:
            with suppress(OSError):  # the one that the folder was read through
                os.close(number)


def become(uid: int, gid: int) -> None:
    """The user that the workers are."""
    if os.geteuid() == 0 and (uid, gid) != (0, 0):
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def peers_of(addresses: Sequence[str], token: str) -> "Peers | None":
    """Return the other hosts to ask; None where there are none, which saves a megabyte of modules."""
    if not addresses:
        return None
    from .peers import Peers

    return Peers(addresses, token)


def pause_after(took_seconds: float) -> float:
    """For how long to rest after a look: until the next second, and for as long as the look took."""
    return max(TICK_SECONDS - took_seconds, took_seconds)


class Program:
    def __init__(self, told: Mapping[str, Any], token: str, webhooks: Sequence[str] = ()) -> None:
        self.about = told["about"]
        self.address = (str(told["address"][0]), int(told["address"][1]))
        self.socket_folder = SocketFolder(Path(told["folder"]))
        self.collector = Collector(
            Scoreboard(descriptor=BOARD_DESCRIPTOR), self.socket_folder, cores=usable_cores(), now=clock.now
        )
        self.recorder = Recorder(
            Path(told["recordings_path"]), int(told["recordings_kept"]), self._ask_ring, self.about
        )
        self.history = History(file_in(Path(told["history_path"]), self.about["bind"]))
        self.keeps_history = told["history_path"] != OFF
        self.hours = Hours(self.history)
        self.settling = Settling()
        self.incidents = Incidents()
        self.webhooks = [Webhook(url) for url in webhooks]
        self.caller = Caller(self.webhooks, self.about)
        self.peers = peers_of(told["peers"], token)
        self.board = Board()
        self.moment: Moment | None = None
        self.part = Part(
            self.board,
            Access(token, tuple(told["host_names"])),
            stacks=self._stacks,
            everything=self._everything,
            record=self._record_now,
            recording=self.recorder.read,
            history=self.history,
        )

    def start(self) -> None:
        processes.say_if_hidden()
        if self.keeps_history:
            self.history.start()
            self.history.mark(time.time(), "started", "server or ops process started")
        for webhook in self.webhooks:
            webhook.start()
        if self.peers is not None:
            self.peers.start()
        for work in (self._collect, self._serve):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def stop(self) -> None:
        self.history.stop()

    def _collect(self) -> None:
        while True:
            began = clock.now()
            try:
                self._tick()
            except Exception:
                # Whatever error one look meets, the next one comes, and the log tells why the page stands still.
                logger.exception("looking at the workers failed")
            time.sleep(pause_after(clock.now() - began))

    def _tick(self) -> None:
        moment = self.moment = self.collector.tick()
        seen = view(moment, self.about, self.recorder.listing())
        seen["verdict"] = self.settling.settle(seen, moment.now)
        changed = self.incidents.look(seen["verdict"], moment.now, moment.at)
        seen["incidents"] = [asdict(incident) for incident in self.incidents.open]
        seen["hosts"] = [] if self.peers is None else self.peers.rows
        said = json.dumps(seen["verdict"], separators=(",", ":")).encode()
        metrics = exposition(moment, seen["verdict"]).encode()
        self.board.publish(json.dumps(seen, separators=(",", ":")).encode(), metrics, said)
        self.recorder.look(moment, seen)
        for incident in changed:
            self.history.incident(incident)
            self.caller.tell(incident)
        self.hours.look(moment, seen)

    def _serve(self) -> None:
        """Bind as soon as the port is free: a server that is being replaced (USR2) still has it for a while."""
        warned_at = float("-inf")
        while True:
            try:
                web = Web(self.address, self.part)
                break
            except OSError as exc:
                if clock.now() - warned_at > STILL_BUSY_SECONDS:
                    logger.warning(
                        "the page can't listen on %s:%s (%s): the server goes on without it, and it is tried again. "
                        "Another server on this machine? Set GREENROOM_OPS_BIND to another port, or to off.",
                        *self.address,
                        exc.strerror or exc,
                    )
                    warned_at = clock.now()
                time.sleep(BIND_AGAIN_SECONDS)
        host, port = web.server_address[:2]
        (self.socket_folder.folder / "address").write_text(json.dumps([str(host), port]))
        logger.info("the page is on http://%s:%s", f"[{host!s}]" if ":" in str(host) else host, port)
        web.serve_forever()

    def _pids(self) -> dict[int, int]:
        return {seen.pid: seen.number for seen in self.moment.workers} if self.moment else {}

    def _stacks(self, pid: int, request_id: str) -> Any:
        if pid not in self._pids():
            return None
        answer = ask(self.socket_folder.socket(pid), {"ask": "stacks", "id": request_id}, ASK_SECONDS)
        return None if answer is None else clean(answer)

    def _everything(self) -> str:
        """All workers are asked at once: those that are blocked have used up the time of nobody else."""
        from .text_report import everything

        workers = [(pid, self.socket_folder.socket(pid)) for pid in self._pids()]
        asker = Asker()
        asker.ask(workers, {"ask": "everything"})
        answers = asker.wait(EVERYTHING_SECONDS)
        asker.forget([pid for pid, _ in workers])
        return everything(json.loads(self.board.view), clean(answers))

    def _ask_ring(self, pid: int) -> Any:
        return ask(self.socket_folder.socket(pid), {"ask": "ring"}, EVERYTHING_SECONDS)

    def _record_now(self) -> str | None:
        return self.recorder.save(self.moment, "asked for", json.loads(self.board.view)) if self.moment else None
