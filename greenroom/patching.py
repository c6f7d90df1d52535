"""Patching: making blocking calls wait in the event loop, once, before anything else, or not at all.

    patch() -> already done?  nothing to do
            -> somebody holds unpatched objects?  PatchedTooLate names the modules
            -> gevent patches the standard library, and we what it waits in (under our worker); psycopg2 gets its
               wait callback; names are looked up and `requests` sends our way

Too late is worse than never: a module that did `from ssl import SSLContext` before goes on using the old class (endless
recursion in urllib3's case), and a lock born unpatched freezes the whole process when two greenlets meet at it. Both
are found by looking at what the loaded modules hold, so no list of package names has to be kept up to date.
"""

import warnings
from importlib.util import find_spec
from types import ModuleType

from gevent import monkey

from . import too_late
from .cores import usable_cores
from .errors import PatchedTooLate
from .on_import import when_imported
from .replacements import Put, part
from .settings import Settings


def patch(settings: Settings) -> None:
    """Patch this process as the settings say. Safe to call again.

    Raises PatchedTooLate when a loaded module holds what patching would replace, or threads run already.
    Runs on: the main thread, before the application and everything it uses is imported.
    """
    if settings.patch and settings.worker_class == "greenroom":
        from .waits import children

        children.install()
    if settings.patch and not is_patched():
        holders = too_late.unpatched_holders()
        if holders:
            raise PatchedTooLate(holders, too_late.advice())
        with warnings.catch_warnings():
            # gevent only warns where it can see that something is wrong: that is an error, too.
            warnings.simplefilter("error", monkey.MonkeyPatchWarning)
            monkey.patch_all()
    if settings.patch:
        from .waits import real_threads

        real_threads.install()
    if settings.patch and settings.worker_class == "greenroom":
        # They take the patched names.
        from .waits import descriptors, giving_way, processes, programs, stdlib, subprocesses

        subprocesses.install()
        processes.install()
        descriptors.install()
        giving_way.install()
        programs.install()
        stdlib.install(clean_up_seconds=settings.clean_up_seconds)
    if settings.patch:
        from . import forking
        from .waits import in_loop, starting, threads

        forking.watch_arbiter()

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
        stdlib.name_functions()


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
        from .waits import pool, pool_advice

        pool.install(
            workers=settings.web_concurrency or usable_cores(),
            hosts=settings.database_hosts,
            limit_requests=settings.limit_requests,
        )
        when_imported("sqlalchemy.dialects.postgresql.psycopg", pool_advice.hint_at_driver)

    when_imported("sqlalchemy.pool.impl", install)


def has_pidfd() -> bool:
    """Whether child processes can be waited for one by one; else gevent's own way is used."""
    from .waits import children

    return children.is_possible()


def is_patched() -> bool:
    return bool(monkey.is_module_patched("socket") and monkey.is_module_patched("threading"))
