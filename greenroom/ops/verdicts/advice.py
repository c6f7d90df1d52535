"""Advice on exceptions of libraries that many applications meet."""

# For exceptions whose own text does not tell everybody what to do. The first that fits counts: one of its words is in
# the class, the class that began it, or the message.
KNOWN = (
    (
        ("WRONG_VERSION_NUMBER", "BadStatusLine", "InvalidChunkLength", "UnknownProtocol"),
        "{subject} answers something that is no HTTP, or no TLS: see whether the port is right, and whether it is http "
        "or https (curl -v).",
    ),
    (
        ("CertVerification", "CERTIFICATE_VERIFY_FAILED"),
        "The certificate of {host} is expired, made for another name, or signed by an authority that this machine does "
        "not know: openssl s_client -connect HOST:PORT shows it. Renew it there, or give verify= its authority.",
    ),
    (
        ("SSLError", "SSLEOFError"),
        "TLS with {host} fails: see its address, port and versions of TLS (openssl s_client -connect HOST:PORT).",
    ),
    (
        ("IncompleteRead", "ChunkedEncodingError"),
        "{subject} breaks its answers off in the middle: its process is killed, or a proxy before it has a timeout.",
    ),
    (
        ("RemoteDisconnected", "RemoteProtocolError", "Connection reset", "ConnectionResetError"),
        "{subject} closes connections without an answer: its process is killed or restarted, or its keep-alive is "
        "shorter than ours.",
    ),
    (
        ("ReadTimeout", "ConnectTimeout", "ReadTimeoutError"),
        "{subject} does not answer within the timeout of the call: see why it is slow before that is raised.",
    ),
    (
        ("QueuePool limit",),
        "No connection of the pool got free in time: see under pools who has them; one that is kept while something "
        "else is waited for, or that is not given back, is the cause more often than a pool too small.",
    ),
    (
        ("exceptions.TimeoutError", "TimeoutError: timed out", "socket.timeout"),
        "{subject} does not answer within the timeout of the call: see why it is slow before that is raised.",
    ),
    (
        ("FileNotFoundError",),
        "It is not there on this host: was it deployed, made, mounted? The path is in the log.",
    ),
    (
        ("Temporary failure in name resolution",),
        "The name server does not answer: see resolv.conf, and whether that server runs (getent hosts NAME).",
    ),
    (
        ("gaierror", "NameResolutionError"),
        "The name is wrong, or the name server does not know it: getent hosts NAME, and resolv.conf.",
    ),
    (
        ("database is locked",),
        "SQLite has one writer at a time, and another transaction was open for longer than the timeout: commit before "
        "anything else is waited for, keep transactions short, or move to PostgreSQL.",
    ),
    (
        ("RecursionError",),
        "The function at that line calls itself without an end: data with a circle, or no last case.",
    ),
    (
        ("deadlock detected", "DeadlockDetected"),
        "Transactions lock the same rows in different order: order them alike, and repeat the one that fails.",
    ),
    (
        ("statement timeout", "QueryCanceled"),
        "The query took longer than statement_timeout, or waited for a lock: EXPLAIN it, and see pg_stat_activity.",
    ),
    (
        ("UndefinedTable", "UndefinedColumn", "no such table", "no such column", "Unknown column"),
        "The code knows more than the tables: run the migrations that belong to it (flask db upgrade), or go back to "
        "the code before it.",
    ),
    (
        ("ReadOnlySqlTransaction", "read-only transaction", "ReadOnlyError", "READONLY You can't write"),
        "It leads to a server that can only be read, a standby after a failover mostly: let the address lead to the "
        "primary, and connect anew (a reload does).",
    ),
    (
        (
            "password authentication failed",
            "InvalidPassword",
            "InvalidAuthorization",
            "AuthenticationError",
            "WRONGPASS",
            "NOAUTH",
            "no pg_hba.conf entry",
            'role "',
        ),
        "The login is refused: a password that was changed, or another user, in the URL that this server has (its "
        "environment is read at a start).",
    ),
    (
        ("too many clients already", "remaining connection slots", "too many connections", "Too many connections"),
        "The database has no free connection slot: see who holds them (pg_stat_activity, SHOW PROCESSLIST); lower "
        "pool_size + max_overflow of all processes that use it, put a pooler before it (PgBouncer), or raise "
        "max_connections there.",
    ),
    (
        ("query_wait_timeout", "client_login_timeout"),
        "PgBouncer had no connection to the database for it in time: see SHOW POOLS there; raise its "
        "default_pool_size, or see which transactions last long (pg_stat_activity).",
    ),
    (
        ("canceling statement due to lock timeout", "LockNotAvailable", "Lock wait timeout exceeded"),
        "Another transaction has the lock, and is left open or takes long: pg_blocking_pids(pid) of pg_stat_activity "
        "names it. End that one, not more of these.",
    ),
    (
        ("ConnectionRefusedError", "Connection refused"),
        "Nobody listens there: see whether it runs, and whether the address is right.",
    ),
    (
        ("PermissionError", "Permission denied"),
        "The server's user may not do that: see the owner and the mode of that path (ls -ld), and after a deploy "
        "whether the server runs as the same user.",
    ),
    (
        ("OOM command not allowed", "redis.exceptions.OutOfMemoryError"),
        "Redis is at its maxmemory and may forget nothing: raise it, give keys a time to live, or set maxmemory-policy "
        "(redis-cli INFO memory).",
    ),
    (
        ("MISCONF",),
        "Redis refuses writes since it can't save its data: the disk there is full or can't be written (redis-cli INFO "
        "persistence).",
    ),
    (
        ("BusyLoadingError", "LOADING Redis"),
        "Redis has been started and loads its data: it is back by itself; see why it was started.",
    ),
    (
        (
            "AdminShutdown",
            "CrashShutdown",
            "CannotConnectNow",
            "terminating connection",
            "server closed the connection",
        ),
        "PostgreSQL was restarted or ended the connection: see its log; new connections are made by themselves.",
    ),
    (
        ("ModuleNotFoundError", "No module named"),
        "A package that the code needs is not installed here: install its requirements.",
    ),
    (
        ("BrokenProcessPool",),
        "A child process of the pool has died, of memory mostly: see dmesg; the pool has to be made anew.",
    ),
    (
        ("JSONDecodeError",),
        "What came is no JSON, an error page or nothing mostly: look at the status before the body is read.",
    ),
)
