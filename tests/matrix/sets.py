"""The sets of versions: what is installed, under which Python, and which features are to be off there, and why."""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Set:
    """`off` has the package of each feature that is to be off, with a part of the reason.

    `gunicorn` is installed over what `requirements` have brought. Sets of one `environment` share it.
    """

    environment: str
    python: str
    requirements: tuple[str, ...]
    gunicorn: str
    off: tuple[tuple[str, str], ...] = ()

    @property
    def has_http2(self) -> bool:
        return int(self.gunicorn.split(".")[0]) >= 25


OLDEST = (
    "flask==2.3.0", "werkzeug==2.3.0", "requests==2.31.0", "urllib3==1.26.0", "sqlalchemy==1.4.54",
    "psycopg2-binary==2.9.9", "gevent==24.10.3", "greenlet==3.2.0", "psutil==5.9.0", "python-dotenv==1.0.0",
    "packaging==23.0", "asgiref==3.4.0", "h2==4.1.0", "hpack==4.0.0",
)  # fmt: skip
NEWEST = ("flask", "requests", "sqlalchemy", "psycopg2-binary", "gevent", "asgiref", "h2")
MIDDLE = (
    "flask==3.0.*", "werkzeug==3.0.*", "requests==2.32.*", "urllib3==2.2.*", "sqlalchemy==2.0.*",
    "psycopg2-binary==2.9.10", "gevent==25.4.1", "asgiref==3.8.*", "h2==4.2.*",
)  # fmt: skip
OLD_APPLICATION = (
    "flask==2.3.*", "werkzeug==2.3.*", "requests==2.31.0", "urllib3==2.3.0", "sqlalchemy==1.4.*",
    "psycopg2-binary==2.9.9", "gevent==26.*", "asgiref==3.6.*", "h2",
)  # fmt: skip
NEW_APPLICATION = ("flask", "requests", "sqlalchemy", "psycopg2-binary", "gevent==24.11.1", "asgiref", "h2")
# Over what is newest of all else; another gunicorn in the same environment takes seconds. With the sets of other
# versions, each minor version from 23.0 to 27.0 is run but 24.0.
GUNICORNS = ("23.0.0", "24.1.1", "25.0.0", "25.1.0", "25.2.0", "26.0.0", "26.2.0")

newest = Set("newest", "3.13", NEWEST, "27.0.1")
SETS = {
    "oldest": Set("oldest", "3.11", OLDEST, "23.0.0", off=(("requests", "urllib3 1.26.0: unknown to us"),)),
    "newest": newest,
    "middle": Set("middle", "3.12", MIDDLE, "26.1.0"),
    "new server, old application": Set("old application", "3.11", OLD_APPLICATION, "27.0.1"),
    "old server, new application": Set("new application", "3.12", NEW_APPLICATION, "25.3.0"),
    **{f"gunicorn {each}": replace(newest, gunicorn=each) for each in GUNICORNS},
}


def by_environment() -> Iterator[str]:
    """The names, those of one environment together."""
    return iter(sorted(SETS, key=lambda name: SETS[name].environment))
