"""`python -m devdb.prepare`: makes the database ready before the server's workers start, and keeps it while they live.

The server starts it and holds the other end of its standard input, as do its workers. One line of JSON on standard
output says that all is ready and what to add to the workers' environment:

    {"environment": {"DATABASE_URL": "..."}}

Standard input ends when the last of them is gone, kill -9 included; only then is the embedded database let go of.
Exit codes: 0 done, 1 the embedded database can't be used, 2 wrong settings.
"""

import contextlib
import json
import logging
import os
import select
import signal
import sys
import time

from flask import Flask
from sqlalchemy.exc import SQLAlchemyError

from app import create_app, database
from app.config import ConfigError
from app.config.__main__ import print_problems

from .server import EmbeddedPostgres, EmbeddedPostgresError

logger = logging.getLogger(__name__)

CHECK_SECONDS = 1.0


def main() -> int:
    # Ctrl-C goes to the whole terminal; we are told to stop by the end of standard input, after the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    embedded: EmbeddedPostgres | None = None
    try:
        # Standard output is for the one line only.
        with contextlib.redirect_stdout(sys.stderr):
            app = create_app()
            embedded = app.extensions.get("embedded_postgres")
            warn(app, embedded)
        print(json.dumps({"environment": {"DATABASE_URL": embedded.url} if embedded else {}}), flush=True)
        wait_for_end_of_input(app, embedded)
    except ConfigError as exc:
        print_problems(exc)
        return exc.exit_code
    except EmbeddedPostgresError as exc:
        print(f"  - {exc}", file=sys.stderr)
        return exc.exit_code
    except BrokenPipeError:
        logger.warning("whoever started this is gone")
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if embedded is not None:
            embedded.stop()
    return 0


def warn(app: Flask, embedded: EmbeddedPostgres | None) -> None:
    """Say what is wrong with a database of your own. It keeps nobody from starting: /readyz tells, /healthz works."""
    problem = None if embedded else database.revision_problem(app)
    if problem:
        print(f"Warning: {problem}", file=sys.stderr, flush=True)


def wait_for_end_of_input(app: Flask, embedded: EmbeddedPostgres | None) -> None:
    """Return when standard input ends. Until then, bring the embedded server back whenever it has died."""
    next_check = time.monotonic() + CHECK_SECONDS
    while True:
        readable, _, _ = select.select([sys.stdin], [], [], max(0.0, next_check - time.monotonic()))
        if readable and not os.read(sys.stdin.fileno(), 4096):
            return
        if time.monotonic() >= next_check:
            if embedded is not None and not embedded.is_alive():
                bring_back(app, embedded)
            next_check = time.monotonic() + CHECK_SECONDS


def bring_back(app: Flask, embedded: EmbeddedPostgres) -> None:
    """Start a server that died, at the same address; the next check tries again if that fails."""
    logger.error("embedded postgres died, starting it again", extra={"folder": str(embedded.folder)})
    try:
        embedded.start()
        # Its folder may have been removed, and made anew just now.
        database.prepare_embedded(app, app.extensions["config"])
    except (EmbeddedPostgresError, SQLAlchemyError):
        logger.exception("embedded postgres did not come back")


if __name__ == "__main__":
    sys.exit(main())
