"""Every knob an operator can turn: its default, its range, and one sentence about it.

`.env-template`, the table of the docs and `greenroom settings` are made from these fields.
"""

from dataclasses import dataclass

from .knobs import knob

# gunicorn's path of each worker class. The green ones need patching, the others must not have it.
GREEN_WORKER_CLASSES = {
    "greenroom": "greenroom.worker.GreenWorker",
    "gevent": "gevent",
    "gevent_pywsgi": "gevent_pywsgi",
}
PLAIN_WORKER_CLASSES = {"gthread": "gthread", "sync": "sync"}
# Those of packages that are not installed mean nothing, and are no mistake.
OFFLOAD_DEFAULTS = (
    "hashlib.scrypt",
    "hashlib.pbkdf2_hmac",
    "bcrypt.hashpw",
    "bcrypt.checkpw",
    "bcrypt.kdf",
    "argon2.low_level.hash_secret",
    "argon2.low_level.hash_secret_raw",
    "argon2.low_level.verify_secret",
)


@dataclass(frozen=True)
class Fields:
    """The server's settings. Durations are seconds; 0 is a value, never "unset"."""

    wsgi_app: str = knob(
        "",
        about="The application to serve, as `module:name` or `module:factory()`, where the command line names nothing.",
    )
    web_concurrency: int = knob(
        0, low=0, high=512, about="Worker processes; 0 means as many as the cores this process may use."
    )
    bind: str = knob(
        "127.0.0.1:8000",
        about="Addresses to listen on, comma separated: `host:port`, `[::1]:port`, `unix:/path`. Unset, and PORT "
        "set as platforms do: `0.0.0.0:PORT`.",
    )
    worker_class: str = knob(
        "greenroom",
        choices=(*GREEN_WORKER_CLASSES, *PLAIN_WORKER_CLASSES),
        about="How a worker serves requests: `greenroom` is ours, `gevent` and `gevent_pywsgi` gunicorn's own; "
        "`gthread` and `sync` are there to compare with and are not patched.",
    )
    threads: int = knob(8, low=1, high=1000, about="Threads of each worker under `gthread`; no meaning elsewhere.")
    worker_connections: int = knob(
        10_000,
        low=1,
        high=100_000,
        about="Connections that one worker keeps open at the same time, idle ones included; an idle one costs 1 KB "
        "(worker class `greenroom`). Open files are allowed as many, as far as the system lets us.",
    )
    backlog: int = knob(
        2048, low=1, high=65_535, about="Connections the kernel may queue for all workers before it refuses more."
    )
    limit_requests: int = knob(
        0,
        low=0,
        high=100_000,
        about="Requests that one worker runs at the same time; 0 finds out from the load how many it can run. Others "
        "wait in line.",
    )
    client_patience_milliseconds: int = knob(
        1000,
        low=10,
        high=600_000,
        about="How long clients wait for an answer. It decides who is served when more comes than can be: nobody is "
        "turned away while its turn would come sooner than that.",
    )
    queue_limit_requests: int = knob(
        1000,
        low=0,
        high=100_000,
        about="Requests that may wait in line in one worker; as many as it serves while their clients have patience, "
        "if that is more. Beyond, the one that was overtaken for longest is turned away with 503.",
    )
    admission: str = knob(
        "on",
        choices=("on", "off"),
        about="`off`: every request runs as soon as it comes, however many there are, and none waits in line.",
    )
    request_budget_milliseconds: int = knob(
        60_000,
        low=0,
        high=86_400_000,
        about="How long a request may take until its answer begins; then the client gets 504, and what the request "
        "waits for is ended where that leaves nothing half-done. 0: as long as it takes. The default is what nginx "
        "waits for.",
    )
    clean_up_seconds: int = knob(
        5,
        low=0,
        high=3_600,
        about="The grace of a request that was ended: for so long its code may still wait for whatever it cleans up "
        "with. Afterwards each wait that can be ended raises a timeout error.",
    )
    route_budgets: str = knob(
        "",
        about="Other budgets for single paths and all below them, in milliseconds, comma separated: "
        "`/search=2000, /reports=0`. The longest path that fits counts.",
    )
    client_left_ends: str = knob(
        "safe",
        choices=("safe", "all", "off"),
        about="Requests that end when their client hangs up: `safe`, those of GET, HEAD and server-sent events; `all`; "
        "or none.",
    )
    priority_paths: str = knob(
        "",
        about="Paths that are never turned away, comma separated, with all below them; `/healthz` and `/readyz` never "
        "are.",
    )
    timeout_seconds: int = knob(
        30,
        low=0,
        high=86_400,
        about="A worker whose loop did not turn for this long is killed and replaced; it does not bound a request. "
        "0 never kills.",
    )
    graceful_timeout_seconds: int = knob(
        30, low=0, high=3_600, about="How long running requests may go on after a stop or reload before they are cut."
    )
    keepalive_seconds: int = knob(
        5, low=1, high=3_600, about="How long an idle connection is kept for the client's next request."
    )
    head_timeout_seconds: int = knob(
        10, low=1, high=3_600, about="How long a client may take to send a request's head, from its first byte."
    )
    body_timeout_seconds: int = knob(
        30, low=1, high=3_600, about="How long a client may send nothing while the application waits for its body."
    )
    send_timeout_seconds: int = knob(
        30, low=1, high=3_600, about="How long a client may take nothing of an answer before it is given up."
    )
    allow_no_host: bool = knob(
        False,
        about="Answer requests of HTTP/1.1 that have no Host, as some health checkers send them. HTTP demands 400 "
        "(RFC 9112 3.2), and applications that build URLs from Host get the server's own name.",
    )
    drain_seconds: int = knob(
        0,
        low=0,
        high=3_600,
        about="How long a server that is told to stop still accepts connections, while /readyz says that it is not "
        "ready: time for load balancers to notice. Counts towards graceful_timeout_seconds.",
    )
    max_requests: int = knob(
        0, low=0, high=10_000_000, about="A worker is replaced after this many requests; 0 never replaces."
    )
    max_requests_jitter: int = knob(
        0,
        low=0,
        high=1_000_000,
        about="Spread of max_requests between workers, so that they are not replaced together.",
    )
    worker_memory_mb: int = knob(
        0,
        low=0,
        high=1_000_000,
        about="A worker that uses more memory than this is replaced, its replacement first; 0 never replaces.",
    )
    tune_gc: bool = knob(
        True,
        about="Let the garbage collector skip what was loaded at start-up and run less often.",
    )
    forwarded_allow_ips: str = knob(
        "127.0.0.1,::1",
        about="Proxies whose X-Forwarded-Proto is believed when the server works out the scheme, comma separated.",
    )
    tls_certificate: str = knob("", about="PEM file with the certificate chain; set together with tls_key for HTTPS.")
    tls_key: str = knob("", about="PEM file with the private key of tls_certificate.")
    tls_handshake_timeout_seconds: int = knob(
        10, low=1, high=3_600, about="How long a client may take for the TLS handshake."
    )
    log_level: str = knob(
        "info", choices=("debug", "info", "warning", "error"), about="The least severe line that is logged."
    )
    access_log: bool = knob(False, about="One line for each request on standard output.")
    access_log_format: str = knob(
        "common",
        choices=("common", "json"),
        about="How that line looks: as web servers do, or as JSON with where the request's time went (worker class "
        "`greenroom`).",
    )
    insight: bool = knob(
        True,
        about="Explain each request's time, name what stops the loop, and know what is in flight (worker class "
        "`greenroom`).",
    )
    stall_threshold_milliseconds: int = knob(
        100, low=20, high=60_000, about="A loop that does not turn for this long is a stall, and its line is logged."
    )
    server_timing: str = knob(
        "trusted",
        choices=("off", "trusted", "all"),
        about="Clients that get the Server-Timing header, which names upstream hosts: none; trusted addresses that "
        "did not forward the request for somebody else; everybody.",
    )
    patch: bool = knob(True, about="Patch the standard library so that blocking calls wait in the event loop.")
    patch_requests: bool = knob(
        True,
        about="Let all of `requests` share one pool of connections to each upstream; without it each Session has pools "
        "of its own, and `requests.get()` connects anew each time.",
    )
    upstream_connections: int = knob(
        0,
        low=0,
        high=100_000,
        about="Connections of a worker to one upstream. A request that finds all of them taken waits for one. 0: as "
        "many as requests may be in flight (GREENROOM_LIMIT_REQUESTS, else GREENROOM_WORKER_CONNECTIONS), and at least "
        "100.",
    )
    upstream_idle_seconds: int = knob(
        30,
        low=1,
        high=3_600,
        about="How long a connection to an upstream is kept for the next request of its Session; for those of others a "
        "quarter of a second at most.",
    )
    upstream_age_seconds: int = knob(
        10,
        low=1,
        high=3_600,
        about="How old a connection to an upstream may become before a new one takes its place: after this and "
        "GREENROOM_DNS_TTL_SECONDS, a name that has moved is followed.",
    )
    upstream_budget: bool = knob(
        True,
        about="Tell upstreams in the header X-Request-Timeout-Ms what is left of the request's budget, if it has one.",
    )
    patch_psycopg2: bool = knob(True, about="Let psycopg2 wait in the event loop; without it a query stops its worker.")
    patch_sqlite: bool = knob(
        True, about="Let sqlite3 wait for locks in threads; without it one that waits stops its worker."
    )
    patch_dns: bool = knob(
        True,
        about="Look names up in threads of their own, remember them, and try IPv6 and IPv4 addresses side by side; "
        "without it gevent looks up, 10 names at a time.",
    )
    dns_threads: int = knob(
        16,
        low=1,
        high=256,
        about="Names that one worker looks up at the same time; slow ones don't count, up to eight times as many.",
    )
    dns_timeout_seconds: int = knob(5, low=1, high=120, about="How long looking up a name may take.")
    dns_ttl_seconds: int = knob(
        20, low=0, high=3_600, about="How long a name's addresses are used without asking again."
    )
    dns_stale_seconds: int = knob(
        300,
        low=0,
        high=86_400,
        about="How long addresses that were known may still be used when asking again hangs or fails; that a name does "
        "not exist is believed at once.",
    )
    patch_asyncio: bool = knob(
        True,
        about="Run `async def` views and `asyncio.run()` on an event loop of their own in a thread, many at once.",
    )
    offload: str = knob(
        ", ".join(OFFLOAD_DEFAULTS),
        about="Functions that compute for long without holding the interpreter: they run in threads while the request "
        "waits. Comma separated: `module.function`, `module.Class.method`, `module.*`; `off`: none.",
    )
    offload_threads: int = knob(
        0,
        low=0,
        high=512,
        about="Threads of each worker for `offload`; 0 shares the cores among the workers, at least one thread each.",
    )
    offload_drivers: str = knob(
        "",
        about="Functions that wait in C for somebody else, whole C drivers for example, and run in threads as well: "
        "`driver.*, driver.Connection.*`.",
    )
    offload_driver_threads: int = knob(
        20,
        low=1,
        high=1000,
        about="Threads of each worker for `offload_drivers`: calls that may wait at the same time.",
    )
    patch_sqlalchemy: bool = knob(
        True,
        about="Give SQLAlchemy's engines a pool that is fair, bounded by the budget, and names who holds what.",
    )
    database_hosts: int = knob(
        1,
        low=1,
        high=10_000,
        about="How many machines run this server on the same database: to warn when their pools together are larger "
        "than PostgreSQL's max_connections.",
    )
    database_silence_seconds: int = knob(
        120,
        low=1,
        high=86_400,
        about="How long a database may say nothing while somebody waits for it, before its connection is given up.",
    )
    companion: bool = knob(
        True,
        about="Start the companion that the configuration names, if it names one. The reference application's is its "
        "embedded database when DATABASE_URL is empty, and its start-up checks.",
    )
    companion_timeout_seconds: int = knob(
        90, low=1, high=3_600, about="How long the companion may take to become ready before start-up is given up."
    )

    ops_bind: str = knob(
        "127.0.0.1:8001",
        about="Where the ops page and /metrics are, `host:port` (worker class `greenroom`); `off`: nowhere.",
    )
    ops_token: str = knob(
        "",
        is_secret=True,
        about="Secret that clients of the ops page must give: 24 characters or more, from `openssl rand -hex 32`. "
        "Needed for every ops_bind but loopback, and wherever a proxy or other users of the machine can reach it.",
    )
    ops_hosts: str = knob(
        "",
        about="Names under which browsers ask for the ops page, comma separated; addresses and `localhost` always may.",
    )
    recordings_path: str = knob(
        "instance/recordings",
        about="Folder for what the flight recorder saves when lag, refusals or deadlines spike.",
    )
    recordings_kept: int = knob(20, low=0, high=1000, about="Recordings that are kept, the newest; 0 records nothing.")
    history_path: str = knob(
        "instance/history",
        about="Folder for the ops page's history of seven days, one SQLite file of at most 40 MB for each server; "
        "`off`: nothing is kept.",
    )
    ops_webhooks: str = knob(
        "",
        is_secret=True,
        about="Addresses that get a JSON message when an incident begins and when it has ended, comma separated; "
        "chat systems read its `text`.",
    )
    ops_peers: str = knob(
        "",
        about="Ops pages of the other hosts, whose verdicts this page shows: `web-2:8001`, `dns:name:8001` (each of "
        "its addresses), `file:/path` (one in a line), comma separated. All hosts need the same token.",
    )
