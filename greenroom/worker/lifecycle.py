"""A worker's life: boot, serve, ask for a replacement, drain.

BOOTING ──> SERVING ──> RETIRING ──> DRAINING ──> gone
               │   max_requests,        ↑
               │   memory limit      SIGTERM: from the arbiter, which has the replacement ready, or from anybody
               └────────────────────────┘
"""

import gc
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Any

import gevent.event
import psutil
from gunicorn.workers.ggevent import GeventWorker

from .. import clock
from ..insight import lastwords
from ..insight.observer import Insight
from ..settings import Settings, environment_name
from ..waits import primitives
from . import hangups, tls
from .balance import HEARTBEAT_SECONDS, Line, Scoreboard, State, Turn
from .drain import Drain
from .leaving import Leaving
from .listener import Listener
from .serving import Serving
from .sharing import Sharing, may_start

if TYPE_CHECKING:
    from ..ops.answering import Answering

NOTIFY_SECONDS = 1.0
# Beside its clients' connections: those to upstreams and databases, the application's files.
OTHER_FILES = 5000
# The arbiter kills at graceful_timeout; a worker that gives up a little earlier can still say so.
GIVE_UP_EARLIER_SECONDS = 1.0
# So much earlier the process ends, whatever Python's own exit still waits for; it begins when the worker is drained.
LEAVE_EARLIER_SECONDS = 0.2
# Until then requests may run; they have this time to answer that they were cut.
CUT_EARLIER_SECONDS = 2.0
LAST_ANSWER_SECONDS = 0.3
DRAIN_CHECK_SECONDS = 0.02
START_CHECK_SECONDS = 0.01
# For how long the loop of a worker that the arbiter has given up may stand still again.
ABORTED_SECONDS = 2
# What workers read under gunicorn's name, so that its command line counts. Our gunicorn.conf.py tells it our values.
GUNICORNS_NAMES = {"keepalive_seconds": "keepalive", "worker_connections": "worker_connections"}
# Not gunicorn's codes for "failed to boot": with those the arbiter ends the whole server.
EXIT_BOOT_FAILED = 1


class GreenWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker with connections of its own; arbiter, signals, settings, logging stay gunicorn's."""

    alive: bool
    is_aborted = False
    leave_until: float  # the process has to be gone by then
    max_requests: int
    began_at = 0.0  # when its process began, of those that have
    # Set by the post_fork hook; under a configuration file that has no such hook, the environment's.
    settings: Settings | None = None
    # Answers the ops process, if there is one; set by the post_fork hook.
    answering: "Answering | None" = None
    # Made in the arbiter with the first worker, and shared by all of them.
    board: Scoreboard | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Runs on: arbiter, before it forks."""
        super().__init__(*args, **kwargs)
        # The limit is ours to act on: gunicorn's own code stops a worker that reaches it before there is another.
        self.request_limit, self.max_requests = self.max_requests, sys.maxsize
        self.line: Line = shared_board().take(self)

    def patch(self) -> None:
        """gunicorn patches here, where no configuration file of ours has. Runs on: worker start-up."""
        super().patch()
        primitives.install()
        hangups.install()

    def init_process(self) -> None:
        """Runs on: worker start-up. While others serve, a worker that can't boot must not end the server."""
        self.line.pid = os.getpid()
        self.began_at = clock.now()
        try:
            super().init_process()
        except Exception:
            if self.booted or not shared_board().someone_serves(but=self.line):
                raise
            self.log.exception("this worker could not start; the others go on")
            sys.exit(EXIT_BOOT_FAILED)

    def run(self) -> None:
        settings = self.settings or self._environment_settings()
        allow_open_files(self.cfg.worker_connections + settings.most_upstream_connections)
        board = shared_board()
        self.process = psutil.Process()
        self.memory_limit_bytes = settings.worker_memory_mb * 1_000_000
        self.woken = gevent.event.Event()
        serving_class = tls.GunicornServing if tls.is_needed(self.cfg) else Serving
        self.serving = serving_class(self, settings, lambda: not self.alive)
        turn = Turn(board, self.line)
        listeners = []
        for sock in self.sockets:
            sock.setblocking(False)
            listeners.append(Listener(self.serving, sock, self.line, turn))
        loop = self.serving.loop
        # gunicorn writes to this pipe when a signal comes. Without it, signals are noticed when something else happens.
        signals = loop.io(self.PIPE[0], 1)
        signals.start(self._on_signal)
        heartbeat = loop.timer(HEARTBEAT_SECONDS, repeat=HEARTBEAT_SECONDS)
        heartbeat.start(self._beat)
        if settings.tune_gc:
            tune_gc()
        self.serving.start()
        if settings.insight:
            self.serving.insight = Insight(self.serving, settings)
            self.serving.insight.start()
            lastwords.register(self)
        self._beat()
        self.line.state = State.SERVING
        self._wait_for_the_others()
        self.serving.sharing = Sharing(board, self.line, self.serving.asked)
        for listener in listeners:
            listener.start()
        while self.alive:
            self.notify()
            self._look_at_memory()
            self.woken.wait(NOTIFY_SECONDS)
            self.woken.clear()
        if not self.is_aborted:  # who is killed has died, whatever becomes of its other requests
            self.line.state = State.DRAINING
        self._drain(listeners, settings.drain_seconds if board.is_stopping else 0)
        self._beat()
        if self.answering is not None:
            self.answering.say_last_words()
        if not self.is_aborted:
            self.line.state = State.EMPTY
        if self.serving.insight is not None:
            self.serving.insight.stop()
        self.serving.stop()
        for watcher in (signals, heartbeat):
            watcher.stop()
            watcher.close()
        Leaving(self, self.leave_until).begin()

    def _wait_for_the_others(self) -> None:
        """At the server's start: whoever is first would get all clients that wait already."""
        ready_at = clock.now()
        took = ready_at - self.began_at
        while self.alive and not may_start(
            shared_board(), self.line, self.cfg.workers, clock.now() - ready_at, started_seconds=took
        ):
            self.notify()
            self.woken.wait(START_CHECK_SECONDS)

    def _environment_settings(self) -> Settings:
        """Where gunicorn runs under another configuration file. What gunicorn has a name for, too, is told to it."""
        settings = Settings.read(os.environ)
        for name, gunicorns_name in GUNICORNS_NAMES.items():
            if os.environ.get(environment_name(name), "").strip():
                self.cfg.set(gunicorns_name, getattr(settings, name))
        return settings

    def _drain(self, listeners: list[Listener], window_seconds: float) -> None:
        board = shared_board()
        drain = Drain(
            self.serving,
            listeners,
            lambda: not board.is_stopping and board.someone_serves(but=self.line),
            window_seconds,
        )
        self.leave_until = clock.now() + max(self.cfg.graceful_timeout - LEAVE_EARLIER_SECONDS, 0)
        give_up_at = clock.now() + max(self.cfg.graceful_timeout - GIVE_UP_EARLIER_SECONDS, 0)
        cut_at = give_up_at - min(CUT_EARLIER_SECONDS, self.cfg.graceful_timeout / 4)
        notify_at = 0.0
        drain.start()
        while not drain.is_over:
            now = clock.now()
            if now > cut_at:
                if self.serving.cut_all(max(give_up_at - now, LAST_ANSWER_SECONDS)):
                    give_up_at = max(give_up_at, now + LAST_ANSWER_SECONDS)  # the loop was late
            if now > give_up_at:
                if self.serving.in_flight:
                    lastwords.say(
                        self,
                        f"Worker graceful timeout (pid:{self.pid}): {len(self.serving.in_flight)} requests are cut",
                    )
                break
            if self.is_aborted:
                signal.alarm(ABORTED_SECONDS)
            if now > notify_at:
                self.notify()
                notify_at = now + NOTIFY_SECONDS
            gevent.sleep(DRAIN_CHECK_SECONDS)
        drain.stop()

    def handle_abort(self, sig: int, frame: Any) -> None:
        """The arbiter gives this worker up: its loop has not turned for too long. Runs on: signal handler."""
        lastwords.cry(self, f"Worker {self.pid} is killed: its loop did not turn for {self.cfg.timeout} s")
        # What blocks it ends with SystemExit, if it is Python or lets signals in, and the others get their answers. But
        # if another of them blocks it as well, the kernel ends it: nobody else can while C code holds the GIL.
        self.is_aborted = True
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ABORTED_SECONDS)
        super().handle_abort(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """The worker is to go at once. Runs on: signal handler."""
        if hasattr(self, "serving") and self.serving.in_flight:
            gevent.spawn(lastwords.say, self, f"Worker {self.pid} is told to go at once")
        super().handle_quit(sig, frame)

    def _on_signal(self) -> None:
        """Runs on: hub. The handler itself has run by now; `alive` says what it wants."""
        os.read(self.PIPE[0], 4096)
        if not self.alive:
            self.woken.set()

    def _beat(self) -> None:
        line = self.line
        line.beat(clock.now())
        line.connections = len(self.serving.connections)
        if self.serving.sharing is not None:
            self.serving.sharing.beat(self.serving.admission.waiting)
        line.in_flight = len(self.serving.in_flight)
        line.requests = self.nr
        line.shed = self.serving.admission.lost_requests
        insight = self.serving.insight
        if insight is not None:
            insight.count()
            line.errors, line.expired, line.stalls = insight.errors, insight.expired, insight.stalls.total

    def request_started(self) -> None:
        self.nr += 1
        if self.nr >= self.request_limit and self.line.state == State.SERVING:
            self.retire(f"{self.nr} requests")

    def _look_at_memory(self) -> None:
        self.line.rss_bytes = rss_bytes = self.process.memory_info().rss
        if 0 < self.memory_limit_bytes < rss_bytes and self.line.state == State.SERVING:
            self.retire(f"{rss_bytes / 1e6:.0f} MB of memory")
            lastwords.say(self, f"Worker {self.pid} is over its memory limit: {lastwords.memory(self, rss_bytes)}")

    def retire(self, reason: str) -> None:
        """Serve on until a replacement has come; where nobody brings one beforehand, stop now, as gunicorn does."""
        if shared_board().has_fleet:
            self.log.info("Worker %s has reached its limit: %s. It serves until its replacement does", self.pid, reason)
            self.line.state = State.RETIRING
        else:
            self.log.info("Worker %s has reached its limit: %s", self.pid, reason)
            self.alive = False
            self.woken.set()


def shared_board() -> Scoreboard:
    """The scoreboard of this server. The first call must be in the arbiter."""
    if GreenWorker.board is None:
        GreenWorker.board = Scoreboard()
    return GreenWorker.board


def allow_open_files(connections: int) -> None:
    """Let this process open as many files as it may have connections, and some; as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def tune_gc() -> None:
    """Let the garbage collector look at what requests leave, and not at the code again and again.

    Measured (CPython 3.11, 10,000 requests of a Flask route that returns a dict, CPU time of the thread, three
    interleaved rounds): the collector's share falls from 1.9 to 0.8 %; more is not in it. What counts is the pause: a
    full collection, in which no request moves, falls from 16 ms to 1 ms with Flask loaded, from 155 ms to 1 ms with
    SQLAlchemy, Celery and 300,000 objects of the application's own.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
