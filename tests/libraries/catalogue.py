"""The libraries, and what their tests need beside pytest."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Library:
    """`tests` are pytest's arguments, below the folder of its source distribution."""

    distribution: str
    needs: tuple[str, ...] = ()
    tests: tuple[str, ...] = ("tests",)
    extras: str = ""
    # Installed last, without what they need: where a pin of theirs does not go with any gevent.
    alone: tuple[str, ...] = ()
    # Plug-ins of pytest: modules. Only the library's own are loaded, since the environment is everybody's.
    plugins: tuple[str, ...] = ()

    @property
    def requirements(self) -> tuple[str, ...]:
        """pip's, for what is installed with all that it needs."""
        return self.needs if self.alone else (self.requirement, *self.needs)

    @property
    def requirement(self) -> str:
        return f"{self.distribution}[{self.extras}]" if self.extras else self.distribution


ASYNCIO, MOCK, XPROCESS = "pytest_asyncio.plugin", "pytest_mock", "xprocess.pytest_xprocess"
CACHE, COVERAGE = "cacheprovider", "pytest_cov.plugin"
TELEMETRY = ("opentelemetry-test-utils", "httpretty")
RESTX_PLUGINS = (MOCK, "pytest_flask.plugin", "pytest_benchmark.plugin")
LIBRARIES = (
    Library("itsdangerous", ("freezegun",)),
    Library("blinker", ("pytest-asyncio",), plugins=(ASYNCIO,)),
    Library("flask", ("python-dotenv",), extras="async"),
    Library("werkzeug", ("cryptography", "ephemeral-port-reserve", "watchdog")),
    Library("click"),
    # The others want servers of their own: memcached, DynamoDB, MongoDB, uWSGI.
    Library(
        "cachelib",
        ("redis", "pytest-xprocess"),
        plugins=(XPROCESS,),
        tests=("tests/test_file_system_cache.py", "tests/test_simple_cache.py", "tests/test_serializers.py"),
    ),
    Library("flask-sqlalchemy", ("aiosqlite", "pytest-mock"), plugins=(MOCK,)),
    Library("flask-login", ("asgiref", "semantic-version")),
    Library("flask-wtf", ("flask-babel",)),
    Library("flask-httpauth"),
    Library("flask-cors"),
    Library("flask-caching", ("redis", "asgiref", "pytest-asyncio", "pytest-xprocess"), plugins=(ASYNCIO, XPROCESS)),
    Library("flask-smorest", ("apispec",)),
    Library(
        "flask-restx", ("faker", "pytest-flask", "pytest-mock", "pytest-benchmark", "tzlocal"), plugins=RESTX_PLUGINS
    ),
    Library(
        "apiflask",
        ("openapi-spec-validator", "flask-marshmallow", "pydantic", "pytest-cov"),
        extras="yaml,async",
        plugins=("pytest_cov.plugin",),
    ),
    Library(
        "flask-admin",
        ("beautifulsoup4", "flask-babel", "colour", "sqlalchemy-utils", "arrow"),
        tests=("flask_admin/tests",),
    ),
    Library("bottle", tests=("test",)),
    # Those with a Redis, a memcached or a MongoDB want Docker: an error in both ways.
    Library(
        "flask-limiter",
        ("redis", "pymemcache", "pymongo", "hiro", "flask-restful", "asgiref", "pytest-check", "pytest-cov",
         "pytest-mock"),
        extras="cli",
        plugins=(COVERAGE, MOCK, "pytest_check.plugin"),
    ),
    Library(
        "flask-security",
        ("authlib", "cbor2", "flask-sqlalchemy-lite", "freezegun", "mongoengine", "mongomock", "peewee", "pytest-cov",
         "sqlalchemy<2.1", "sqlalchemy-utils", "zxcvbn"),
        extras="babel,common,fsqla,mfa",
        plugins=(CACHE, COVERAGE),
    ),
    Library("flask-migrate", ("flask-sqlalchemy",)),
    Library("flask-socketio", ("redis",), tests=("test_socketio.py",)),
    Library("flask-sock"),
    Library("simple-websocket"),
    Library("pyramid", ("webtest", "zope.component", "setuptools<81")),
    Library("prometheus-client"),
    Library("httpbin", ("brotlicffi", "decorator", "flasgger", "six"), alone=("httpbin==0.10.4",)),
    Library("opentelemetry-instrumentation-flask", TELEMETRY),
    Library("opentelemetry-instrumentation-wsgi", TELEMETRY),
    Library("opentelemetry-instrumentation-requests", TELEMETRY),
)  # fmt: skip
