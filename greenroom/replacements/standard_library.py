"""The replacements in Python's standard library, and in gevent, which is under it."""

from .model import Feature, Name, names
from .versions import PYTHON, Range

PYTHONS = Range(PYTHON, "3.11", "3.13")
GEVENTS = Range("gevent", "24.10.3", "26.9")
BOTH = (GEVENTS, PYTHONS)
STDLIB = "waits/stdlib"
LOOKS = "Is named; it does not end with its request, as that would leave a conversation half-way."
FOR_REQUEST = "A greenlet that a request starts works for it."
OF_A_POOL = "A greenlet of a pool that a request starts works for it."
REAL_THREAD_313 = "A thread that a real thread starts is a real thread (since Python 3.13)."
REAL_THREAD_312 = "A thread that a real thread starts is a real thread (until Python 3.12)."
BLOCKS = "A real thread blocks, and gets no event loop for this."
TAKEN_BACK = "Is never ended: what follows releases the lock."
OF_HANDLERS = "Our lock instead of gevent's, in handlers that were there before patching."
MEANWHILE = "Runs in a real thread while its request waits."
IN_THREADS = "Gives out connections whose calls wait in a thread for a lock."


CHILDREN = Feature(
    key="children",
    title="waiting for child processes",
    package="gevent",
    tested=BOTH,
    without="gevent's own waiting for children is used",
    is_for_worker=True,
    names=names(
        "gevent.config",
        "loop",
        "A loop that waits for each child by a descriptor of its own (pidfd): exit codes are not lost to a common "
        "reaper, in any thread, whatever handles SIGCHLD. Freed without writing into memory that is not its own.",
        "waits/children",
    ),
)
SUBPROCESSES = Feature(
    key="subprocesses",
    title="CPython's own subprocess",
    package="gevent",
    tested=BOTH,
    without="gevent's own subprocess is used",
    is_for_worker=True,
    needs=("children",),
    is_open=True,  # gevent's replacements in `subprocess`, by whatever names
    names=(
        *names(
            "subprocess",
            "Popen run check_call check_output call",
            "CPython's own again: it starts programs in C, without Python code between fork and exec.",
            "waits/subprocesses",
            is_optional=True,
        ),
        *names("subprocess.Popen", "_wait", "Waits for the end of the process in the loop.", "waits/subprocesses",
               parameters="self timeout"),
        *names("subprocess", "io", "Makes file objects of pipes that wait in the loop.", "waits/subprocesses"),
        *names("subprocess", "_PopenSelector", "communicate() with several pipes waits in the loop.",
               "waits/subprocesses"),
        *names("os", "posix_spawn posix_spawnp", "The system's: gevent's watcher reaps the process, and its exit code "
               "is lost to subprocess.", "waits/subprocesses"),
        *names("os", "close", "Closes at once, and not with the next turn of the loop: the reader of a pipe sees its "
               "end.", "waits/closing"),
    ),
)  # fmt: skip
DESCRIPTORS = Feature(
    key="descriptors",
    title="pipes, terminals and locks of files in the loop",
    package=PYTHON,
    tested=BOTH,
    without="os.read, os.write and fcntl.flock block the whole worker",
    is_for_worker=True,
    names=(
        *names("os", "read write", "A descriptor that would block is waited for in the loop.", "waits/descriptors"),
        *names("os", "fdopen", "A file over a pipe waits in the loop.", "waits/descriptors"),
        *names("fcntl", "flock lockf", "A lock that somebody else has is asked for again and again.",
               "waits/descriptors"),
        *names("gevent.socket.socket", "recv recv_into send", "After half a megabyte others have their turn.",
               "waits/giving_way"),
        *names("gevent.ssl.SSLSocket", "read send", "After half a megabyte others have their turn; send() of one that "
               "does not block raises where it would have to, as CPython's does.", "waits/giving_way"),
    ),
)  # fmt: skip
PROGRAMS = Feature(
    key="programs",
    title="os.system and os.waitpid in the loop",
    package=PYTHON,
    tested=BOTH,
    without="os.system and os.wait block the whole worker",
    is_for_worker=True,
    needs=("children",),
    names=(
        *names("os", "waitpid wait wait3 wait4 waitid system", "Waits in the loop, whoever started the process.",
               "waits/programs"),
        *names("gevent.os", "waitpid", "The same by its other name.", "waits/programs"),
    ),
)  # fmt: skip
EARLY = Feature(
    key="early",
    title="greenroom run: patched first, also before agents",
    package=PYTHON,
    tested=(PYTHONS,),
    without="a program that an agent becomes is not patched first",
    is_for_worker=True,
    names=names("os", "execv execve", "The program that this one becomes begins patched as well.", "early_hook"),
)  # fmt: skip


def processes(package: str) -> tuple[Name, ...]:
    """The names of `multiprocessing`, or of a copy of it."""
    return (
        *names(f"{package}.connection.Connection", "__init__", "Its descriptor blocks, as the process at the other "
               "end expects.", "waits/processes"),
        *names(f"{package}.connection.Connection", "_send", "Waits in the loop for room in the pipe.",
               "waits/processes"),
        *names(f"{package}.connection.Connection", "_recv", "Waits in the loop for something to read.",
               "waits/processes", parameters="self size read"),
        *names(f"{package}.connection", "_WaitSelector", "connection.wait() waits in the loop.", "waits/processes"),
        *names(f"{package}.synchronize.SemLock", "_make_methods __enter__", "A semaphore that another process holds "
               "is asked for again and again, and not waited for in C.", "waits/processes", parameters="self"),
    )  # fmt: skip


MULTIPROCESSING = Feature(
    key="multiprocessing",
    title="multiprocessing in the loop",
    package=PYTHON,
    tested=BOTH,
    without="multiprocessing blocks the whole worker while it waits",
    is_for_worker=True,
    names=processes("multiprocessing"),
)  # fmt: skip
WAITS = Feature(
    key="waits",
    title="waits that end with their request",
    package="gevent",
    tested=BOTH,
    without="gevent's own locks and waits are used, and no wait ends with its request",
    is_for_worker=True,
    is_open=True,
    names=(
        *names("gevent.hub.Hub", "switch", "The one place through which every wait goes: it is charged to its request, "
               "and its deadline kept.", f"{STDLIB}/hub", parameters="self", is_chained=True),
        *names("time", "sleep", "Is named, and ends with its request.", f"{STDLIB}/calls"),
        *names("gevent.socket.socket", "_wait", "A socket's wait is named by where it leads to; one that was ended "
               "leaves a socket that is shut down.", f"{STDLIB}/calls"),
        *names("gevent.socket.socket", "connect", "Connecting is named by where it leads to.", f"{STDLIB}/calls"),
        *names("gevent.select select", "select", LOOKS, f"{STDLIB}/calls"),
        *names("gevent.select.poll", "poll", LOOKS, f"{STDLIB}/calls", parameters="self timeout"),
        *names("gevent.selectors.GeventSelector", "select", LOOKS, f"{STDLIB}/calls",
               parameters="self timeout"),
        *names("subprocess.Popen", "wait communicate", "Is named, and ends with its request.", f"{STDLIB}/calls"),
        *names("gevent.thread", "_start_new_greenlet", "A thread that a request starts works for it.",
               f"{STDLIB}/threads"),
        *names("gevent", "spawn spawn_later spawn_raw", FOR_REQUEST, f"{STDLIB}/threads"),
        *names("gevent.pool.Group", "start", OF_A_POOL, f"{STDLIB}/threads", parameters="self greenlet"),
        *names("threading.Thread", "start", "Starting a thread is not ended half-way.", f"{STDLIB}/threads",
               parameters="self"),
        *names("threading.Thread", "_wait_for_tstate_lock", "Thread.join ends with its request (until Python 3.12).",
               f"{STDLIB}/threads", parameters="self block timeout", is_optional=True),
        *names("threading.Thread", "join", "Ends with its request (since Python 3.13).", f"{STDLIB}/threads",
               parameters="self timeout"),
        *names("concurrent.futures.thread.ThreadPoolExecutor", "submit", "One call works for the request that asks "
               "for it, and not all of its thread.", f"{STDLIB}/threads", parameters="self fn args kwargs"),
        *names("_thread", "allocate_lock allocate LockType lock RLock", "Locks for greenlets and real threads alike: "
               "gevent's lose wake-ups between them.", f"{STDLIB}/locks", is_optional=True),
        *names("threading", "Lock _allocate_lock _set_sentinel _CRLock", "Locks for greenlets and real threads alike.",
               f"{STDLIB}/locks",
               is_optional=True),
        *names("functools", "RLock", "Our lock in cached_property (until Python 3.11).", f"{STDLIB}/locks",
               is_optional=True),
        *names("queue", "SimpleQueue", "A queue for greenlets and real threads alike.", f"{STDLIB}/queues"),
        *names("threading", "Event", "CPython's own again, over our locks.", f"{STDLIB}/replacing"),
        *names("queue", "Queue LifoQueue PriorityQueue", "CPython's own again, with all that they have.",
               f"{STDLIB}/replacing"),
        *names("ssl", "get_server_certificate", "CPython's own again, with its timeout.", f"{STDLIB}/replacing"),
        *names("select", "epoll", "Brought back, waiting in the loop; gevent removes it.", f"{STDLIB}/epoll",
               is_added=True),
        *names("selectors", "EpollSelector", "The selector over it, which gevent removes.", f"{STDLIB}/epoll",
               is_added=True),
        *names("threading", "_active_limbo_lock", "One that can be taken again, by the garbage collector say.",
               f"{STDLIB}/replacing"),
        *names("threading.Thread", "_tstate_lock", "The main thread's, which gevent has made.", f"{STDLIB}/replacing",
               of_instances=True, is_optional=True),
        *names("logging", "_lock", "Our lock instead of gevent's.", f"{STDLIB}/replacing"),
        *names("logging.Handler", "lock", OF_HANDLERS,
               f"{STDLIB}/replacing", of_instances=True),
        *names("threading.Condition", "wait_for", "Ends with its request.", f"{STDLIB}/composed",
               parameters="self predicate timeout"),
        *names("threading.Condition", "_acquire_restore", TAKEN_BACK, f"{STDLIB}/composed", parameters="self x"),
        *names("threading._RLock", "_acquire_restore", TAKEN_BACK, f"{STDLIB}/composed", parameters="self state"),
        *names("gevent.events", "subscribers", "Its own interface: after a further patching by the application all "
               "this is put in place again.", f"{STDLIB}/replacing", is_interface=True),
        *names("greenlet._greenlet", "enable_optional_cleanup", "Its own interface: what a thread that has ended still "
               "looks referred to by is no leak, but a running function of another thread's.", f"{STDLIB}/replacing",
               is_interface=True),
        *names("threading.Event", "wait", "Ends with its request.", f"{STDLIB}/composed", parameters="self timeout"),
        *names("threading.Event", "set clear", "Has a short way when nobody waits.", f"{STDLIB}/uncontended",
               parameters="self"),
        *names("threading.Semaphore", "acquire __enter__", "Ends with its request.", f"{STDLIB}/composed",
               parameters="self blocking timeout"),
        *names("threading.Semaphore threading.BoundedSemaphore", "release", "Lets others run, once in a millisecond at "
               "most.", f"{STDLIB}/uncontended", parameters="self n"),
        *names("queue.Queue", "get", "Ends with its request.", f"{STDLIB}/composed", parameters="self block timeout"),
        *names("queue.Queue", "put", "Ends with its request.", f"{STDLIB}/composed",
               parameters="self item block timeout"),
    ),
)  # fmt: skip
THREADS = Feature(
    key="threads",
    title="sockets, sleep and threads in real threads",
    package="gevent",
    tested=BOTH,
    without="sockets that were opened in the loop can't be used in real threads",
    names=(
        *names("gevent.socket.socket", "_wait", "In a real thread it waits for the socket there, and not in a loop "
               "that belongs to another thread.", "waits/threads"),
        *names("gevent._socket3", "get_hub", "A socket that a real thread opens belongs to the main event loop: it can "
               "be used in greenlets.", "waits/threads"),
        *names("gevent.hub.Hub", "__init__", "In a real thread an event loop is made only where there are descriptors "
               "for it: libev would end the process.", "waits/threads"),
        *names("gevent._socketcommon gevent.select gevent.selectors", "get_hub", "A real thread gets no event loop by "
               "looking up a name, or by making a poll object or a selector.", "waits/real_threads"),
        *names("gevent.socket.socket", "connect connect_ex", BLOCKS, "waits/real_threads"),
        *names("gevent.select select", "select", BLOCKS, "waits/real_threads"),
        *names("gevent.select.poll", "poll", BLOCKS + " In a greenlet a closed descriptor and a peer's end are "
               "answered as the system does.", "waits/real_threads", parameters="self timeout"),
        *names("gevent.selectors.GeventSelector", "select", BLOCKS, "waits/real_threads", parameters="self timeout"),
        *names("os", "fork forkpty posix_spawn posix_spawnp", BLOCKS, "waits/real_threads"),
        *names("time", "sleep", "In a real thread it sleeps there.", "waits/starting"),
        *names("_thread threading", "start_new_thread start_new _start_new_thread", "A thread that a real thread "
               "starts is a real thread, and no greenlet of a loop that nobody runs.", "waits/starting",
               is_optional=True),
        *names("_thread threading", "start_joinable_thread _start_joinable_thread", REAL_THREAD_313,
               "waits/starting", is_optional=True),
        *names("gevent.threading.Thread", "_set_tstate_lock", REAL_THREAD_312, "waits/starting",
               parameters="self", is_optional=True),
    ),
)  # fmt: skip
NAMES_AND_ADDRESSES = Feature(
    key="names",
    title="names looked up in threads, with a bound and a memory",
    package="gevent",
    tested=BOTH,
    without="gevent's own resolver is used",
    setting="patch_dns",
    names=(
        *names("gevent.config", "resolver", "Look-ups have a bound, are remembered, and slow ones hold up no others.",
               "waits/dns"),
        *names("gevent.hub.Hub", "resolver", "The resolver of the hub that is there.", "waits/dns", of_instances=True),
    ),
)  # fmt: skip
CONNECTING = Feature(
    key="connecting",
    title="IPv6 and IPv4 addresses tried side by side",
    package=PYTHON,
    tested=BOTH,
    without="addresses are tried one after the other",
    setting="patch_dns",
    needs=("names",),
    names=names("socket", "create_connection", "Addresses are tried side by side (RFC 8305), within one timeout for "
                "all.", "waits/happy_eyeballs"),
)  # fmt: skip
COROUTINES = Feature(
    key="coroutines",
    title="asyncio beside the event loop",
    package=PYTHON,
    tested=BOTH,
    without="asyncio.run() stops the whole worker",
    setting="patch_asyncio",
    needs=("threads",),
    names=(
        *names("asyncio asyncio.runners", "run", MEANWHILE,
               "waits/coroutines/own_loops"),
        *names("asyncio.base_events.BaseEventLoop", "run_until_complete", MEANWHILE, "waits/coroutines/own_loops",
               parameters="self future"),
        *names("asyncio.base_events.BaseEventLoop", "run_forever", MEANWHILE, "waits/coroutines/own_loops",
               parameters="self"),
        *names("asyncio.base_events.BaseEventLoop", "run_in_executor", "Its executor has real threads.",
               "waits/coroutines/own_loops", parameters="self executor func args"),
        *names("asyncio.base_events.BaseEventLoop", "getaddrinfo", "libc's own look-up, in real threads.",
               "waits/coroutines/own_loops"),
        *names("asyncio.selector_events.BaseSelectorEventLoop", "__init__",
               "Has a selector that waits in its own thread.",
               "waits/coroutines/own_loops", parameters="self selector"),
    ),
)  # fmt: skip
SQLITE = Feature(
    key="sqlite3",
    title="sqlite3's waits for locks in threads",
    package=PYTHON,
    tested=BOTH,
    without="sqlite3 stops the whole worker while it waits for a lock",
    setting="patch_sqlite",
    needs=("threads",),
    names=(
        *names("sqlite3 sqlite3.dbapi2", "Connection Cursor", "A call that has to wait for a lock waits in a thread.",
               "waits/sqlite"),
        *names("sqlite3 sqlite3.dbapi2", "connect", IN_THREADS, "waits/sqlite"),
    ),
)  # fmt: skip
SIGNALS = Feature(
    key="signals",
    title="signal handlers of the application",
    package=PYTHON,
    tested=(PYTHONS,),
    without="an exception out of a signal handler ends whatever request runs",
    is_for_worker=True,
    names=names(
        "signal", "signal getsignal set_wakeup_fd", "An exception out of a handler ends no request, and an exit drains "
        "the worker; anywhere but in the main greenlet it is refused, as in a thread.", "worker/signals"
    ),
)  # fmt: skip
SYSTEM_ERRORS = Feature(
    key="system_errors",
    title="greenlets that end the process",
    package="gevent",
    tested=(GEVENTS,),
    without="SystemExit out of a greenlet ends the worker with all its requests",
    is_for_worker=True,
    names=names("gevent.hub.Hub", "handle_system_error", "SystemExit, KeyboardInterrupt or SystemError out of a "
                "greenlet drains the worker.", "worker/system_errors", parameters="self type value tb"),
)  # fmt: skip
EXIT = Feature(
    key="exit",
    title="silence at the interpreter's end",
    package=PYTHON,
    tested=(PYTHONS,),
    without="Python may name a lock of a __del__ at the very end",
    is_for_worker=True,
    names=names("sys", "unraisablehook", "A lock in a __del__ at the very end is nobody's to deal with.",
                "worker/leaving"),
)  # fmt: skip
OFFLOAD = Feature(
    key="offload",
    title="functions that run in real threads",
    package=PYTHON,
    tested=(PYTHONS,),
    without="functions named in GREENROOM_OFFLOAD stop the whole worker",
    is_open=True,
    names=(),
)

FEATURES = (
    CHILDREN, SUBPROCESSES, PROGRAMS, DESCRIPTORS, MULTIPROCESSING, WAITS, THREADS, NAMES_AND_ADDRESSES, CONNECTING,
    COROUTINES, SQLITE, SIGNALS, SYSTEM_ERRORS, EXIT, OFFLOAD, EARLY,
)  # fmt: skip
