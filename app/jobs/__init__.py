"""Work outside requests: `enqueue("send_mail", to=..., subject=..., text=...)`.

By Celery where there is one, otherwise on a few threads of this process (setting JOBS). Either way a job gets plain
values and an application context of its own, never a request. The jobs themselves are in `work.py`; cron can run them
as `flask jobs ...` with neither.
"""

import json
import logging

from flask import Flask, current_app
from werkzeug.exceptions import ServiceUnavailable

from ..config import Config
from ..logs import first_line
from .background import Background, TooManyJobs
from .work import JOBS

logger = logging.getLogger(__name__)


class QueueUnavailable(ServiceUnavailable):
    """The job could not be handed over, so nobody will do it: 503 where this reaches the edge of a request."""

    description = "The job queue can't take this at the moment, so nothing was done. Please try again in a moment."

    def __init__(self) -> None:
        super().__init__(retry_after=5)


def init_app(app: Flask, config: Config) -> None:
    if config.jobs == "celery":
        from .queue import make_celery  # costs a third of a second, which `flask --help` should not pay

        app.extensions["celery"] = make_celery(app, config)
    else:
        app.extensions["background"] = Background(app)


def enqueue(name: str, **values: object) -> None:
    """Have the job `name` done soon with `values`, which must be what JSON can carry: text, numbers, lists, dicts.

    Commit first: the job may run before this returns. Raises QueueUnavailable within a few seconds when the job can't
    be handed over, KeyError for a job there is not, TypeError for values that JSON can't carry.
    """
    job = JOBS[name]
    values = json.loads(json.dumps(values))  # also with threads, so that a mistake shows before production
    celery = current_app.extensions.get("celery")
    if celery is not None:
        from .queue import BROKER_ERRORS, send

        try:
            send(celery, current_app, name, values)
        except BROKER_ERRORS as exc:
            logger.error("job not queued", extra={"job": name, "reason": first_line(exc)})
            raise QueueUnavailable from exc
        return
    try:
        current_app.extensions["background"].submit(name, job, values)
    except TooManyJobs as exc:
        logger.error("job not queued", extra={"job": name, "reason": str(exc)})
        raise QueueUnavailable from exc
