"""A worker's life: boot, serve, ask for a replacement, drain.

BOOTING ──> SERVING ──> RETIRING ──> DRAINING ──> gone
               │   max_requests,        ↑
               │   memory limit      SIGTERM: from the arbiter, which has the replacement ready, or from anybody
               └────────────────────────┘
"""

import atexit
import faulthandler
import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import gevent.event
from greenlet import getcurrent
from gunicorn.arbiter import Arbiter
from gunicorn.workers.ggevent import GeventWorker

from .. import clock, finding, forking, joining
from ..gunicorns_parts import Config, Log
from ..insight import lastwords, stacks
from ..insight.observer import Insight
from ..settings import Settings
from ..waits import children, descriptors, giving_way, processes, programs, stdlib, subprocesses
from . import boot_failure, gunicorns, hangups
from .balance import HEARTBEAT_SECONDS, Line, Scoreboard, State, Turn
from .drain import Drain
from .leaving import Leaving
from .left_files import LeftFiles
from .listener import Listener
from .memory_limit import MemoryLimit
from .process import allow_open_files, main_greenlet, tune_gc
from .serving import Serving
from .sharing import Sharing, may_start
from .signals import Signals, real_signal
from .system_errors import SystemErrors
from .unserved import demand_served

if TYPE_CHECKING:
    from ..ops.worker_server import WorkerServer

NOTIFY_SECONDS = 1.0
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
# gevent counts what its loop waits for, also in threads that wake greenlets, without a lock: a few of a million counts
# are lost. At 0 the loop would end, and the worker with it.
LOOP_RESERVE = 100_000
# Not gunicorn's codes for "failed to boot": with those the arbiter ends the whole server.
EXIT_BOOT_FAILED = 1


class GreenWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker with connections of its own; arbiter, signals, settings, logging stay gunicorn's."""

    is_greenroom = True
    alive: bool
    is_aborted = False
    # Once the process is to end at once, whatever runs.
    is_over = False
    # From when requests may run, until the last is answered.
    is_serving = False
    leave_until: float  # the process has to be gone by then
    max_requests: int
    began_at = 0.0  # when its process began, of those that have
    # Set by the post_fork hook.
    settings: Settings | None = None
    # Answers the ops process, if there is one; set by the post_fork hook.
    worker_server: "WorkerServer | None" = None
    # Made in the arbiter with the first worker, and shared by all of them.
    board: Scoreboard | None = None

    @classmethod
    def setup(cls) -> None:
        """gunicorn calls this when it has read its configuration, and before it imports the application.

        Runs on: arbiter.
        """
        joining.prepare_arbiter()

    @classmethod
    def check_config(cls, cfg: Config, log: Log) -> None:
        """gunicorn calls this when it listens, before the first worker. Runs on: arbiter."""
        demand_served(cfg, log)
        joining.join(cfg)

    def __init__(self, *args: object, **kwargs: object) -> None:
        """Runs on: arbiter, before it forks."""
        super().__init__(*args, **kwargs)
        forking.tell_company(self.cfg.preload_app)
        # The limit is ours to act on: gunicorn's own code stops a worker that reaches it before there is another.
        self.request_limit, self.max_requests = self.max_requests, sys.maxsize
        self.line: Line = shared_board().take(self)

    def patch(self) -> None:
        """Runs on: worker start-up, before gunicorn makes the hub its own. This process was patched in the arbiter."""
        children.install()
        listeners = list(self.sockets)
        super().patch()
        for listener in listeners:
            gunicorns.let_go(listener)
        subprocesses.install()
        processes.install()
        descriptors.install()
        giving_way.install()
        programs.install()
        stdlib.install()
        hangups.install()

    def load_wsgi(self) -> None:
        """Import the application, which may fork from now on. Runs on: worker start-up."""
        forking.renew_loop()
        forking.arm()
        forking.in_child(self.leave_to_parent)
        Signals(lambda: self.is_serving, self.end_gracefully).install()
        SystemErrors(lambda: self.is_serving and not self.is_over, self.end_gracefully).install()
        self._register_stacks()
        self.notify()  # the arbiter's clock begins to run: without a first beat it waits for ever
        try:
            super().load_wsgi()
            finding.refuse_factory(self.wsgi, getattr(self.app, "app_uri", None) or "the application")
        except BaseException as exc:
            if forking.is_child():
                forking.leave(exc)
            if isinstance(exc, SystemExit) and self.alive:  # the application's own, not the arbiter's wish
                self._leave_unstarted(exc, ends_server=False)
            raise
        if forking.is_child():  # forked by a module of the application's, it has come to the end of it
            forking.leave()

    def _register_stacks(self) -> None:
        """Prepare for telling its stacks, before the application is imported: an import may hang, too."""
        if self.settings is None or self.settings.insight:
            lastwords.register(self)

    def leave_to_parent(self) -> None:
        """Serving is the parent's: hold nothing of it open, and let signals mean what they mean anywhere else.

        Runs on: a child that the application forked, in whatever greenlet or thread forks.
        """
        for number in self.SIGNALS:
            if getattr(signal.getsignal(number), "__self__", None) is self:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        faulthandler.disable()
        descriptors = [sock.fileno() for sock in self.sockets] + list(self.PIPE) + [self.tmp.fileno()]
        if self.worker_server is not None:
            descriptors += self.worker_server.descriptors()
        if hasattr(self, "serving"):
            descriptors += self.serving.leave_to_parent()
            if self.serving.insight is not None:
                self.serving.insight.leave_to_parent()
        forking.release([descriptor for descriptor in descriptors if descriptor >= 0])

    def init_process(self) -> None:
        """Runs on: worker start-up. While others serve, a worker that can't boot must not end the server."""
        self.line.pid = os.getpid()
        self.began_at = clock.now()
        try:
            super().init_process()
        except Exception as exc:
            if self.booted:
                raise
            self._leave_unstarted(exc, ends_server=not shared_board().someone_serves(but=self.line))

    def _leave_unstarted(self, exc: BaseException, ends_server: bool) -> NoReturn:
        if self.worker_server is not None:
            self.worker_server.say_boot_failed(exc)
        said = boot_failure.explain(exc)
        self.line.boot_cause = boot_failure.cause(said)
        self.log.error("%s", said if ends_server else f"this worker could not start, the others go on: {said}")
        sys.exit(Arbiter.APP_LOAD_ERROR if ends_server else EXIT_BOOT_FAILED)

    def run(self) -> None:
        settings = self.settings or Settings.read(os.environ)
        too_few = allow_open_files(self.cfg.worker_connections, settings.most_upstream_connections)
        if too_few and self.age <= self.cfg.workers:  # once for each place, not for each that comes later
            self.log.warning("%s", too_few)
        board = shared_board()
        memory = MemoryLimit(
            self.pid, self.line, settings.worker_memory_mb * 1_000_000, self._over_memory_limit, self.log
        )
        self.woken = gevent.event.Event()
        self.serving = Serving(self, settings, lambda: not self.alive)
        self.left_files = LeftFiles()
        turn = Turn(board, self.line)
        listeners = []
        for sock in self.sockets:
            sock.setblocking(False)
            listeners.append(Listener(self.serving, sock, self.line, turn))
        loop = self.serving.loop
        for _ in range(LOOP_RESERVE):
            loop.ref()
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
            if self.worker_server is not None:
                self.worker_server.say_where(self.serving.insight)
            # However this process ends: while the interpreter is taken down there is no current greenlet to ask for.
            atexit.register(self.serving.insight.locks.remove)
        self._beat()
        self.line.state = State.SERVING
        self._wait_for_the_others()
        self.serving.sharing = Sharing(board, self.line, self.serving.asked)
        for listener in listeners:
            listener.start()
        self.is_serving = True
        while self.alive:
            self.notify()
            memory.look()
            self.serving.cycle.floods.tell()
            self.woken.wait(NOTIFY_SECONDS)
            self.woken.clear()
        if not self.is_aborted:  # who is killed has died, whatever becomes of its other requests
            self.line.state = State.DRAINING
        self._drain(listeners, settings.drain_seconds if board.is_stopping else 0)
        self.serving.cycle.floods.tell(is_end=True)
        self._beat()
        if self.worker_server is not None:
            self.worker_server.say_last_words()
        if not self.is_aborted:
            self.line.state = State.EMPTY
        if self.serving.insight is not None:
            self.serving.insight.stop()
        atexit.register(forking.outlive_me)
        self.serving.stop()
        for watcher in (signals, heartbeat):
            watcher.stop()
            watcher.close()
        Leaving(self, self.leave_until).begin()

    def _wait_for_the_others(self) -> None:
        """At the server's start: the first worker would get all clients that wait already."""
        ready_at = clock.now()
        took = ready_at - self.began_at
        while self.alive and not may_start(
            shared_board(), self.line, self.cfg.workers, clock.now() - ready_at, started_seconds=took
        ):
            self.notify()
            self.woken.wait(START_CHECK_SECONDS)

    def _drain(self, listeners: list[Listener], window_seconds: float) -> None:
        board = shared_board()
        drain = Drain(
            self.serving,
            listeners,
            lambda: not board.is_stopping and board.someone_serves(but=self.line),
            window_seconds,
        )
        self.leave_until = clock.now() + max(self.cfg.graceful_timeout - LEAVE_EARLIER_SECONDS, 0)
        give_up_at = (
            clock.now() + self.cfg.graceful_timeout - min(GIVE_UP_EARLIER_SECONDS, self.cfg.graceful_timeout / 4)
        )
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

    def init_signals(self) -> None:
        """Let signals through: the parent held them back until this process has its own handlers."""
        super().init_signals()
        forking.let_all_signals_in()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop. A worker that still imports the application has nothing to finish. Runs on: signal handler."""
        super().handle_exit(sig, frame)
        if not self.booted:
            self._exit_main(0)

    def end_gracefully(self) -> None:
        """Drain, as after SIGTERM. Runs on: anywhere in the loop's thread."""
        self.alive = False
        os.write(self.PIPE[1], b".")

    def _exit_main(self, code: int) -> None:
        """End the process from its main greenlet, whatever greenlet a signal handler happens to run in."""
        main = main_greenlet()
        if main is getcurrent():
            sys.exit(code)
        gevent.get_hub().loop.run_callback_threadsafe(main.throw, SystemExit(code))

    def handle_abort(self, sig: int, frame: FrameType | None) -> None:
        """The arbiter gives this worker up: its loop has not turned for too long. Runs on: signal handler."""
        if self.booted:
            lastwords.cry(self, f"Worker {self.pid} is killed: its loop did not turn for {self.cfg.timeout} s")
        else:
            main = main_greenlet()
            where = stacks.guilty_of_frame(frame if main is getcurrent() else main.gr_frame)
            lastwords.cry(
                self,
                f"Worker {self.pid} is killed: it imports the application, and for {self.cfg.timeout} s that "
                f"did not come to its end: it is at {where}",
            )
        # Code that blocks the loop ends with SystemExit, if it is Python or lets signals in, and the others get their
        # answers. But if another blocks it as well, the kernel ends it: while C code holds the GIL, nothing else can.
        self.is_aborted = self.is_over = True
        real_signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(ABORTED_SECONDS)
        super().handle_abort(sig, frame)

    def handle_quit(self, sig: int, frame: FrameType | None) -> None:
        """The worker is to go at once. Runs on: signal handler."""
        self.is_over = True
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
        self.left_files.look(len(self.serving.connections), len(self.serving.in_flight))
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

    def _over_memory_limit(self, rss_bytes: int) -> None:
        if self.line.state == State.SERVING:
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
