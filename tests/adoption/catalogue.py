"""The applications: what each needs and what it is asked, in one order, with one client."""

from .model import Application, Ask

get = "GET"
post = "POST"
# Of one worker everybody is asked what it remembers for itself.
ONE_WORKER = {"WEB_CONCURRENCY": "1"}
TRACED = (Ask(get, "/hello/world"), Ask(get, "/wrong", fails=True), Ask(get, "/none"), Ask(get, "/hello/again"))
OPENTELEMETRY = {"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
NEW_RELIC = {
    "NEW_RELIC_LICENSE_KEY": "x",
    "NEW_RELIC_DEVELOPER_MODE": "true",
    "NEW_RELIC_STARTUP_TIMEOUT": "30",  # a worker's first request waits until it is registered
}
DATADOG = {"DD_INSTRUMENTATION_TELEMETRY_ENABLED": "false", "DD_REMOTE_CONFIGURATION_ENABLED": "false"}
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
    ), note="Its passwords are hashed in threads (argon2 is offloaded).",
        not_oldest="not tried: under this name it needs Flask 3"),
    Application("Flask-Limiter", "limiter", ("flask-limiter", "redis"), (
        Ask(get, "/open"), *[Ask(get, "/limited")] * 4,
    ), services=("redis",), note="Counters in memory would be each worker's own: name a Redis."),
    Application("Flask-Caching", "caching", ("flask-caching", "redis"), (
        Ask(get, "/double/4"), Ask(get, "/double/4"), Ask(get, "/double/5"),
    ), services=("redis",), note="`SimpleCache` would be each worker's own: name a Redis."),
    Application("Celery", "celery_app", ("celery", "redis"), (
        Ask(get, "/add/1/2"), Ask(get, "/add/40/2"), Ask(get, "/group/5"), Ask(get, "/fail"),
    ), services=("redis", "celery"), note="`.get()` in a view waits in the event loop, over one subscription for all."),
    Application("boto3", "storage", ("boto3", "moto[s3,server]"), (
        Ask("PUT", "/files/a.txt", body=b"hello"), Ask(get, "/files/a.txt"), Ask(get, "/files"),
    ), services=("moto",)),
    Application("SQLAlchemy 2", "orm", ("sqlalchemy>=2",), (
        Ask(post, "/notes", json={"text": "one"}), Ask(post, "/notes", json={"text": "two"}), Ask(get, "/notes"),
    ), oldest=("sqlalchemy==2.0.*",), oldest_without=("sqlalchemy",)),
    Application("SQLAlchemy 1.4", "orm", ("sqlalchemy==1.4.*",), (
        Ask(post, "/notes", json={"text": "one"}), Ask(post, "/notes", json={"text": "two"}), Ask(get, "/notes"),
    ), note="Its pool is ours, as with 2."),
    Application("Django", "django_app", ("django",), (
        Ask(post, "/books", form={"title": "Emma"}), Ask(get, "/books"), Ask(post, "/protected"), Ask(get, "/none"),
    )),
    Application("Django on PostgreSQL", "django_app", ("django", "psycopg2-binary"), (
        Ask(post, "/books", form={"title": "Emma"}), Ask(get, "/books"), Ask(post, "/protected"), Ask(get, "/none"),
    ), services=("postgres",), note="With CONN_MAX_AGE, which has no effect: connections end with their request."),
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
        Ask(get, "/fails/tea", fails=True), Ask(get, "/fails/milk", fails=True), Ask(get, "/events"),
    ), environ=ONE_WORKER,
        note="Leave `profiler_mode` out: `thread` stops its worker under any gevent, and its own choice does not."),
    Application("OpenTelemetry", "telemetry", ("opentelemetry-sdk", "opentelemetry-instrumentation-flask"), (
        Ask(get, "/hello/world"), Ask(get, "/spans"),
    ), environ=ONE_WORKER),
    Application("OpenTelemetry (opentelemetry-instrument)", "agent", (
        "opentelemetry-distro", "opentelemetry-instrumentation-flask", "opentelemetry-instrumentation-requests",
    ), TRACED, environ=OPENTELEMETRY, launcher=("opentelemetry-instrument",),
        note="`greenroom run -- opentelemetry-instrument gunicorn -k greenroom.Worker ...`"),
    Application("New Relic", "agent", ("newrelic",), TRACED, environ=NEW_RELIC,
        launcher=("newrelic-admin", "run-program"),
        note="`greenroom run -- newrelic-admin run-program gunicorn -k greenroom.Worker ...`"),
    Application("ddtrace", "agent", ("ddtrace",), TRACED, environ=DATADOG, launcher=("ddtrace-run",),
        note="`greenroom run -- ddtrace-run gunicorn -k greenroom.Worker ...`"),
    Application("httpbin", "httpbin_app", ("brotlicffi", "decorator", "six"), (
        Ask(get, "/get?a=1", may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
        Ask(post, "/post", form={"a": "b"}, may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
        Ask(get, "/status/418"), Ask(get, "/gzip", may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
        Ask(get, "/stream/3", may_differ=(r'"(Host|User-Agent|url|origin)": "[^"]*"',)), Ask(get, "/bytes/10?seed=1"),
        Ask(get, "/cookies/set?a=b"), Ask(get, "/redirect-to?url=/get"), Ask(get, "/basic-auth/me/secret"),
        Ask(get, "/drip?duration=0.2&numbytes=3&delay=0"), Ask(get, "/deflate", may_differ=(
            r'"(Host|User-Agent|url|origin)": "[^"]*"',)),
    ), alone=("httpbin==0.10.4",),
        note="On Python 3.11 it pins greenlet < 3, which no supported gevent takes: `pip install --no-deps httpbin`."),
    Application("Flask-SocketIO (threading)", "socketio_app", ("flask-socketio", "simple-websocket"), (
        Ask(get, "/"), Ask(get, "/socket.io/?EIO=4&transport=polling", may_differ=(r'"sid":"[^"]*"',)),
    ), environ={"ADOPTION_ASYNC_MODE": "threading", "WEB_CONCURRENCY": "1"},
        note="Several workers need sticky sessions, as anywhere."),
    Application("Flask-SocketIO (gevent)", "socketio_app", ("flask-socketio", "gevent-websocket"), (
        Ask(get, "/"),
    ), environ=ONE_WORKER,
        note="It picks gevent as soon as gevent is installed: then it works with us, and no longer under gthread "
        "unless `async_mode=\"threading\"` is said."),
    Application("flask-sock", "sock", ("flask-sock",), (Ask(get, "/"), Ask(get, "/echo"))),
    Application("PyMySQL", "mysql", ("pymysql",), (
        Ask(get, "/one"), Ask(get, "/one"), Ask(post, "/sell/tea"), Ask(post, "/sell/nothing"), Ask(post, "/sell/milk"),
    ), services=("mysql",), note="Tried with MariaDB 10.11."),
    Application("pymongo", "mongo", ("pymongo",), (
        Ask(post, "/notes", json={"kind": "a", "text": "one"}), Ask(post, "/notes", json={"kind": "b", "text": "two"}),
        Ask(post, "/notes", json={"kind": "a", "text": "three"}), Ask(get, "/notes/a"), Ask(get, "/wrong"),
    ), services=("mongo",), note="Tried with a small server of ours that speaks OP_MSG and streams to the monitors."),
)  # fmt: skip
