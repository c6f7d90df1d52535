"""Rules about the process: what ends it, what interrupts it, what all requests see of it, and who patches it."""

import ast
import re
from collections.abc import Iterator

from ..findings import Finding
from .functions import Function, owner_of
from .names import decorator_name, has_unpacking, keyword, last
from .project import Project
from .sources import Source

STATE_CALLS = {
    "os.chdir": "the working directory",
    "os.fchdir": "the working directory",
    "os.umask": "the umask",
    "os.putenv": "the environment",
    "os.unsetenv": "the environment",
    "os.environ.update": "the environment",
    "os.environ.setdefault": "the environment",
    "os.environ.pop": "the environment",
    "locale.setlocale": "the locale",
    "socket.setdefaulttimeout": "the default timeout of all sockets",
    "random.seed": "the random numbers",
    "time.tzset": "the time zone",
    "warnings.simplefilter": "",
    "sys.setrecursionlimit": "",
    "decimal.setcontext": "",
}
BLOCKING = ("os.system", "os.spawnl", "os.spawnv", "os.spawnlp", "os.spawnvp", "os.wait", "os.wait3", "pty.spawn")
# Greenroom lets these wait in the loop (`greenroom patched`).
REPLACED = tuple(name for name in BLOCKING if name.startswith("os."))
# Packages that must not be imported before patching: they take sockets, locks or TLS contexts by name.
EARLY = (
    *("requests", "urllib3", "redis", "sqlalchemy", "psycopg2", "psycopg", "pymysql", "boto3", "botocore", "httpx"),
    *("flask", "ssl", "socket", "threading", "queue", "kombu", "celery", "pymongo", "elasticsearch", "sentry_sdk"),
    *("grpc", "aiohttp", "concurrent", "http", "urllib", "logging", "subprocess", "select", "asyncio", "werkzeug"),
)
SOCKET_DECORATORS = re.compile(r"(?:sock|ws|websocket|sockets?)\.route|.*\.websocket")
BODY_READS = ("get_json", "get_data", "data", "json", "form", "files", "stream", "values")


def find(project: Project) -> Iterator[Finding]:
    yield from in_requests(project)
    yield from patching(project)
    yield from coroutines(project)
    yield from websockets(project)
    yield from socket_modes(project)


def in_requests(project: Project) -> Iterator[Finding]:
    in_threads = _thread_functions(project)
    for function, call, name in project.request_calls():
        file, line = function.source.shown, call.lineno
        if name in ("sys.exit", "exit", "quit") and function.name in in_threads:
            continue  # it ends its thread
        if name in ("sys.exit", "os._exit") and _forks_before(project, function, call):
            continue  # it ends the process that it has just made
        if name in ("sys.exit", "os._exit", "os.abort", "exit", "quit") and not _is_local(function.source, name):
            yield Finding(
                "exits-in-request",
                file,
                line,
                f"{function.name}() calls {name}(): "
                + (
                    "the whole worker ends, with all its requests."
                    if name in ("os._exit", "os.abort")
                    else "SystemExit is no Exception, so no error handler answers, and the client gets a bare 500."
                ),
                "`abort(500)`, or raise an ordinary exception.",
                level="error" if name in ("os._exit", "os.abort") else "warning",
            )
        elif name in ("signal.alarm", "signal.setitimer", "signal.signal", "signal.pause", "signal.sigwait"):
            yield Finding(
                "signal-in-request",
                file,
                line,
                f"{function.name}() calls {name}(): a signal belongs to the process, and interrupts whichever request "
                "happens to run.",
                "Bound the wait itself (`timeout=`), or the request: GREENROOM_REQUEST_BUDGET_MILLISECONDS.",
            )
        elif name in BLOCKING:
            yield Finding(
                "stops-loop",
                file,
                line,
                f"{name}() waits in C until the program has ended: no other request of the worker runs meanwhile."
                if name not in REPLACED
                else f"{name}() waits until the program has ended, with no bound. Greenroom lets other requests run "
                "meanwhile; under gevent alone none does.",
                "`subprocess.run([...], timeout=...)`, which waits in the loop everywhere, and has a bound.",
                level="note" if name in REPLACED else "",
            )
        elif name in ("breakpoint", "pdb.set_trace", "ipdb.set_trace", "input", "getpass.getpass", "code.interact"):
            yield Finding(
                "debugger",
                file,
                line,
                f"{function.name}() calls {name}(), which waits for a terminal.",
                "Take it out.",
            )
        elif STATE_CALLS.get(name):
            if name == "locale.setlocale" and len(call.args) < 2:
                continue
            yield _state(file, line, function.name, STATE_CALLS[name])
    for function in project.in_request:
        for node in function.nodes:
            if isinstance(node, ast.Assign | ast.Delete):
                for target in node.targets:
                    if (
                        isinstance(target, ast.Subscript)
                        and project.dotted(target.value, function.source, function) == "os.environ"
                    ):
                        yield _state(function.source.shown, node.lineno, function.name, "the environment")
            if isinstance(node, ast.Raise) and node.exc is not None:
                raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
                if isinstance(raised, ast.Name) and raised.id in ("SystemExit", "GreenletExit", "KeyboardInterrupt"):
                    yield Finding(
                        "exits-in-request",
                        function.source.shown,
                        node.lineno,
                        f"{function.name}() raises {raised.id}, which is no Exception: no error handler answers.",
                        "`abort(500)`, or raise an ordinary exception.",
                    )


def _thread_functions(project: Project) -> set[str]:
    """Names of the functions that threads and timers begin with."""
    found = set()
    for _, _, call, name in project.all_calls():
        if name in ("threading.Thread", "threading.Timer"):
            given = keyword(call, "target") or keyword(call, "function") or next(iter(call.args[1:]), None)
            if isinstance(given, ast.Name | ast.Attribute):
                found.add(last(ast.unparse(given)))
    return found


def _forks_before(project: Project, function: Function, call: ast.Call) -> bool:
    return any(
        project.called(one, function.source, function) in ("os.fork", "os.forkpty") and one.lineno < call.lineno
        for one in function.calls
    )


def _is_local(source: Source, name: str) -> bool:
    return name in ("exit", "quit") and name in source.imports


def _state(file: str, line: int, function: str, what: str) -> Finding:
    return Finding(
        "process-state",
        file,
        line,
        f"{function}() changes {what}, which all requests of the worker share: others run before it is changed back.",
        "Pass the value to the call that needs it (`cwd=`, `env=`, `timeout=`), or set it once at start-up.",
    )


def patching(project: Project) -> Iterator[Finding]:
    for source in project.sources:
        calls = [
            (node, project.dotted(node.func, source, None))
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Call)
        ]
        for call, name in calls:
            if name == "eventlet.monkey_patch":
                yield _other_loop(source.shown, call.lineno, "eventlet.monkey_patch()")
            elif name in ("gevent.monkey.patch_all", "monkey.patch_all"):
                early = _imported_before(source, call.lineno)
                if early:
                    names = ", ".join(name for name, _ in early)
                    yield Finding(
                        "patched-too-late",
                        source.shown,
                        call.lineno,
                        f"patch_all() is called after {names} {'was' if len(early) == 1 else 'were'} imported "
                        f"(line {early[0][1]} first): what they hold stays unpatched.",
                        "Take the call out and let `greenroom serve` patch, before anything is imported; without it, "
                        "move it above all other imports of the first module.",
                    )
                else:
                    yield Finding(
                        "patches-itself",
                        source.shown,
                        call.lineno,
                        "The application patches itself; under Greenroom that has been done.",
                        "Take it out.",
                    )
            elif name in ("uvloop.install", "nest_asyncio.apply") or (
                name == "asyncio.set_event_loop_policy" and "uvloop" in ast.unparse(call)
            ):
                yield _other_loop(source.shown, call.lineno, f"{name}()")
        for module, line, _ in source.import_lines():
            if module == "eventlet" and not any(name == "eventlet.monkey_patch" for _, name in calls):
                yield _other_loop(source.shown, line, "eventlet")


def _other_loop(file: str, line: int, what: str) -> Finding:
    return Finding(
        "other-event-loop",
        file,
        line,
        f"{what} replaces what gevent has replaced: waits of one stop the other.",
        "Keep gevent, and take this out; Greenroom needs no call of the application's.",
    )


def _imported_before(source: Source, line: int) -> list[tuple[str, int]]:
    found: dict[str, int] = {}
    for node in source.tree.body:
        if node.lineno >= line:
            break
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [source.absolute(node)]
            for name in names:
                top = name.partition(".")[0]
                if top in EARLY and top not in found:
                    found[top] = node.lineno
    return list(found.items())


def coroutines(project: Project) -> Iterator[Finding]:
    for function in project.functions:
        if function.is_async and function in project.in_request:
            for node in function.nodes:
                read = _body_read(project, function.source, node)
                if read:
                    yield Finding(
                        "async-body",
                        function.source.shown,
                        getattr(node, "lineno", 0),
                        f"{function.name}() is `async def` and reads the request's body ({read}), which blocks its "
                        "event loop until the client has sent it. Here that loop has a thread of its own: other "
                        "requests go on, and a slow client keeps one of 512 threads.",
                        "Nothing is needed under Greenroom; a plain `def` view waits for its body without a thread.",
                    )
                    break
        if function not in project.in_request:
            continue
        for call in function.calls:
            if not (isinstance(call.func, ast.Attribute) and call.func.attr == "run_until_complete"):
                continue
            binding = project.binding(call.func.value, function.source, function)
            if binding is not None and project.is_shared(binding):
                yield Finding(
                    "shared-event-loop",
                    function.source.shown,
                    call.lineno,
                    f"`{binding.name}` is one asyncio loop for all requests, and {function.name}() runs it: two at "
                    "once raise RuntimeError, `This event loop is already running`.",
                    "`asyncio.run(...)` in the request, or an `async def` view.",
                )


def _body_read(project: Project, source: Source, node: ast.AST) -> str:
    if isinstance(node, ast.Attribute) and node.attr in BODY_READS and isinstance(node.value, ast.Name):
        if node.value.id == "request" or source.imports.get(node.value.id) == "flask.request":
            return f"request.{node.attr}"
    return ""


def _may_be_none(mode: ast.expr) -> bool:
    """`None`, or a variable of the environment that has no default; of alternatives any."""
    if isinstance(mode, ast.Constant):
        return mode.value is None
    if isinstance(mode, ast.BoolOp):
        return _may_be_none(mode.values[-1])
    if isinstance(mode, ast.IfExp):
        return _may_be_none(mode.body) or _may_be_none(mode.orelse)
    return isinstance(mode, ast.Call) and len(mode.args) == 1 and last(ast.unparse(mode.func)) in ("get", "getenv")


def socket_modes(project: Project) -> Iterator[Finding]:
    calls = list(project.all_calls())
    modes = [mode for _, _, call, _ in calls if (mode := keyword(call, "async_mode")) is not None]  # of init_app(), too
    if not all(_may_be_none(mode) for mode in modes):
        return
    unset = "".join(f" where `{ast.unparse(mode)}` is None" for mode in modes)
    for source, _, call, name in calls:
        if name == "flask_socketio.SocketIO" and not has_unpacking(call):
            yield Finding(
                "socketio-mode",
                source.shown,
                call.lineno,
                f"SocketIO() chooses its mode by what is installed{unset}, and takes gevent's as soon as there is "
                "gevent: that works under Greenroom, and no longer under gthread or `flask run` here.",
                'async_mode="threading" works under each of them.',
            )


def websockets(project: Project) -> Iterator[Finding]:
    for function in project.functions:
        for decorator in function.node.decorator_list:
            name = decorator_name(decorator)
            made = project.dotted(
                decorator.func if isinstance(decorator, ast.Call) else decorator, function.source, function.outer
            )
            is_socket = "flask_sock." in made or "flask_sockets." in made or SOCKET_DECORATORS.fullmatch(name)
            if not is_socket or last(name) not in ("route", "websocket"):
                continue
            path = ""
            if isinstance(decorator, ast.Call) and decorator.args and isinstance(decorator.args[0], ast.Constant):
                path = str(decorator.args[0].value)
            if owner_of(function) is None:
                yield Finding(
                    "websocket-under-budget",
                    function.source.shown,
                    decorator.lineno,
                    f"The websocket {path or function.name} lives longer than any request's budget: until it takes the "
                    "connection over it has 60 s, and a reload or a proxy's timeout ends it.",
                    f"GREENROOM_ROUTE_BUDGETS={path or '/path'}=0, and clients that connect again by themselves.",
                )
