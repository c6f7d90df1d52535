"""Libraries whose first user is a request that is cut: their helpers serve the others from then on.

Each path does its work for whoever asks; `?slow=` makes the request itself last, so that it is cut.
"""

import logging
import logging.handlers
import multiprocessing.pool
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, request

app = Flask(__name__)
made: dict[str, Any] = {}
once = threading.Lock()


def helper(name: str, make: Callable[[], Any]) -> Any:
    with once:
        if name not in made:
            made[name] = make()
    return made[name]


@app.get("/")
def index() -> str:
    return "ready"


def slow(answer: Any) -> str:
    time.sleep(float(request.args.get("slow", 0)))
    return str(answer)


def counted(counter: list[int], before: int) -> str:
    """Whether a background job goes on. Takes part in no other request."""
    give_up_at = time.monotonic() + 5
    while len(counter) <= before and time.monotonic() < give_up_at:
        time.sleep(0.02)
    return "works" if len(counter) > before else "stands still"


@app.get("/pool-of-threads")
def pool_of_threads() -> str:
    pool = helper("pool", lambda: multiprocessing.pool.ThreadPool(2))
    return slow("works" if pool.map(str, range(3)) == ["0", "1", "2"] else "wrong")


@app.get("/queue-listener")
def queue_listener() -> str:
    seen: list[int] = made.setdefault("seen", [])

    def make() -> logging.Logger:
        class Seen(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                time.sleep(0.01)
                seen.append(1)

        lines: queue.Queue[Any] = queue.Queue()
        logger = logging.Logger("helpers")
        logger.addHandler(logging.handlers.QueueHandler(lines))
        logging.handlers.QueueListener(lines, Seen()).start()
        return logger

    logger, before = helper("listener", make), len(seen)
    logger.warning("a line")
    return slow(counted(seen, before))


@app.get("/timer")
def timer() -> str:
    ticks: list[int] = made.setdefault("ticks", [])

    def tick() -> None:
        ticks.append(1)
        threading.Timer(0.1, tick).start()

    helper("timer", tick)
    return slow(counted(ticks, len(ticks)))


@app.get("/loop")
def loop() -> str:
    """An asyncio loop in a thread, as synchronous code keeps one."""
    import asyncio

    def make() -> Any:
        own = asyncio.new_event_loop()
        threading.Thread(target=own.run_forever, daemon=True).start()
        return own

    async def work() -> str:
        await asyncio.sleep(0.01)
        return "works"

    return slow(asyncio.run_coroutine_threadsafe(work(), helper("loop", make)).result(5))


@app.get("/psycopg-pool")
def psycopg_pool() -> str:
    import psycopg_pool

    pool = helper("psycopg", lambda: psycopg_pool.ConnectionPool(os.environ["HELPERS_DATABASE_URL"], open=True))
    with pool.connection(timeout=5) as connection:
        found = connection.execute("SELECT 'works'").fetchone()[0]
    if request.args.get("break"):
        connection.close()
    return slow(found)


@app.get("/opentelemetry")
def opentelemetry() -> str:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    exported: list[int] = made.setdefault("exported", [])

    class Exporter(SpanExporter):
        def export(self, spans: Any) -> SpanExportResult:
            time.sleep(0.01)
            exported.extend(1 for _ in spans)
            return SpanExportResult.SUCCESS

    def make() -> Any:
        provider = TracerProvider()
        provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=100))
        return provider.get_tracer("helpers")

    tracer, before = helper("tracer", make), len(exported)
    with tracer.start_as_current_span("work"):
        pass
    return slow(counted(exported, before))


@app.get("/apscheduler")
def apscheduler() -> str:
    from apscheduler.schedulers.background import BackgroundScheduler

    ran: list[int] = made.setdefault("ran", [])

    def make() -> Any:
        scheduler = BackgroundScheduler()
        scheduler.add_job(lambda: ran.append(1), "interval", seconds=0.2)
        scheduler.start()
        return scheduler

    helper("scheduler", make)
    return slow(counted(ran, len(ran)))
