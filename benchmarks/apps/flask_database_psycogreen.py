"""The same route as flask_database, with what a stock gevent worker needs for it: psycogreen."""

from psycogreen.gevent import patch_psycopg

patch_psycopg()

from .flask_database import app  # noqa: E402

__all__ = ["app"]
