"""Greenroom: plain blocking Flask, served on gevent.

Importing this package changes nothing. Patching happens where the name says so: `greenroom.patching.patch()`, which
`greenroom serve`, the gunicorn configuration `greenroom/gunicorn_conf.py` and the worker class call first of all.

    cli                 the commands; serving_command (serve), run_command, settings_command, serve (without gunicorn)
    settings/           every setting: name, range, default, reading
    configuration       what gunicorn is told, with reasons; gunicorn_conf is the file that `serve` gives it
    joining             the same for `gunicorn -k greenroom.Worker` under a team's own file; chaining: both sides' hooks
    own_configuration   where a team's file is, as gunicorn finds it
    hooks, reloading    gunicorn's hooks: start, reload, stop; companion: a process beside the server
    finding, importing  the application's name and module
    patching            patches once, first; too_late: refuses when it is not; early_hook, agents: before an agent
    replacements/       every replaced name, in one list
    worker/             from the listener to the application
    in_flight           one running request: its budget, its waits, its end; deadline: how long a wait may take
    slowing             requests that go on waiting after their end; draining: what the application learns of a stop
    gunicorns_names     settings that gunicorn names as well; gunicorns_parts: the types of its arbiter and workers
    waits/              blocking calls that wait in the event loop; offload: those that can't, in threads
    insight/, ops/      what each worker does; the process that shows it
    doctor/, load/, tune/   what an application will do here, how much it takes, what to set
    pytest, testing/    the pytest plug-in
    start_line          what the log says of a start; surroundings: what the machine lacks; redaction: what may be shown
    forking, on_import  forked children; modules as they are imported
    clock, timers, cores, frames, loopback, observing    small things that several of these use
    errors              every error that is raised
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .worker.lifecycle import GreenWorker as Worker

__all__ = ["Worker"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """`Worker`, the class for `gunicorn -k greenroom.Worker`. With it comes gevent: it is imported when asked for."""
    if name != "Worker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .worker.lifecycle import GreenWorker

    return GreenWorker
