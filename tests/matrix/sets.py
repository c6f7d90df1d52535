"""The sets of versions: what is installed, under which Python, and which features are to be off there, and why."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Set:
    """`off` has the package of each feature that is to be off, with a part of the reason."""

    python: str
    requirements: tuple[str, ...]
    off: tuple[tuple[str, str], ...] = ()
    said: tuple[str, ...] = ()  # what the log says of it, once


URLLIB3_1 = "urllib3 1.26"
SETS = {
    "oldest": Set(
        "3.11",
        (
            "flask==2.3.0", "werkzeug==2.3.0", "requests==2.31.0", "urllib3==1.26.0", "sqlalchemy==1.4.54",
            "psycopg2-binary==2.9.9", "gunicorn==25.0.0", "gevent==24.10.3", "greenlet==3.2.0", "psutil==5.9.0",
            "python-dotenv==1.0.0", "packaging==23.0",
        ),
        off=(("requests", URLLIB3_1),),
        said=(URLLIB3_1, "gunicorn 25.0.0"),
    ),
    "newest": Set("3.13", ("flask", "requests", "sqlalchemy", "psycopg2-binary", "gunicorn", "gevent")),
    "middle": Set(
        "3.12",
        (
            "flask==3.0.*", "werkzeug==3.0.*", "requests==2.32.*", "urllib3==2.2.*", "sqlalchemy==2.0.*",
            "psycopg2-binary==2.9.10", "gunicorn==26.1.*", "gevent==25.4.1",
        ),
        said=("gunicorn 26.1",),
    ),
    "new server, old application": Set(
        "3.11",
        (
            "flask==2.3.*", "werkzeug==2.3.*", "requests==2.31.0", "urllib3==2.3.0", "sqlalchemy==1.4.*",
            "psycopg2-binary==2.9.9", "gunicorn==27.*", "gevent==26.*",
        ),
    ),
    "old server, new application": Set(
        "3.12",
        ("flask", "requests", "sqlalchemy", "psycopg2-binary", "gunicorn==25.3.*", "gevent==24.11.1"),
        said=("gunicorn 25.3",),
    ),
}  # fmt: skip
