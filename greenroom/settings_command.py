"""`greenroom settings`: the values in force, and where each comes from.

    greenroom settings                          what `greenroom serve` would start with in this folder
    greenroom settings --workers 4 -c conf.py   the same with these options of gunicorn's

From the weakest to the strongest: default, `.flaskenv`, `.env`, environment, gunicorn.conf.py, GUNICORN_CMD_ARGS, the
command line. Wrong values are listed all at once, and the exit code is 2.
"""

import argparse
import dataclasses
import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import own_configuration, serving_command
from .cores import usable_cores
from .errors import GreenroomError, SettingsError
from .gunicorns_names import NAMES, in_force
from .own_configuration import COMMAND_LINE_VARIABLE
from .settings import Settings, environment_name, read_env_file
from .settings.documenting import about, env_template, markdown_table, rows
from .settings.knobs import shown
from .settings.reading import ENV_FILES

if TYPE_CHECKING:
    from .cli import Commands

HIDDEN = "(set, not shown)"


@dataclass(frozen=True)
class Value:
    """One setting in force."""

    name: str
    value: str
    source: str


def add_to(commands: "Commands") -> None:
    parser = commands.add_parser(
        "settings",
        allow_abbrev=False,
        help="print the values in force and where each comes from; takes the options of `serve`",
        epilog="What else is given is understood as `greenroom serve` would: an application, gunicorn's options.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--describe", action="store_true", help="every setting: default, what it may be, what it does")
    parser.add_argument("--env-template", action="store_true", help="as the lines of .env-template")
    parser.add_argument("--markdown", action="store_true", help="as a table of Markdown")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    if options.env_template:
        print(env_template())
    elif options.markdown:
        print(markdown_table())
    elif options.describe:
        for row in rows():
            print(f"{row.name}={row.default}\n    {about(row)}")
    else:
        _print(values_in_force(options.rest, os.environ, Path.cwd()), as_json=options.json)
    return 0


def values_in_force(arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> list[Value]:
    """All settings, in their order. Raises SettingsError with every problem."""
    files = {name: read_env_file(folder / name) for name in reversed(ENV_FILES)}
    merged: dict[str, str] = {}
    sources: dict[str, str] = {}
    for source, values in (*files.items(), ("environment", environ)):
        merged.update(values)
        sources.update({name: source for name, value in values.items() if value.strip()})
    settings, problems = _read(merged)
    told, gunicorns_problems = _told_to_gunicorn(arguments, environ)
    if problems or gunicorns_problems:
        raise SettingsError([*problems, *gunicorns_problems])
    found = []
    for item in dataclasses.fields(Settings):
        name = environment_name(item.name)
        value, source = getattr(settings, item.name), sources.get(name, "default")
        if item.name in told and told[item.name][0] != value:
            value, source = told[item.name]
        if item.name == "bind" and source == "default" and value != Settings().bind:
            source = "PORT"
        if item.name == "web_concurrency" and not value:
            value, source = usable_cores(), f"{source}: the cores of this process"
        text = HIDDEN if value and not item.repr else shown(value)
        found.append(Value(name, text, source))
    return found


def _read(environ: Mapping[str, str]) -> tuple[Settings, list[str]]:
    try:
        return Settings.read(environ), []
    except SettingsError as exc:
        return Settings(), list(exc.problems)


def _told_to_gunicorn(
    arguments: Sequence[str], environ: Mapping[str, str]
) -> tuple[dict[str, tuple[Any, str]], list[str]]:
    """Return gunicorn's values under our names, each with the place that gives it; and what is wrong with them."""
    request = serving_command.understood(arguments)  # it says when gunicorn can't be imported as things are

    from gunicorn.config import Config  # with it comes ssl

    layers: list[tuple[str, Mapping[str, Any]]] = []
    if request.own_configuration:
        layers.append((request.own_configuration.removeprefix("./"), _own(request.own_configuration)))
    parser = Config().parser()
    layers.append((COMMAND_LINE_VARIABLE, vars(parser.parse_args(shlex.split(environ.get(COMMAND_LINE_VARIABLE, ""))))))
    layers.append(("command line", vars(parser.parse_args(list(arguments)))))
    cfg, sources, problems = Config(), {}, []
    for source, values in layers:
        for ours, gunicorns in NAMES.items():
            if values.get(gunicorns) is None:
                continue
            try:
                cfg.set(gunicorns, values[gunicorns])
            except Exception as exc:  # whatever its validators raise
                problems.append(f"{gunicorns} in {source} is wrong: {exc}")
            sources[ours] = source
    settings = in_force(Settings(), cfg)
    return {ours: (getattr(settings, ours), source) for ours, source in sources.items()}, problems


def _own(where: str) -> Mapping[str, Any]:
    try:
        return own_configuration.read(where)
    except GreenroomError:
        raise
    except Exception as exc:
        raise GreenroomError(f"{where} can't be read: {type(exc).__name__}: {exc}") from exc


def _print(values: Sequence[Value], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"settings": [dataclasses.asdict(value) for value in values]}, indent=2))
        return
    width = max(len(f"{value.name}={value.value}") for value in values if len(value.value) < 40)
    for value in values:
        print(f"{f'{value.name}={value.value}':{width}}  {value.source}")
