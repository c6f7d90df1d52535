"""Patching: making blocking calls wait in the event loop, once, before anything else, or not at all.

    patch() -> already done?  nothing to do
            -> somebody holds unpatched objects?  PatchedTooLate names the modules
            -> gevent patches the standard library, and we what it waits in (under our worker); psycopg2 gets its
               wait callback; names are looked up and `requests` sends our way

Too late is worse than never: a module that did `from ssl import SSLContext` before goes on using the old class (endless
recursion in urllib3's case), and a lock born unpatched freezes the whole process when two greenlets meet at it. Both
are found by looking at what the loaded modules hold, so no list of package names has to be kept up to date.
"""

import queue
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from gevent import monkey

from .cores import usable_cores
from .errors import PatchedTooLate
from .on_import import when_imported
from .replacements import Put, part
from .settings import Settings

# Held by modules that were imported for their functions; gevent replaces each of these.
REPLACED = {
    "socket": ("socket", "create_connection", "getaddrinfo", "gethostbyname", "socketpair"),
    "ssl": ("SSLContext", "SSLSocket", "create_default_context"),
    "threading": ("Lock", "RLock", "Event", "local"),  # Thread and Condition stay what they are and look these up
    "queue": ("SimpleQueue",),
    "select": ("select", "poll"),
    "time": ("sleep",),
    "subprocess": ("Popen", "run", "check_call", "check_output"),
}
MODULES: dict[str, ModuleType] = {
    module.__name__: module for module in (socket, ssl, threading, queue, select, time, subprocess)
}
# These hold what they replace, or are the ones asking.
INNOCENT = ("gevent", "greenlet", "greenroom")


def patch(settings: Settings) -> None:
    """Patch this process as the settings say. Safe to call again.

    Raises PatchedTooLate when a loaded module holds what patching would replace, or threads run already.
    Runs on: the main thread, before the application and everything it uses is imported.
    """
    if settings.patch and settings.worker_class == "greenroom":
        from .waits import children

        children.install()
    if settings.patch and not is_patched():
        holders = unpatched_holders()
        if holders:
            raise PatchedTooLate(holders)
        with warnings.catch_warnings():
            # gevent only warns where it can see that something is wrong: that is an error, too.
            warnings.simplefilter("error", monkey.MonkeyPatchWarning)
            monkey.patch_all()
    if settings.patch and settings.worker_class == "greenroom":
        from .waits import processes, stdlib, subprocesses  # they take the patched names

        subprocesses.install()
        processes.install()
        stdlib.install(clean_up_seconds=settings.clean_up_seconds)
    if settings.patch:
        from .waits import in_loop, starting, threads

        threads.install()
        starting.install()
        in_loop.install()
    if settings.patch and settings.patch_dns:
        from .waits import dns, happy_eyeballs  # they take the patched sockets

        dns.install(settings)
        happy_eyeballs.install()
    if settings.patch and settings.patch_requests:
        patch_requests(settings)
    if settings.patch and settings.patch_asyncio:
        from .waits import coroutines

        coroutines.install()
    if settings.patch and settings.patch_psycopg2:
        patch_psycopg2(settings.database_silence_seconds)
    if settings.patch and settings.patch_sqlalchemy:
        patch_sqlalchemy(settings)
    if settings.patch and settings.patch_sqlite:
        when_imported("sqlite3", install_sqlite)
    if settings.patch and settings.worker_class == "greenroom":
        when_imported("django.db", install_django)


# Our rooms for a package import what is private in it. So they are imported within a part, which falls back as a whole.


@part("django")
def install_django(_: Put, module: ModuleType) -> None:
    """Let Django's connections end with their request."""
    from .waits import django_connections

    django_connections.install(module)


@part("sqlite3")
def install_sqlite(_: Put, module: ModuleType) -> None:
    """Let sqlite3 wait for locks in threads, as soon as it is imported."""
    from .waits import sqlite

    sqlite.install()


def patch_requests(settings: Settings) -> None:
    """Let `requests` send through our pools, as soon as it is imported."""

    @part("requests")
    def install(_: Put, module: ModuleType) -> None:
        from .waits.http import install as http

        http.install(
            connections=settings.most_upstream_connections,
            idle_seconds=settings.upstream_idle_seconds,
            age_seconds=settings.upstream_age_seconds,
            tells_budget=settings.upstream_budget,
        )

    when_imported("requests", install)


def patch_psycopg2(silence_seconds: float) -> None:
    """Install psycopg2's wait callback; nothing where psycopg2 is not installed."""

    @part("psycopg2")
    def install(_: Put) -> None:
        from .waits import postgres

        postgres.install(silence_seconds)

    if find_spec("psycopg2") is not None:
        install()


def patch_sqlalchemy(settings: Settings) -> None:
    """Let SQLAlchemy's engines use our pool, as soon as SQLAlchemy is imported."""

    @part("sqlalchemy")
    def install(_: Put, module: ModuleType) -> None:
        from .waits import pool

        pool.install(
            workers=settings.web_concurrency or usable_cores(),
            hosts=settings.database_hosts,
            limit_requests=settings.limit_requests,
        )
        when_imported("sqlalchemy.dialects.postgresql.psycopg", pool.hint_at_driver)

    when_imported("sqlalchemy.pool.impl", install)


def is_patched() -> bool:
    return bool(monkey.is_module_patched("socket") and monkey.is_module_patched("threading"))


def unpatched_holders(modules: dict[str, ModuleType] | None = None) -> list[str]:
    """A sentence for each loaded module that holds what patching would replace, and one for threads that run.

    Must be asked before patching. Modules of the standard library are gevent's to deal with and are not looked at.
    """
    originals = {
        id(getattr(MODULES[name], attribute)): f"{name}.{attribute}"
        for name, attributes in REPLACED.items()
        for attribute in attributes
        if hasattr(MODULES[name], attribute)
    }
    found = []
    for module in _foreign_modules(modules or sys.modules):
        held = [what for name, value in list(vars(module).items()) if (what := _held(name, value, originals))]
        if held:
            first = first_importer(module.__name__.partition(".")[0])
            found.append(
                f"{module.__name__} holds {', '.join(sorted(set(held)))}" + (f"; imported by {first}" if first else "")
            )
    running = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if running:
        found.append(f"threads run already: {', '.join(running)}")
    return found


def first_importer(package: str) -> str:
    """The module through which `package` came in, as far up as can be seen; "" when nothing loaded refers to it.

    Whoever imports stands in sys.modules before what it imports, so the first module that refers to a package is the
    one that brought it; then the same question is asked about that module's package.
    """
    seen = {package}
    brought_by = ""
    while found := _first_reference(package, seen):
        if found == "__main__" and brought_by:
            break  # the program itself brings everything; the module below it says more
        brought_by = found
        package = found.partition(".")[0]
        seen.add(package)
    return brought_by


def _first_reference(package: str, but_not: set[str]) -> str:
    for name, module in list(sys.modules.items()):
        if (
            name.partition(".")[0] in but_not
            or name.partition(".")[0] in INNOCENT
            or not isinstance(module, ModuleType)
        ):
            continue
        for value in list(vars(module).values()):
            origin = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
            if isinstance(origin, str) and origin.partition(".")[0] == package:
                return name
    return ""


def _foreign_modules(modules: dict[str, ModuleType]) -> list[ModuleType]:
    """Each loaded module once, without the standard library (gevent deals with it) and ourselves."""
    foreign = {
        id(module): module
        for name, module in list(modules.items())
        if name.partition(".")[0] not in sys.stdlib_module_names | set(INNOCENT) and isinstance(module, ModuleType)
    }
    return list(foreign.values())


# Whoever made one of these before patching made it over an unpatched lock.
LOCK_TYPES = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Semaphore,
    threading.Event,
    queue.Queue,
)


def _held(attribute: str, value: Any, originals: dict[int, str]) -> str:
    """What unpatched thing `value` is: a class or function, a subclass of one, or a lock; "" when it is none."""
    if id(value) in originals:
        return originals[id(value)]
    if isinstance(value, LOCK_TYPES):
        return f"the lock {attribute}"
    if isinstance(value, type):
        for base in value.__mro__[1:]:
            if id(base) in originals:
                return f"{attribute}, a subclass of {originals[id(base)]}"
        for name, item in list(vars(value).items()):
            if isinstance(item, LOCK_TYPES):
                return f"the lock {attribute}.{name}"
    return ""
