"""Celery, made from the application: the same settings, models and mail as the server.

The broker is the same PostgreSQL by default (kombu's SQLAlchemy transport) and anything Celery knows by
CELERY_BROKER_URL. How safe a message is depends on it:

    worker stopped (TERM)      what it had taken and not finished goes back to the queue, with every broker
    worker killed (kill -9)    Redis, RabbitMQ: delivered again. PostgreSQL: what the worker had taken is lost, because
                               that transport marks a message as delivered when it is taken. At most one for each of
                               its slots, and the ones that wait for their next try.
    queued, no worker running  kept, with every broker

So jobs may run twice, and all of ours can: a sweep and a purge change nothing by it, a mail that comes twice is better
than one that never comes.
"""

import logging
import smtplib
import sys
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.signals import worker_process_init
from flask import Flask
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from .. import database
from ..config import Config
from ..extensions import db
from .work import JOBS

logger = logging.getLogger(__name__)

QUEUE = "boards"
BROKER_ERRORS = (BrokerError, SQLAlchemyError, OSError)
TASK_SECONDS = 300
# A mail is tried again after about 10, 20, 40, ... seconds, at most 10 minutes, in all for about an hour.
MAIL_RETRIES = 10
MAIL_BACKOFF_SECONDS = 10
MAIL_BACKOFF_LIMIT_SECONDS = 600
# Handing a job over, in a request: three tries, each bounded by the timeouts below.
PUBLISH_RETRY = {"max_retries": 2, "interval_start": 0.1, "interval_step": 0.2, "interval_max": 0.5}
CONNECT_SECONDS = 3
LOCK_MILLISECONDS = 5000
PREPARE_SECONDS = 5

_preparing = threading.Lock()


def without_data(record: logging.LogRecord) -> bool:
    """Takes the field `data` off Celery's log records: it repeats the line, and the arguments of a job that failed."""
    record.__dict__.pop("data", None)
    return True


def make_celery(app: Flask, config: Config, *, for_worker: bool = False) -> Celery:
    """The Celery application whose tasks are our jobs, each run in a context of `app`.

    `for_worker`: it takes jobs and has all the time in the world to reach its broker; otherwise it hands them over,
    while somebody waits.
    """
    broker_url = config.CELERY_BROKER_URL or postgres_broker(app)
    is_postgres = broker_url.startswith("sqla+")
    celery = Celery("boards", broker=broker_url, set_as_current=False)
    celery.conf.update(
        # Nothing is looked at afterwards, so there is no result backend to run and to clean.
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        timezone="UTC",
        task_default_queue=QUEUE,
        # Acknowledged when done, and taken one at a time: a worker that goes away has little in its hands.
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        # A running job comes again from Redis and RabbitMQ when the broker goes away, but not from PostgreSQL.
        worker_cancel_long_running_tasks_on_connection_loss=not is_postgres,
        # Every job is bounded by itself as well; the pools `solo` and `threads` know no limit.
        task_time_limit=TASK_SECONDS,
        task_publish_retry=True,
        task_publish_retry_policy=PUBLISH_RETRY,
        broker_connection_timeout=CONNECT_SECONDS,
        broker_connection_retry_on_startup=True,
        broker_transport_options=engine_options(config, broker_url) if is_postgres else {},
        # Remote control needs a broker that can broadcast.
        worker_enable_remote_control=not is_postgres,
        # Our log lines, also in the worker.
        worker_hijack_root_logger=False,
        beat_schedule=schedule(),
        beat_schedule_filename=str(config.INSTANCE_PATH / "celerybeat-schedule"),
    )
    if not for_worker:
        celery.conf.broker_transport_options |= short_timeouts(broker_url)
    for name, job in JOBS.items():
        register(celery, app, name, job)
    celery.is_prepared = not is_postgres
    worker_process_init.connect(lambda **_: forget_connections_of_the_parent(app), weak=False)
    for name in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(name).addFilter(without_data)
    return celery


def postgres_broker(app: Flask) -> str:
    return "sqla+" + app.config["SQLALCHEMY_DATABASE_URI"].render_as_string(hide_password=False)


def engine_options(config: Config, broker_url: str) -> dict[str, Any]:
    """How the transport makes its database connections: none waits without a bound."""
    arguments = database.connect_args(
        make_url(broker_url.removeprefix("sqla+")),
        {"statement_timeout": config.DB_STATEMENT_TIMEOUT_SECONDS * 1000, "lock_timeout": LOCK_MILLISECONDS},
        connect_timeout=CONNECT_SECONDS,
        application_name="boards-jobs",
    )
    return {"pool_pre_ping": True, "pool_timeout": CONNECT_SECONDS, "connect_args": arguments}


def short_timeouts(broker_url: str) -> dict[str, Any]:
    """Return options that keep a broken broker from holding up a request. Other brokers have their own defaults."""
    scheme = broker_url.partition("://")[0]
    if scheme in ("redis", "rediss"):
        return {**PUBLISH_RETRY, "socket_connect_timeout": CONNECT_SECONDS, "socket_timeout": CONNECT_SECONDS}
    if scheme in ("amqp", "amqps", "pyamqp"):
        return {**PUBLISH_RETRY, "read_timeout": CONNECT_SECONDS, "write_timeout": CONNECT_SECONDS}
    return dict(PUBLISH_RETRY)


def schedule() -> dict[str, dict[str, Any]]:
    """Return the schedule of `celery beat`. Each job expires before the next, so none pile up while no worker runs."""
    return {
        "refresh": {
            "task": "refresh_all_boards",
            "schedule": timedelta(minutes=5),
            "options": {"expires": 290},
        },
        "purge": {"task": "purge", "schedule": timedelta(days=1), "options": {"expires": 86_000}},
    }


def register(celery: Celery, app: Flask, name: str, job: Callable[..., object]) -> None:
    """Make `job` the task `name`. A mail that is not taken now is tried again; any other failure is logged."""

    def run(task: Any, **values: object) -> None:
        try:
            with app.app_context():
                job(**values)
        except OSError as exc:
            if name != "send_mail" or is_final(exc):
                raise
            countdown = min(MAIL_BACKOFF_LIMIT_SECONDS, MAIL_BACKOFF_SECONDS * 2**task.request.retries)
            raise task.retry(exc=exc, countdown=countdown, kwargsrepr=HIDDEN) from exc

    # Not shared: each application has tasks of its own, bound to it.
    celery.task(name=name, bind=True, shared=False, max_retries=MAIL_RETRIES)(run)


HIDDEN = "{...}"  # what monitors and logs show of a job's values, which may be secret


def is_final(exc: OSError) -> bool:
    """Whether the mail server has refused for good (5xx), so that another try would change nothing."""
    if isinstance(exc, smtplib.SMTPRecipientsRefused):
        return all(code >= 500 for code, _ in exc.recipients.values())
    return isinstance(exc, smtplib.SMTPResponseException) and exc.smtp_code >= 500


def send(celery: Celery, app: Flask, name: str, values: dict[str, Any]) -> None:
    """Hand the job over. Raises one of BROKER_ERRORS when the broker does not take it, in bounded time."""
    if not celery.is_prepared:
        prepare_tables(celery, app)
    celery.tasks[name].apply_async(kwargs=values, kwargsrepr=HIDDEN)


def prepare_tables(celery: Celery, app: Flask) -> None:
    """Make the broker's tables and the queue's row if missing; kombu itself fails when two processes do so at once."""
    with _preparing, app.app_context(), database.one_at_a_time(PREPARE_SECONDS):
        with celery.connection_for_write() as connection:
            channel = connection.default_channel
            channel._new_queue(QUEUE)
            # Its transaction is still open, and a pool that forks now would share the connection.
            channel.session.close()
            channel._open()[0].dispose()
    celery.is_prepared = True


def forget_connections_of_the_parent(app: Flask) -> None:
    """In a process that `-P prefork` has just forked: a connection used by two processes answers either at random."""
    with app.app_context():
        db.engine.dispose(close=False)
    if transport := sys.modules.get("kombu.transport.sqlalchemy"):
        for engine, _ in transport.Channel._engines.values():
            engine.dispose(close=False)
