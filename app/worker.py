"""For Celery's command line: `celery -A app.worker worker -P gevent`, `celery -A app.worker beat`."""

import logging

from celery import Celery
from sqlalchemy.exc import SQLAlchemyError

from . import create_app
from .jobs.queue import make_celery, prepare_tables

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
            logger.error("database unavailable", extra={"reason": str(exc).splitlines()[0]})
    return worker


celery = make_worker()
