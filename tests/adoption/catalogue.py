"""The applications: what each needs and what it is asked, in one order, with one client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Ask:
    """One request. `json`, `form` and `body` are sent as such; cookies of earlier answers are sent along."""

    method: str
    path: str
    json: Any = None
    form: Mapping[str, str] | None = None
    body: bytes | None = None
    # Regular expressions: what may differ between two runs.
    may_differ: tuple[str, ...] = ()
    # With two workers, what each remembers for itself differs.
    is_per_process: bool = False


@dataclass(frozen=True)
class Application:
    """`module` lies in apps/; `requirements` are pip's, `shown` the distribution whose version the table shows."""

    title: str
    module: str
    requirements: tuple[str, ...]
    asks: tuple[Ask, ...]
    services: tuple[str, ...] = ()
    environ: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def name(self) -> str:
        return self.title.lower().replace(" ", "-").replace("(", "").replace(")", "").replace(".", "")


get = "GET"
post = "POST"
APPLICATIONS = (
    Application("Flask-Admin", "admin", ("flask-admin[sqlalchemy]", "Flask-SQLAlchemy"), (
        Ask(get, "/admin/product/"), Ask(post, "/admin/product/new/", form={"name": "tea"}), Ask(get, "/"),
        Ask(get, "/admin/product/edit/?id=1"), Ask(post, "/admin/product/delete/", form={"id": "1"}), Ask(get, "/"),
    )),
    Application("Dash", "dashboard", ("dash",), (
        Ask(get, "/", may_differ=(r'"end_id":"[^"]*"', r"[\w-]+~[0-9a-f]{20,}")),
        Ask(get, "/_dash-layout"), Ask(get, "/_dash-dependencies"),
        Ask(post, "/_dash-update-component", json={
            "output": "hello.children", "outputs": {"id": "hello", "property": "children"},
            "inputs": [{"id": "name", "property": "value", "value": "x"}], "changedPropIds": ["name.value"],
        }),
    )),
    Application("APIFlask", "apiflask_app", ("apiflask",), (
        Ask(get, "/pets/1"), Ask(get, "/pets/9"), Ask(post, "/pets", json={"name": "Rex", "age": 1}),
        Ask(post, "/pets", json={"age": -1}), Ask(get, "/openapi.json"),
    )),
    Application("Flask-RESTX", "restx", ("flask-restx",), (
        Ask(get, "/todos/3"), Ask("PUT", "/todos/3", json={"task": "write"}), Ask("PUT", "/todos/3", json={}),
        Ask(get, "/swagger.json"),
    )),
    Application("Flask-Security", "security", ("flask-security[common,fsqla]", "argon2-cffi"), (
        Ask(get, "/me"), Ask(post, "/login", json={"email": "me@example.org", "password": "wrong"}),
        Ask(post, "/login", json={"email": "me@example.org", "password": "password"},
            may_differ=(r'"(csrf_token|fs_uniquifier|last_update)":\s*"[^"]*"',)),
        Ask(get, "/me"), Ask(post, "/logout"), Ask(get, "/me"),
    ), note="Its passwords are hashed in threads (argon2 is offloaded)."),
    Application("Flask-Limiter", "limiter", ("flask-limiter", "redis"), (
        Ask(get, "/open"), *[Ask(get, "/limited")] * 4,
    ), services=("redis",), note="Counters in memory would be each worker's own: name a Redis."),
    Application("Flask-Caching", "caching", ("flask-caching", "redis"), (
        Ask(get, "/double/4"), Ask(get, "/double/4"), Ask(get, "/double/5"),
    ), services=("redis",), note="`SimpleCache` would be each worker's own: name a Redis."),
    Application("Celery", "celery_app", ("celery", "redis"), (
        Ask(get, "/add/1/2"), Ask(get, "/add/40/2"),
    ), services=("redis", "celery"), note="`.get()` waits in the event loop; see below."),
    Application("boto3", "storage", ("boto3", "moto[s3,server]"), (
        Ask("PUT", "/files/a.txt", body=b"hello"), Ask(get, "/files/a.txt"), Ask(get, "/files"),
    ), services=("moto",)),
    Application("SQLAlchemy 2", "orm", ("sqlalchemy>=2",), (
        Ask(post, "/notes", json={"text": "one"}), Ask(post, "/notes", json={"text": "two"}), Ask(get, "/notes"),
    )),
    Application("SQLAlchemy 1.4", "orm", ("sqlalchemy==1.4.*",), (
        Ask(post, "/notes", json={"text": "one"}), Ask(post, "/notes", json={"text": "two"}), Ask(get, "/notes"),
    ), note="Keeps its own pool: ours is made for 2."),
    Application("Django", "django_app", ("django",), (
        Ask(post, "/books", form={"title": "Emma"}), Ask(get, "/books"), Ask(post, "/protected"), Ask(get, "/none"),
    )),
    Application("Pyramid", "pyramid_app", ("pyramid", "setuptools<81"), (
        Ask(get, "/hello/world"), Ask(get, "/forbidden"), Ask(get, "/none"),
    )),
    Application("Bottle", "bottle_app", ("bottle",), (
        Ask(get, "/hello/world"), Ask(post, "/form", form={"field": "value"}), Ask(get, "/gone"),
    )),
    Application("prometheus_client", "prometheus", ("prometheus_client",), (
        *[Ask(post, "/sell/tea")] * 5, Ask(post, "/sell/milk"), Ask(get, "/metrics"),
    ), services=("metrics folder",), note="In multiprocess mode: counters over all workers."),
    Application("Sentry", "sentry", ("sentry-sdk[flask]",), (
        Ask(get, "/fails/tea"), Ask(get, "/fails/milk"), Ask(get, "/events", is_per_process=True),
    )),
    Application("OpenTelemetry", "telemetry", ("opentelemetry-sdk", "opentelemetry-instrumentation-flask"), (
        Ask(get, "/hello/world"), Ask(get, "/spans", is_per_process=True),
    ), note="From outside: `greenroom run -- opentelemetry-instrument gunicorn ...`."),
    Application("httpbin", "httpbin_app", ("httpbin",), (
        Ask(get, "/get?a=1", may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
        Ask(post, "/post", form={"a": "b"}, may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
        Ask(get, "/status/418"), Ask(get, "/gzip", may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
        Ask(get, "/stream/3", may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)), Ask(get, "/bytes/10?seed=1"),
        Ask(get, "/cookies/set?a=b"), Ask(get, "/redirect-to?url=/get"), Ask(get, "/basic-auth/me/secret"),
        Ask(get, "/drip?duration=0.2&numbytes=3&delay=0"), Ask(get, "/deflate", may_differ=(
            r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
    )),
    Application("Flask-SocketIO (threading)", "socketio_app", ("flask-socketio", "simple-websocket"), (
        Ask(get, "/"), Ask(get, "/socket.io/?EIO=4&transport=polling", may_differ=(r'"sid":"[^"]*"',)),
    ), environ={"ADOPTION_ASYNC_MODE": "threading", "WEB_CONCURRENCY": "1"},
        note="Several workers need sticky sessions, as anywhere."),
    Application("Flask-SocketIO (gevent)", "socketio_app", ("flask-socketio", "gevent-websocket"), (
        Ask(get, "/"),
    ), environ={"WEB_CONCURRENCY": "1"},
        note="It picks gevent as soon as gevent is installed: then it works with us, and no longer under gthread "
        "unless `async_mode=\"threading\"` is said."),
    Application("flask-sock", "sock", ("flask-sock",), (Ask(get, "/"), Ask(get, "/echo"))),
    Application("PyMySQL", "mysql", ("pymysql",), (Ask(get, "/one"), Ask(get, "/one")), services=("mysql",)),
)  # fmt: skip
