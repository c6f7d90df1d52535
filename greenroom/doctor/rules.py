"""Every rule: its level, how much it weighs among findings of that level, why it matters, and the change to make.

docs/doctor.md is made of this table; a test compares them.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    level: str
    weight: float
    reason: str
    change: str


RULES: dict[str, Rule] = {
    # The whole application.
    "import-fails": Rule(
        "error",
        100,
        "The application can't be imported in a patched process, so it can't be served.",
        "Make `module:name` importable from the working directory; the message says what was missing.",
    ),
    "import-hangs": Rule(
        "error",
        100,
        "The import did not end in time: a worker that does not become ready is killed and started again for ever.",
        "Move what waits out of the import, into the first request or a command of its own.",
    ),
    "patched-too-late": Rule(
        "error",
        95,
        "What was imported before patching holds unpatched sockets, locks or TLS contexts: they stop the loop, recurse "
        "or freeze the process.",
        "Let `greenroom serve` patch, which does it before anything else, and take the application's own call out; "
        "import the named module later.",
    ),
    "other-event-loop": Rule(
        "error",
        95,
        "Two libraries that both replace sockets and threads (eventlet, gevent, uvloop as the policy) undo each other.",
        "Keep one of them; under Greenroom that is gevent, and the application needs no call of its own.",
    ),
    "patches-itself": Rule(
        "note",
        5,
        "The application calls gevent's monkey patching itself; Greenroom has done so before.",
        "Take the call out, so that the application stays plain blocking code that runs on any server.",
    ),
    "socketio-mode": Rule(
        "note",
        6,
        "Flask-SocketIO without `async_mode` picks gevent as soon as it is installed: Greenroom serves that mode, and "
        "gthread in the same environment does no longer.",
        '`async_mode="threading"`, which every server serves.',
    ),
    # One request in another's place.
    "shared-state": Rule(
        "error",
        90,
        "A request writes a variable that all requests share and reads it after it has waited: by then another request "
        "has written it, and one user sees another's data.",
        "Keep it in a local variable, in `flask.g` or in a `contextvars.ContextVar`.",
    ),
    "answers-mixed": Rule(
        "error",
        92,
        "An answer held what another request had sent at the same time.",
        "Look for variables that requests share: globals, attributes of shared objects, default arguments.",
    ),
    "shared-connection": Rule(
        "error",
        88,
        "One database connection is used by all requests: they share a transaction, and drivers refuse or mix up "
        "replies when two use it at once.",
        "Take a connection from a pool for each request: SQLAlchemy's engine, psycopg2.pool, psycopg_pool.",
    ),
    "shared-db-session": Rule(
        "error",
        88,
        "One SQLAlchemy Session is used by all requests: they share its transaction and its objects.",
        "Use Flask-SQLAlchemy's `db.session`, or a `scoped_session` that is removed at the end of each request.",
    ),
    "shared-cookies": Rule(
        "error",
        87,
        "A `requests.Session` of the whole process keeps the cookies that upstreams set: the next user's call sends "
        "them.",
        "Give the session a cookie policy that keeps none: "
        "`session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))`.",
    ),
    "shared-event-loop": Rule(
        "error",
        86,
        "One asyncio loop is run by several requests at once: the second gets `This event loop is already running`.",
        "Call `asyncio.run()` in the request, or write the view as `async def`: Greenroom runs both on a loop of its "
        "own.",
    ),
    "process-state": Rule(
        "warning",
        70,
        "A request changes what belongs to the whole process (working directory, environment, locale, default "
        "timeouts): other requests run meanwhile and see it.",
        "Pass the value to the call that needs it; set it once at start-up if it is the same for all.",
    ),
    "deadlock": Rule(
        "error",
        89,
        "Two places take the same locks in different order: when both run, each waits for the other, for ever.",
        "Take the locks in one order everywhere, or use one lock.",
    ),
    # The loop stands.
    "stops-loop": Rule(
        "error",
        80,
        "While this line runs no other request of the worker does: it does not wait where gevent could switch.",
        "Python that computes: less of it, or a job elsewhere. C that releases the GIL: name the function in "
        "GREENROOM_OFFLOAD. C that waits for somebody: GREENROOM_OFFLOAD_DRIVERS.",
    ),
    "computes": Rule(
        "warning",
        60,
        "The request computes for long. Greenroom lets this function run in a thread, so the loop goes on; the cores "
        "are the limit all the same.",
        "Do it less often (cache, session), more cheaply, or in a job; more workers than cores do not help.",
    ),
    "driver-cannot-wait": Rule(
        "error",
        78,
        "This driver waits in C, where gevent can't switch: each query stops all requests of the worker.",
        "Another driver, or the driver's functions in GREENROOM_OFFLOAD_DRIVERS; the finding names which.",
    ),
    "import-in-request": Rule(
        "warning",
        50,
        "A heavy module is imported by the first request that needs it, in every worker: the loop stands meanwhile.",
        "Import it at the top of the module.",
    ),
    "multiprocessing": Rule(
        "warning",
        54,
        "A request starts processes by fork: each copies the worker with its open connections, and nobody bounds them.",
        "Hand the work to a job queue (Celery, RQ), or start a program with `subprocess`; where it must be "
        "multiprocessing, make one pool with the context `spawn` at start-up.",
    ),
    "debugger": Rule(
        "error",
        79,
        "A breakpoint or `input()` in a request waits for a terminal that is not there, and the loop stands.",
        "Take it out.",
    ),
    # Waits without end, and what is kept meanwhile.
    "no-timeout": Rule(
        "warning",
        75,
        "An upstream that is silent keeps a request until its budget ends (60 s by default), a thread or job for ever.",
        "Pass a timeout: a little more than the slowest answer that is still of use.",
    ),
    "held-connection": Rule(
        "warning",
        76,
        "A database connection stays in its transaction while the request waits for somebody else, so the pool serves "
        "only a few requests a second.",
        "`commit()`, `rollback()` or `close()` before the call; read what is needed first.",
    ),
    "lock-held": Rule(
        "warning",
        72,
        "A lock that all requests share is held during a wait: requests go through it one after the other.",
        "Do the wait first, and take the lock only for what changes shared data.",
    ),
    "executor-full": Rule(
        "warning",
        71,
        "An executor has fewer threads than requests that wait for it: the others stand in line.",
        "Under Greenroom threads are cheap: give `max_workers` the number of requests that may be in flight, or call "
        "the function in the request.",
    ),
    "pool-too-small": Rule(
        "warning",
        70,
        "The pool has fewer connections than requests ask for at the same time: the others wait, or get an error.",
        "Raise the pool's size towards the number of requests in flight, while workers times pools stay below what "
        "the database allows.",
    ),
    "default-pool": Rule(
        "warning",
        40,
        "SQLAlchemy's default is 5 connections and 10 more, in each worker: a worker of Greenroom runs far more "
        "requests at once, and with several workers it may still be more than the database allows.",
        "Say `pool_size`, `max_overflow=0` and a `pool_timeout` that is shorter than the request's budget.",
    ),
    "pools-above-max-connections": Rule(
        "error",
        69,
        "All workers' pools together are larger than the database's `max_connections`: under load it refuses.",
        "Make pools times workers (times machines) smaller, or put PgBouncer in between.",
    ),
    "n-plus-one": Rule(
        "warning",
        65,
        "One request runs the same statement again and again: each is a round trip to the database.",
        "Load them together: `selectinload()`/`joinedload()`, `WHERE id IN (...)`, or a join.",
    ),
    "client-per-request": Rule(
        "warning",
        62,
        "A client, engine or session is made anew for each request: its connections are opened, greeted and thrown "
        "away each time. Greenroom keeps those of `requests` in one pool for all sessions: a note only.",
        "Make it once, at module level or in the factory, and use it in all requests.",
    ),
    "thread-per-request": Rule(
        "warning",
        66,
        "Each request starts a thread (under Greenroom a greenlet) that nobody waits for or bounds: they pile up, and "
        "are lost when the worker ends.",
        "Hand the work to a job queue (Celery, RQ), or to one executor with a bound of its own.",
    ),
    "endless-retry": Rule(
        "warning",
        61,
        "A loop tries again for ever whatever the error: a request outlives its budget and its client.",
        "Bound the attempts, and let timeout errors pass.",
    ),
    "timeouts-order": Rule(
        "warning",
        45,
        "An inner wait may be longer than the outer one that gives up on it: the work goes on and nobody wants it.",
        "Order them: upstream and query < request budget < proxy; graceful < what the supervisor allows before it "
        "kills.",
    ),
    "websocket-under-budget": Rule(
        "warning",
        44,
        "A websocket lives longer than a request's budget; and a worker's recycling or reload ends all of them.",
        "Give its path no budget, `GREENROOM_ROUTE_BUDGETS=/path=0`, and let clients connect again.",
    ),
    "async-body": Rule(
        "note",
        43,
        "An `async def` view that reads the request's body blocks its event loop until the client has sent it. "
        "Greenroom gives each async view a loop in a thread of its own: others go on, and only that thread is kept.",
        "Nothing is needed under Greenroom; a plain `def` view waits for its body without a thread.",
    ),
    # Each worker for itself.
    "per-worker-state": Rule(
        "warning",
        58,
        "A cache, counter, rate limit or session in memory is one for each worker: users see different answers, and a "
        "limit of N is N times the workers.",
        "Keep it in Redis, the database or another place that all workers share.",
    ),
    "grows": Rule(
        "warning",
        63,
        "Something at module level grows with each request and is never made smaller: the worker's memory has no end.",
        "Bound it (`functools.lru_cache(maxsize=...)`, `deque(maxlen=...)`), or keep it outside of the process.",
    ),
    "conn-max-age": Rule(
        "warning",
        57,
        "Django keeps a connection for its thread's next request, and under gevent each request is its own thread: "
        "Greenroom closes connections with their request, so CONN_MAX_AGE has no effect; gevent alone keeps them.",
        "CONN_MAX_AGE = 0, and a pool: Django's own (`OPTIONS['pool']`) or PgBouncer.",
    ),
    "sqlite": Rule(
        "warning",
        42,
        "SQLite has one writer at a time for all workers, on one machine; in memory each worker has its own.",
        "Use PostgreSQL in production; keep SQLite for tests.",
    ),
    "postgresql-url-driver": Rule(
        "warning",
        56,
        "`postgresql://` means the driver psycopg (3) since SQLAlchemy 2.1, and meant psycopg2 before.",
        "Name the driver: `postgresql+psycopg2://` or `postgresql+psycopg://`.",
    ),
    "relative-path": Rule(
        "warning",
        38,
        "A path relative to the working directory means another place under systemd, in a container or in cron.",
        "Build it from `Path(__file__).parent`, `app.root_path` or `app.instance_path`.",
    ),
    # At import.
    "sleep-at-import": Rule(
        "warning",
        52,
        "The import sleeps: each worker, each reload and each command waits for it.",
        "Wait for what is needed where it is needed, with a bound; or in a start-up check of its own.",
    ),
    "io-at-import": Rule(
        "warning",
        48,
        "The import talks to the network: without the other side no worker starts, and connections are made before "
        "a fork.",
        "Do it in the first request, or in a command before the server.",
    ),
    "thread-at-import": Rule(
        "warning",
        49,
        "The import starts a thread: every worker and every command has its own, and with preload_app it is lost in "
        "the fork.",
        "Run schedulers and consumers as processes of their own; start helpers with their first use.",
    ),
    "process-at-import": Rule(
        "warning",
        47,
        "The import starts a process: every worker, reload and command does.",
        "Do it at build time, or start it beside the server.",
    ),
    "slow-import": Rule(
        "warning",
        30,
        "The import takes long: so does every reload and every replacement of a worker.",
        "Find what takes the time with `python -X importtime`; load models and tables when they are first needed.",
    ),
    # The process.
    "exits-in-request": Rule(
        "warning",
        68,
        "A request ends the process, or raises SystemExit, which no error handler answers.",
        "Raise an ordinary exception, or `abort(500)`.",
    ),
    "signal-in-request": Rule(
        "error",
        67,
        "Signals and alarms belong to the process: one that comes interrupts whichever request runs, and replaces the "
        "server's own.",
        "Bound waits with their own timeouts, or the request with its budget.",
    ),
    # The server's configuration.
    "worker-class": Rule(
        "warning",
        46,
        "The server is started with a worker class that serves only a few requests at a time, or with another event "
        "loop.",
        "`greenroom serve`, or `-k greenroom.Worker`.",
    ),
    "threads-with-gevent": Rule(
        "warning",
        35,
        "`threads` means nothing to gevent workers: each has one thread and many greenlets.",
        "Take it out.",
    ),
    "reuse-port-max-requests": Rule(
        "error",
        64,
        "With `reuse_port` each worker has its own queue of connections, and one that is recycled by `max_requests` "
        "drops those that the kernel had given it.",
        "Take `reuse_port` out: the workers share one listener.",
    ),
    "workers-above-cores": Rule(
        "warning",
        36,
        "A gevent worker uses a core when there is work; more workers than cores take turns, and each has pools and "
        "memory of its own.",
        "As many workers as cores: leave it to Greenroom, or set WEB_CONCURRENCY.",
    ),
    "preload": Rule(
        "warning",
        34,
        "`preload_app` imports the application before the fork: connections, threads and locks made at import are "
        "shared or lost in the workers.",
        "preload_app = False, which is Greenroom's default.",
    ),
    # Rules for findings of the run.
    "fails-at-once": Rule(
        "error",
        77,
        "A route that answers alone fails when several requests come at the same time.",
        "The finding has the first error; look for what requests share.",
    ),
    "differs-from-sync": Rule(
        "warning",
        59,
        "A route answers otherwise under Greenroom than under a `sync` worker.",
        "Compare both answers; look for time, randomness and process-wide state.",
    ),
    "worker-dies": Rule("error", 96, "The worker ended while it served.", "The finding has its last line."),
    "untested-version": Rule("note", 6, "Nobody has tested Greenroom with this version.", "Take a tested one."),
    "route-hangs": Rule(
        "warning",
        74,
        "A route did not answer within the time that the doctor gives it.",
        "Bound what it waits for.",
    ),
    "boto3-threads": Rule(
        "note",
        33,
        "boto3's transfers run in threads of their own with queues that gevent has made greenlets: slow, and sometimes "
        "stuck.",
        "`TransferConfig(use_threads=False)`.",
    ),
}


def markdown() -> str:
    """The part of docs/doctor.md that lists the rules."""
    parts = [f"### {name}\n\n**{rule.level}.** {rule.reason}\n\nChange: {rule.change}" for name, rule in RULES.items()]
    return "\n\n".join(parts)
