"""Our hooks beside a team's: both run, ours first, the team's in their order."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from . import replacements
from .gunicorns_parts import Arbiter, Worker

HOOK_NAMES = ("on_starting", "on_reload", "pre_fork", "post_fork", "post_worker_init", "child_exit", "on_exit")


def is_ours(hook: Any) -> bool:
    """Whether it is a method of `Hooks`: one that is there already is not put before itself."""
    return bool(getattr(getattr(hook, "__self__", None), "is_greenrooms", False))


def chained(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """gunicorn's configuration `ours` with `theirs` over it: their values count, and both hooks run.

    Where theirs was made by configure() as well, its hooks are ours already.
    """
    both = {**ours, **theirs}
    for name in HOOK_NAMES:
        own = theirs.get(name)
        if own is not None and not is_ours(own):
            both[name] = one_after_the_other(ours[name], own)
    return both


def one_after_the_other(first: Callable[..., None], second: Callable[..., None]) -> Callable[..., None]:
    """gunicorn looks at how many arguments a hook takes; ours takes what gunicorn gives."""
    if len(inspect.signature(first).parameters) == 1:

        def hook(server: Arbiter) -> None:
            first(server)
            second(server)

        return hook

    def hook_of_worker(server: Arbiter, worker: Worker) -> None:
        first(server, worker)
        second(server, worker)

    return hook_of_worker


def in_each_turn(server: Arbiter, look: Callable[[], None]) -> None:
    """Have `look` called in each turn of the arbiter's loop, after the workers have been looked at."""
    manage = server.manage_workers

    def manage_and_look() -> None:
        manage()
        look()

    replacements.put("gunicorn", (server, "manage_workers", manage_and_look))
