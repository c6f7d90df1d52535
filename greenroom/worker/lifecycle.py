"""A worker's life: start, serve, drain."""

import gc
import os

import gevent
from gunicorn.workers.ggevent import GeventWorker

from ..settings import Settings
from .listener import Listener
from .serving import Serving


class GreenWorker(GeventWorker):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's gevent worker with connections of its own; arbiter, signals, settings, logging stay gunicorn's."""

    alive: bool
    # Set by the post_fork hook; under a configuration file that has no such hook, the environment's.
    settings: Settings | None = None

    def run(self) -> None:
        settings = self.settings or Settings.read(os.environ)
        serving = Serving(self, settings, lambda: not self.alive)
        listeners = []
        for sock in self.sockets:
            sock.setblocking(False)
            listeners.append(Listener(serving, sock))
        serving.start()
        for listener in listeners:
            listener.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 50)
        while self.alive:
            self.notify()
            gevent.sleep(1.0)

    def request_started(self) -> None:
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
