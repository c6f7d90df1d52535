"""The replacements in packages that an application may use."""

from .model import Feature, names
from .standard_library import processes
from .versions import Range

LATE_POOLS = "Makes pools of its own when they are asked for."
SAME = "Gives the same result at once where the case is a usual one."


REQUESTS = Feature(
    key="requests",
    title="one pool of connections for all sessions",
    package="requests",
    tested=(Range("requests", "2.31", "2.34"), Range("urllib3", "2.2", "2.8")),
    without="its own adapter is used, with connections for each session",
    setting="patch_requests",
    names=(
        *names("requests.adapters.HTTPAdapter", "send", "Sends over one pool of connections for each upstream and "
               "worker.", "waits/http/install", parameters="self request stream timeout verify cert proxies"),
        *names("requests.adapters.HTTPAdapter", "__init__", LATE_POOLS,
               "waits/http/install", parameters="self pool_connections pool_maxsize max_retries pool_block"),
        *names("requests.adapters.HTTPAdapter", "init_poolmanager", LATE_POOLS, "waits/http/install",
               parameters="self connections maxsize block pool_kwargs"),
        *names("requests.adapters.HTTPAdapter", "__getattr__", LATE_POOLS, "waits/http/install",
               is_added=True),
        *names("requests.adapters.HTTPAdapter", "close", "Closes its connections of the common pool, and "
               "pools of its own.", "waits/http/install", parameters="self"),
        *names("requests.cookies requests.sessions requests.adapters requests.auth", "extract_cookies_to_jar",
               "Our answers know whether they set cookies.", "waits/http/install",
               parameters="jar request response", is_optional=True),
        *names("requests.sessions.Session", "request", "A usual GET or HEAD in one step.", "waits/http/fast_path",
               parameters="self method url params data headers cookies files auth timeout allow_redirects proxies hooks"
               " stream verify cert json"),
        *names("requests.api requests", "request", "A usual GET or HEAD without a session in one step.",
               "waits/http/fast_path",
               parameters="method url kwargs"),
        *names("requests.adapters requests.auth requests.cookies requests.models requests.sessions requests.utils",
               "to_key_val_list get_auth_from_url get_netrc_auth merge_setting get_cookie_header get_environ_proxies",
               SAME, "waits/http/memo", is_optional=True),
        *names("requests.models.PreparedRequest", "prepare_url", SAME, "waits/http/memo",
               parameters="self url params"),
        *names("requests.models.PreparedRequest", "prepare_headers", SAME, "waits/http/memo",
               parameters="self headers"),
        *names("requests.structures.CaseInsensitiveDict", "__init__", SAME, "waits/http/memo",
               parameters="self data kwargs"),
        *names("requests.structures.CaseInsensitiveDict", "copy", SAME, "waits/http/memo", parameters="self"),
        *names("requests.sessions.Session", "prepare_request", SAME, "waits/http/memo",
               parameters="self request"),
        *names("requests.sessions.Session", "resolve_redirects", SAME, "waits/http/memo",
               parameters="self resp req stream timeout verify cert proxies yield_requests adapter_kwargs"),
    ),
)  # fmt: skip
URLLIB3 = Feature(
    key="urllib3",
    title="IPv6 and IPv4 addresses tried side by side",
    package="urllib3",
    tested=(Range("urllib3", "1.26", "2.8"),),
    without="it connects in its own way, one address after the other",
    setting="patch_dns",
    needs=("connecting",),
    names=names("urllib3.util.connection", "create_connection", "As socket.create_connection: it has one of its own.",
                "waits/happy_eyeballs", parameters="address timeout source_address socket_options"),
)  # fmt: skip
PSYCOPG2 = Feature(
    key="psycopg2",
    title="queries that wait in the loop",
    package="psycopg2",
    tested=(Range("psycopg2", "2.9", "2.9"),),
    without="each of its queries stops the whole worker",
    setting="patch_psycopg2",
    names=(
        *names("psycopg2.extensions", "set_wait_callback", "Its own interface for coroutine libraries: libpq's "
               "socket is waited for in the loop.", "waits/postgres", is_interface=True),
        *names("psycopg2", "_connect", "Host names are looked up first, where others can run meanwhile, and "
               "connections are bounded.", "waits/postgres"),
    ),
)  # fmt: skip
SQLALCHEMY = Feature(
    key="sqlalchemy",
    title="a fair pool that says who holds what",
    package="SQLAlchemy",
    tested=(Range("SQLAlchemy", "1.4", "2.1"),),
    without="its own pool is used",
    setting="patch_sqlalchemy",
    names=(
        *names("sqlalchemy.pool.impl sqlalchemy.pool sqlalchemy", "QueuePool", "Serves the longest waiter first, "
               "within the request's budget, and names the holders when it is exhausted.", "waits/pool",
               is_optional=True),
        *names("sqlalchemy.dialects.postgresql.psycopg.PGDialect_psycopg", "import_dbapi", "The error for a missing "
               "psycopg 3 says why it is wanted at all.", "waits/pool"),
    ),
)  # fmt: skip
FLASK_COROUTINES = Feature(
    key="flask-async",
    title="async views",
    package="Flask",
    tested=(Range("Flask", "2.3", "3.1"),),
    without="async views stop the whole worker",
    setting="patch_asyncio",
    needs=("coroutines",),
    names=names("flask.app.Flask", "async_to_sync", "An async view runs in a loop of its own, in a real thread, while "
                "its request waits.", "waits/coroutines", parameters="self func"),
)  # fmt: skip
FLASK_ERRORS = Feature(
    key="flask-errors",
    title="no report of errors whose client has left",
    package="Flask",
    tested=(Range("Flask", "2.3", "3.1"),),
    without="errors of clients that have left are logged as the application's",
    is_for_worker=True,
    names=(
        *names("flask.app.Flask", "log_exception", "An error that only tells that the client has left is no error of "
               "the application.", "worker/hangups", parameters="self exc_info"),
        *names("flask.app", "got_request_exception", "Reporters are not told of it either.", "worker/hangups"),
    ),
)  # fmt: skip
ASGIREF = Feature(
    key="asgiref",
    title="async_to_sync beside the event loop",
    package="asgiref",
    tested=(Range("asgiref", "3.4", "3.13"),),
    without="async_to_sync stops the whole worker",
    setting="patch_asyncio",
    needs=("coroutines",),
    names=(
        *names("asgiref.sync.AsyncToSync", "__call__", "Its loop ends when the request's budget does.",
               "waits/coroutines"),
        *names("asgiref.sync.SyncToAsync", "single_thread_executor", "A real thread, for blocking code of any number "
               "of loops.", "waits/coroutines"),
    ),
)  # fmt: skip
EXECNET = Feature(
    key="execnet",
    title="pytest-xdist in patched processes",
    package="execnet",
    tested=(Range("execnet", "2.0", "2.1"),),
    without="`pytest -p greenroom.pytest -n 2` hangs",
    names=names("execnet.gateway_base.ThreadExecModel", "start", "It reads a pipe in a thread: a real one.",
                "testing/xdist", parameters="self func args"),
)  # fmt: skip
SENTRY = Feature(
    key="sentry",
    title="no report of errors whose client has left",
    package="sentry-sdk",
    tested=(Range("sentry-sdk", "2.0", "2.75"),),
    without="errors of clients that have left are reported",
    is_for_worker=True,
    names=names("sentry_sdk.scope", "add_global_event_processor", "Its own interface: errors of clients that have left "
                "are dropped.", "worker/hangups", is_interface=True),
)  # fmt: skip
DJANGO = Feature(
    key="django",
    title="connections that end with their request",
    package="Django",
    tested=(Range("Django", "3.2", "5.2"),),
    without="its connections stay open until they are collected",
    is_for_worker=True,
    names=names("django.core.signals", "request_finished", "Its own interface: connections are closed with their "
                "request.", "waits/django_connections", is_interface=True),
)  # fmt: skip
MULTIPROCESS = Feature(
    key="multiprocess",
    title="multiprocess (of pathos) in the loop",
    package="multiprocess",
    tested=(Range("multiprocess", "0.70.15", "0.70.19"),),
    without="it blocks the whole worker while it waits",
    is_for_worker=True,
    needs=("multiprocessing",),
    names=processes("multiprocess"),
)
GUNICORN = Feature(
    key="gunicorn",
    title="workers replaced before they go, and access lines with timings",
    package="gunicorn",
    # 24.0.0 does not see that a worker has ended ("Unhandled signal: cld"); 24.1.0 has addresses to trust as objects:
    # nobody is trusted.
    tested=(Range("gunicorn", "23.0", "27.0", but=("24.0.0", "24.1.0")),),
    without="workers are replaced as gunicorn does",
    is_for_worker=True,
    is_required=True,
    names=(
        *names("gunicorn.arbiter.Arbiter", "manage_workers", "A new worker serves before an old one goes.",
               "worker/recycle", of_instances=True),
        *names("gunicorn.arbiter.Arbiter", "signal", "Signals that come close together are one; the second SIGTERM "
               "ends at once.", "worker/recycle", of_instances=True),
        *names("gunicorn.arbiter.Arbiter", "reap_workers", "How each worker ended is remembered; a server that stops "
               "already is not stopped a second time.", "worker/recycle", of_instances=True),
        *names("gunicorn.app.base.BaseApplication", "reload", "A configuration that can't be read changes nothing.",
               "hooks", of_instances=True),
        *names("gunicorn.glogging.Logger", "access", "The access log knows where a request's time went.",
               "insight/observer", of_instances=True),
    ),
)  # fmt: skip

FEATURES = (
    REQUESTS, URLLIB3, PSYCOPG2, SQLALCHEMY, FLASK_COROUTINES, FLASK_ERRORS, ASGIREF, EXECNET, SENTRY, DJANGO,
    MULTIPROCESS, GUNICORN,
)  # fmt: skip
