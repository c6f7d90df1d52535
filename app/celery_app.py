"""For Celery's command line: `celery -A app.celery_app worker -P gevent`, `celery -A app.celery_app beat`.

With `-P gevent` sockets and threads are patched by Celery, but psycopg2 is not told: the other jobs of that worker
stand still during a query. Ours are short, and what jobs wait for is mail servers and sources.
Stop a `-P prefork` worker by a signal to its main process only (systemd: KillMode=mixed): Celery's children die of it,
and the main process may then wait for them for ever.
"""

import logging

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from . import create_app
from .jobs.queue import make_celery, prepare_tables
from .logs import first_line

logger = logging.getLogger(__name__)


def make_worker() -> Celery:
    """The Celery application, whatever JOBS says: who starts a worker wants one."""
    app = create_app()
    config = app.extensions["config"]
    config.INSTANCE_PATH.mkdir(parents=True, exist_ok=True)
    worker = make_celery(app, config, for_worker=True)
    if not worker.is_prepared:
        try:
            prepare_tables(worker, app)
        except SQLAlchemyError as exc:
            # Celery keeps trying to reach its broker by itself.
            logger.error("database unavailable", extra={"reason": first_line(exc)})
    return worker


celery = make_worker()
