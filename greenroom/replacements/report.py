"""The list, for people: `greenroom patched`, `greenroom patched --json`, and docs/replacements.md.

The command patches its own process as the server does, imports what is installed of the packages on the list, and tells
what has become of each name. So what it says was seen, not read off a table.
"""

import argparse
import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..settings import Settings, environment_name, read_env_files
from .model import Feature, Name, State
from .registry import Applied, Registry, path_of

if TYPE_CHECKING:
    from ..cli import Commands

REPLACED, USED, LEFT_ALONE, NOT_THERE, LATER = (
    "replaced",
    "used",
    "left alone",
    "not in this version",
    "replaced in workers",
)


@dataclass(frozen=True)
class Row:
    """The state of one replaced name."""

    name: str
    state: str
    why: str
    by: str


def add_to(commands: "Commands") -> None:
    """Add `greenroom patched` to the commands."""
    command = commands.add_parser("patched", help="print every name of other packages that is replaced here, and why")
    command.add_argument("--json", action="store_true", help="as JSON")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    from . import registry

    settings = Settings.read({**read_env_files(Path.cwd()), **os.environ})
    problems = patch_all(settings)
    found = list(zip(registry.states(settings), registry.live.values(), strict=True))
    if options.json:
        parts = [{**asdict(state), "names": [asdict(row) for row in rows(live, state)]} for state, live in found]
        print(json.dumps(parts, indent=2))
        return 0
    for state, live in found:
        print(state)
        for row in rows(live, state):
            print(f"    {row.state:20} {row.name}")
    for problem in problems:
        print(f"not imported: {problem}")
    return 0


def patch_all(settings: Settings) -> list[str]:
    """Replace in this process what the settings say, in all packages that are installed; what can't be imported."""
    from .. import patching
    from . import FEATURES

    patching.patch(settings)
    if settings.patch and settings.worker_class == "greenroom":
        from ..worker import hangups

        hangups.install()
    problems = []
    for module in dict.fromkeys(module for each in FEATURES for module in modules_of(each)):
        try:
            importlib.import_module(module)
        except ModuleNotFoundError:
            continue  # not installed, or another version has no such module
        except Exception as exc:  # a package that is broken, or wants to be configured first: the others are told of
            problems.append(f"{module}: {type(exc).__name__}: {exc}")
    return problems


def modules_of(feature: Feature) -> Iterator[str]:
    """The modules in which its names are, as far as a path tells: classes begin with a capital letter."""
    for name in feature.names:
        parts = name.owner.split(".")
        lower = [part for part in parts if not part[:1].isupper()]
        if lower == parts[: len(lower)]:
            yield ".".join(lower)


def rows(live: Any, state: State) -> Iterator[Row]:
    """The feature's names, those first that are on the list."""
    applied: list[Applied] = list(live.applied)
    feature: Feature = live.feature
    done = {each.name for each in applied}
    for name in feature.names:
        what = _state_of(name, state, feature, is_done=name in done, has_begun=bool(applied))
        yield Row(name.path, what, name.why, name.by)
    for each in applied:
        if each.name not in feature.names:
            yield Row(f"{path_of(each.owner)}.{each.name.name}", REPLACED, each.name.why, each.name.by)


def _state_of(name: Name, state: State, feature: Feature, *, is_done: bool, has_begun: bool) -> str:
    if state.state == "absent":
        return "package not there"
    if is_done:
        return USED if name.is_interface else REPLACED
    if state.state == "off":
        return LEFT_ALONE
    return LATER if feature.is_for_worker and not has_begun else NOT_THERE


def markdown(registry: Registry) -> str:
    """The body of docs/replacements.md. The same on every machine."""
    return "\n\n".join(_section(live.feature) for live in registry.live.values()) + "\n"


def _section(feature: Feature) -> str:
    tested = "; ".join(f"{each.distribution} {each}" for each in feature.tested)
    lines = [f"## {feature.package}: {feature.title}", "", f"Tested with {tested}. Otherwise {feature.without}."]
    if feature.setting is not None:
        lines.append(f"`{environment_name(feature.setting)}=0` turns it off.")
    if feature.is_for_worker:
        lines.append("Only under Greenroom's own worker class.")
    lines += ["", "| Name | What for | In |", "|---|---|---|"]
    shown: dict[tuple[str, str], list[str]] = {}
    for name in feature.names:
        shown.setdefault((name.why, name.by), []).append(f"`{name.path}`")
    lines += [f"| {', '.join(paths)} | {why} | `{by}` |" for (why, by), paths in shown.items()]
    if not feature.names:
        lines[-2:] = ["The names are those of the settings."]
    return "\n".join(lines)
