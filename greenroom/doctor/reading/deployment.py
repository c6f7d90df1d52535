"""How the application is started today: gunicorn.conf.py, Procfile, Dockerfile, systemd units, compose files, nginx."""

import ast
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...cores import usable_cores
from ..findings import Finding
from .changes import diff
from .commands import Started, commands, configuration_of, deployment_files, read_configuration, shown_in
from .process import EARLY

GREEN = ("gevent", "gevent_pywsgi", "greenroom.Worker", "greenroom.worker.GreenWorker", "ggevent")
OURS = ("greenroom.Worker", "greenroom.worker.GreenWorker", "greenroom.worker.lifecycle.GreenWorker")
COMPUTED_CORES = re.compile(r"cpu_count\(\)|os\.cpu_count|sched_getaffinity|nproc")
DEFAULT_GRACEFUL = 30.0
UNITS = {"": 1.0, "s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "ms": 0.001, "h": 3600.0}


def find(folder: Path, environ: Mapping[str, str], given: Path | None = None) -> Iterator[Finding]:
    """`given` is the configuration that the doctor was told to use, if any."""
    cores = usable_cores()
    configuration = configuration_of(folder, given)
    file_options: dict[str, tuple[Any, str, int]] = {}
    if configuration is not None:
        file_options = read_configuration(configuration, shown_in(configuration, folder))
        yield from imported_early(configuration, shown_in(configuration, folder))
    is_ours = configuration is not None and "greenroom" in configuration.read_text(errors="replace")
    started = list(commands(folder, environ))
    found = [Started(one.file, one.line, {**file_options, **one.options}, is_ours) for one in started]
    if not found and configuration is not None:
        found = [Started(shown_in(configuration, folder), 0, file_options, is_ours)]
    for one in found:
        yield from (
            replace(finding, diff=diff(finding.rule, finding.file, finding.line, folder))
            for finding in judge(one, cores)
        )
    yield from stop_times(folder, found)


def judge(started: Started, cores: int) -> Iterator[Finding]:
    kind = started.value("worker_class")
    name = kind if isinstance(kind, str) else _class_name(kind)
    threads = started.value("threads")
    is_green = name in GREEN
    file, line = started.place("worker_class")
    if name and not is_green:
        yield Finding(
            "worker-class",
            file,
            line,
            f"The worker class is {name}: "
            + (
                "eventlet patches otherwise than gevent, and both do not go together."
                if "eventlet" in name
                else "an ASGI server, which runs a WSGI application in a few threads."
                if "uvicorn" in name.lower() or "asgi" in name.lower()
                else "one request at a time in each process or thread, whether it waits or works."
            ),
            "`greenroom serve`, or worker_class = 'greenroom.Worker'.",
        )
    elif is_green and name not in OURS:
        yield Finding(
            "worker-class",
            file,
            line,
            f"The worker class is {name}: gunicorn's own, without deadlines, fair pools and insight.",
            "`greenroom serve`, or worker_class = 'greenroom.Worker'.",
            level="note",
        )
    elif not name and started.options and not started.is_ours:
        yield Finding(
            "worker-class",
            *started.place(),
            "No worker class is named: "
            + (
                f"with threads = {threads} gunicorn takes gthread, which serves so many requests at once in a process."
                if isinstance(threads, int) and threads > 1
                else "gunicorn's default serves one request at a time in each process."
            ),
            "`greenroom serve`, or `-k greenroom.Worker`.",
            level="note",
        )
    if is_green and threads is not None and threads != 1:
        yield Finding(
            "threads-with-gevent",
            *started.place("threads"),
            f"threads = {_text(threads)} means nothing to a gevent worker: each has one thread and many greenlets.",
            "Take it out.",
        )
    if _is_true(started.value("reuse_port")) and started.value("max_requests") not in (None, 0):
        yield Finding(
            "reuse-port-max-requests",
            *started.place("reuse_port"),
            "reuse_port gives each worker a queue of its own, and max_requests replaces workers: the connections in "
            "the queue of one that leaves are reset.",
            "Take reuse_port out: the workers share one listener.",
        )
    elif _is_true(started.value("reuse_port")):
        yield Finding(
            "reuse-port-max-requests",
            *started.place("reuse_port"),
            "With reuse_port a worker that is busy or gone strands the connections that the kernel has given it.",
            "Take it out.",
            level="note",
        )
    yield from _workers(started, cores, is_green)
    if _is_true(started.value("preload_app")):
        yield Finding(
            "preload",
            *started.place("preload_app"),
            "preload_app imports the application before the fork: what it opens and starts at import is shared or "
            "lost in the workers.",
            "preload_app = False.",
        )
    graceful, timeout = started.value("graceful_timeout"), started.value("timeout")
    if isinstance(graceful, int | float) and isinstance(timeout, int | float) and 0 < timeout < graceful:
        yield Finding(
            "timeouts-order",
            *started.place("graceful_timeout"),
            f"graceful_timeout = {graceful} is longer than timeout = {timeout}: a worker that drains may be killed "
            "before its grace is over.",
            "graceful_timeout at most as long as timeout.",
        )


def _workers(started: Started, cores: int, is_green: bool) -> Iterator[Finding]:
    workers = started.value("workers")
    if isinstance(workers, ast.expr):
        text = ast.unparse(workers)
        factor = re.search(r"cpu_count\(\)\s*\)?\s*\*\s*(\d+)|(\d+)\s*\*\s*\(?\s*[\w.]*cpu_count\(\)", text)
        if COMPUTED_CORES.search(text) and factor and int(factor[1] or factor[2]) >= 2:
            yield Finding(
                "workers-above-cores",
                *started.place("workers"),
                f"workers = {text}: a rule for workers that serve one request each. A gevent worker uses a whole core "
                "when there is work, and cpu_count() does not see a container's share.",
                "As many workers as cores: leave it to Greenroom, or set WEB_CONCURRENCY.",
            )
    elif isinstance(workers, int) and workers > cores:
        yield Finding(
            "workers-above-cores",
            *started.place("workers"),
            f"{workers} workers on the {cores} cores here: a gevent worker uses a whole core when there is work, and "
            "each has pools and memory of its own.",
            "As many workers as cores: leave it to Greenroom, or set WEB_CONCURRENCY.",
            level="warning" if workers > 2 * cores + 1 else "note",
        )


def _class_name(node: Any) -> str:
    if not isinstance(node, ast.expr):
        return ""
    names = [one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return names[-1] if names else ""


def _is_true(value: Any) -> bool:
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1", "yes"))


def _text(value: Any) -> str:
    return ast.unparse(value) if isinstance(value, ast.AST) else str(value)


def stop_times(folder: Path, started: list[Started]) -> Iterator[Finding]:
    """Find stop times shorter than the server's own grace, and proxies that give up before the application does."""
    graceful = next(
        (
            float(one.value("graceful_timeout"))
            for one in started
            if isinstance(one.value("graceful_timeout"), int | float)
        ),
        DEFAULT_GRACEFUL,
    )
    for path in deployment_files(folder):
        if path.suffix not in (".service", ".yml", ".yaml"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            found = re.match(
                r"\s*(TimeoutStopSec\s*=|stop_grace_period\s*:|terminationGracePeriodSeconds\s*:)\s*(\d+)\s*(\w*)", line
            )
            if found is None:
                continue
            seconds = float(found[2]) * UNITS.get(found[3], 1.0)
            if seconds < graceful:
                yield Finding(
                    "timeouts-order",
                    shown_in(path, folder),
                    number,
                    f"{found[1].strip(' =:')} is {seconds:g} s, and the server's graceful timeout {graceful:g} s: "
                    "requests that would have ended are killed.",
                    f"More than the graceful timeout: {graceful + 5:g} s.",
                )


def imported_early(path: Path, shown: str) -> Iterator[Finding]:
    """Find imports of the configuration file: gunicorn's arbiter has them before a worker patches."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    if "greenroom" in ast.unparse(tree):
        return
    calls = [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and "patch_all" in ast.unparse(node.func)
    ]
    heavy = set(EARLY) - {
        "logging",
        "socket",
        "threading",
        "subprocess",
        "select",
        "asyncio",
        "queue",
        "urllib",
        "http",
        "concurrent",
        "ssl",
    }
    for node in tree.body:
        if not isinstance(node, ast.Import | ast.ImportFrom) or (calls and calls[0] < node.lineno):
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        for name in names:
            if name.partition(".")[0] in heavy or (
                (path.parent / f"{name.partition('.')[0]}.py").is_file() and name not in ("config",)
            ):
                yield Finding(
                    "patched-too-late",
                    shown,
                    node.lineno,
                    f"{name} is imported by gunicorn's configuration, in the arbiter: with a gevent worker class alone "
                    "that is before patching.",
                    "Import it inside of the hook that needs it, or serve with `greenroom serve`, which patches first.",
                )


def workers_of(folder: Path, environ: Mapping[str, str], given: Path | None = None) -> tuple[int, str, int]:
    """How many workers are started, and where that stands; as many as cores where nobody says."""
    options: dict[str, tuple[Any, str, int]] = {}
    configuration = configuration_of(folder, given)
    if configuration is not None:
        options = read_configuration(configuration, shown_in(configuration, folder))
    for one in commands(folder, environ):
        options = {**options, **one.options}
    value, file, line = options.get("workers", (None, "", 0))
    if isinstance(value, int):
        return value, file, line
    if isinstance(value, ast.expr) and "cpu_count" in ast.unparse(value):
        return 2 * (os.cpu_count() or 1) + 1, file, line
    return int(environ.get("WEB_CONCURRENCY") or 0) or usable_cores(), "", 0
