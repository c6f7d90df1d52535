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
    # Further options of pytest's; "{redis}" is the URL of a Redis that is started for each of the runs.
    options: tuple[str, ...] = ()
    # The part of its tests that is run, where it is not the whole: the table says so.
    part: str = ""

    @property
    def requirements(self) -> tuple[str, ...]:
        """pip's, for what is installed with all that it needs."""
        return self.needs if self.alone else (self.requirement, *self.needs)

    @property
    def requirement(self) -> str:
        return f"{self.distribution}[{self.extras}]" if self.extras else self.distribution


ASYNCIO, MOCK, XPROCESS = "pytest_asyncio.plugin", "pytest_mock", "xprocess.pytest_xprocess"
COVERAGE = "pytest_cov.plugin"
TELEMETRY = ("opentelemetry-test-utils", "httpretty")
RESTX_PLUGINS = (MOCK, "pytest_flask.plugin", "pytest_benchmark.plugin")
DJANGO = (
    "asgi async backends builtin_server cache db_utils dispatch file_storage files handlers httpwrappers logging_tests "
    "mail middleware middleware_exceptions requests_tests responses servers sessions_tests signals test_client "
    "transaction_hooks transactions utils_tests wsgi"
).split()
# Of Sentry's, those of its own threads and sockets, and of what many Flask applications use. Not its
# profiler: in the mode "thread" it sleeps with the time.sleep from before patching, and hangs under gevent alone, too.
SENTRY = (
    "integrations/flask integrations/redis integrations/sqlalchemy integrations/threading test_monitor.py "
    "test_sessions.py test_transport.py"
).split()
SECURITY = "basic csrf hashing misc recoverable registerable tokens trackable".split()
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
    # Its tests with a cluster, TLS or modules want Docker.
    Library(
        "redis",
        ("pytest-asyncio", "numpy", "pybreaker", "xxhash", "redis-entraid"),
        plugins=(ASYNCIO,),
        options=(
            "--redis-url={redis}", "-m", "not redismod and not ssl and not onlycluster",
            "--ignore=tests/test_asyncio", "--ignore=tests/test_scenario", "--ignore-glob=*cluster_maint*",
        ),
        part="without clusters and asyncio",
    ),
    Library(
        "kombu",
        ("hypothesis", "pytest-freezer", "boto3", "msgpack", "pyyaml", "pycurl"),
        plugins=("pytest_freezer",),
        tests=("t/unit",),
        part="its unit tests",
    ),
    Library("python-engineio", ("aiohttp", "tornado", "websocket-client"), plugins=(ASYNCIO,)),
    Library("python-socketio", ("uvicorn", "valkey", "msgpack"), plugins=(ASYNCIO,)),
    # Its integration tests want Amazon's services.
    Library("s3transfer", tests=("tests/unit", "tests/functional")),
    Library("botocore", ("jsonschema",), tests=("tests/unit",)),
    # Left out are those of its waits under gevent and eventlet: one leaves a greenlet behind that turns for ever, once
    # another test mocks gevent.sleep.
    Library(
        "celery",
        ("pytest-subtests", "pytest-click", "pytest-rerunfailures", "freezegun", "moto", "redis", "tblib", "sqlalchemy",
         "pymongo", "msgpack", "pyyaml", "cryptography", "fakeredis[lua]", "pymemcache"),
        plugins=("celery.contrib.pytest", "pytest_subtests.plugin", "pytest_click", "pytest_rerunfailures"),
        tests=("t/unit",),
        options=("--deselect=t/unit/backends/test_asynchronous.py",),
        part="its unit tests",
    ),
    # With no MongoDB, the tests that want one skip themselves.
    Library(
        "pymongo",
        ("pytest-asyncio",),
        plugins=(ASYNCIO,),
        tests=("test",),
        options=("-o", "addopts=", "-m", "default", "--ignore=test/asynchronous"),
        part="without a server and asyncio",
    ),
    # The one that is left out has two threads that turn and never wait: the second would never begin.
    Library(
        "newrelic",
        ("beautifulsoup4", "protobuf", "webtest", "certifi"),
        tests=("tests/agent_unittests",),
        options=("-o", "pythonpath=..", "--deselect=test_trace_cache.py::test_concurrent_iteration"),
        part="its agent_unittests",
    ),
    Library(
        "sentry-sdk",
        ("pytest-forked", "pytest-localserver", "jsonschema", "executing", "asttokens", "responses", "pysocks",
         "httpcore[http2]", "freezegun", "brotli", "docker", "fakeredis", "flask-login", "sqlalchemy"),
        extras="flask",
        plugins=(ASYNCIO, "pytest_forked", "pytest_localserver.plugin"),
        options=("-o", "addopts="),
        tests=tuple(f"tests/{each}" for each in SENTRY),
        part="what Flask applications use of it",
    ),
    # Those about connections, caches, files, threads and serving, and not about forms, queries or the administration.
    Library(
        "django",
        plugins=("djangos",),
        options=("-o", "python_files=test*.py"),
        tests=tuple(f"tests/{module}" for module in DJANGO),
        part=f"{len(DJANGO)} of its 214 modules",
    ),
    Library(
        "flask-security",
        ("sqlalchemy<2.1", "flask-sqlalchemy-lite", "mongomock", "mongoengine", "peewee", "zxcvbn", "authlib"),
        extras="common,mfa",
        options=("-o", "addopts="),
        tests=tuple(f"tests/test_{each}.py" for each in SECURITY),
        part=f"{len(SECURITY)} of its 29 modules",
    ),
)  # fmt: skip
