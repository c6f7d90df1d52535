"""The documentation that is made from the code. `python -m tests.docs` (or `make docs`) writes it anew."""

import argparse
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from app import cli as application_cli
from app.config import rows as application
from greenroom import cli, errors, replacements
from greenroom.ops import metrics
from greenroom.replacements import report
from greenroom.settings import documenting as server
from tests.greenroom.ops.fakes import moment, seen

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
ENV_TEMPLATE = ROOT / ".env-template"
MARKED = re.compile(r"(<!-- made from the code: (?P<name>\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

HEAD = """\
# Copy to .env and change what you need; the process environment wins over this file.
# Lines that are commented out show the default. In production replace every `change-me`.
"""


def env_template() -> str:
    parts = (
        HEAD,
        "# --- The application (app/config) ---\n\n" + application.env_template().strip() + "\n",
        "# --- The server (greenroom/settings/) ---\n\n" + server.env_template().strip() + "\n",
    )
    return "\n".join(parts)


def made(text: str) -> str:
    """`text` with what stands between its markers as the code says it now."""

    def anew(match: re.Match[str]) -> str:
        return f"{match[1]}\n{MAKERS[match['name']]().strip()}\n\n{match[3]}"

    return MARKED.sub(anew, text)


def pages_with_made_parts() -> list[Path]:
    return [page for page in sorted(DOCS.glob("*.md")) if MARKED.search(page.read_text())]


def metrics_table() -> str:
    """Each metric family of a server with one worker: name, type and meaning."""
    lines = ["| Metric | Type | What it says |", "|---|---|---|"]
    for family in metrics.families(moment(seen())):
        facts = {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in family if line.startswith("#")}
        name, kind = facts["TYPE"].rsplit(" ", 1)
        suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
        lines.append(f"| `{name}{suffix}` | {kind} | {facts['HELP'].partition(' ')[2]} |")
    return "\n".join(lines)


def errors_table() -> str:
    """Every error of ours that is raised, with what its docstring says first."""
    lines = ["| Error | Also a | What it means |", "|---|---|---|"]
    for kind in subclasses(errors.GreenroomError):
        others = [base.__name__ for base in kind.__bases__ if not issubclass(base, errors.GreenroomError)]
        meaning = " ".join((inspect.getdoc(kind) or "").split("\n\n")[0].split())
        lines.append(f"| `{kind.__name__}` | {', '.join(f'`{name}`' for name in others)} | {meaning} |")
    return "\n".join(lines)


def subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    """Those that greenroom/errors.py defines, in its order."""
    for name, found in vars(errors).items():
        if isinstance(found, type) and issubclass(found, kind) and found is not kind and not name.startswith("_"):
            yield found


def server_commands() -> str:
    """`greenroom`'s commands with their options, and the text of those that take gunicorn's."""
    (commands,) = (action for action in cli.parser()._actions if isinstance(action, argparse._SubParsersAction))
    abouts = {action.dest: action.help or "" for action in commands._choices_actions}
    parts = []
    for name, parser in commands.choices.items():
        if name not in abouts:
            continue
        options = [action for action in parser._actions if is_for_people(action)]
        parts.append(f"### `greenroom {name}`\n\n{sentence(abouts[name])}")
        if options:
            rows = [f"| `{invocation(action)}` | {sentence(action.help or '')} |" for action in options]
            parts.append("\n".join(["| Argument | What it does |", "|---|---|", *rows]))
        elif not (text := help_of(name)).startswith(
            "usage:"
        ):  # it passes its arguments on, and says so in its own words
            parts.append(f"```text\n{text}\n```")
    return "\n\n".join(parts)


def is_for_people(action: argparse.Action) -> bool:
    return action.help != argparse.SUPPRESS and not isinstance(action, argparse._HelpAction)


def invocation(action: argparse.Action) -> str:
    value = action.metavar if isinstance(action.metavar, str) else action.dest.upper()
    if not action.option_strings:
        return value
    return ", ".join(action.option_strings) + (f" {value}" if action.nargs != 0 else "")


def sentence(text: str) -> str:
    text = text.replace("|", "\\|").replace("%%", "%")
    return text and text[0].upper() + text[1:] + ("" if text.endswith((".", ")")) else ".")


def help_of(command: str) -> str:
    """Return the output of `greenroom COMMAND --help`."""
    done = subprocess.run(
        [sys.executable, "-m", "greenroom", command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def application_commands() -> str:
    """`flask`'s commands of the reference application: each with its arguments and the first line of its help."""
    lines = ["| Command | What it does |", "|---|---|"]
    for group in vars(application_cli).values():
        if isinstance(group, application_cli.Commands):
            for name, command in group.commands.items():
                usage = command.collect_usage_pieces(click.Context(command))[1:]  # without [OPTIONS]
                options = [option.opts[0] for option in command.params if isinstance(option, click.Option)]
                about = (command.help or "").split("\n\n")[0].replace("\n", " ")
                lines.append(f"| `{' '.join(['flask', group.name, name, *usage, *options])}` | {about} |")
    return "\n".join(lines)


MAKERS: dict[str, Callable[[], str]] = {
    "replacements": lambda: report.markdown(replacements.registry),
    "server": server.markdown_table,
    "application": application.markdown_table,
    "metrics": metrics_table,
    "errors": errors_table,
    "commands": server_commands,
    "flask": application_commands,
}

# The sections of which each command is run as it stands there: by tests/live/test_docs.py.
RUN_AS_WRITTEN = {
    ("README.md", "The first minute"),
    ("docs/move.md", "1. Serve it (ten minutes)"),
    ("docs/boards.md", "A first look"),
    ("docs/operate.md", "Look inside"),
    ("docs/jobs.md", "Cron"),
    ("docs/settings.md", "Settings"),
    ("docs/tls.md", "A certificate to try it"),
    ("docs/tls.md", "In the worker itself"),
}
# All other commands: what runs them, with other ports, shorter, or with a database of their own. A page may also say
# it of all of its commands itself: `<!-- run by: tests/live/test_load.py -->`.
RUN_ELSEWHERE = {
    r"pip install path/to/greenroom": "tests/live/test_package.py",
    r"celery -A app\.celery_app .*": "tests/live/test_celery.py",
    r"locust -f benchmarks/locustfile\.py .*": "tests/live/test_benchmarks.py",
    r"python -m benchmarks( .*)?": "tests/live/test_benchmarks_run.py",
    r"(\.venv/bin/)?pytest.*|make (check|nightly)": ".ci/run",
}

RUN_BY = re.compile(r"^<!-- run by: (\S+) -->$", re.MULTILINE)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every page of the documentation, wherever it lies."""
    return [ROOT / "README.md", ROOT / "deploy" / "README.md", *sorted(DOCS.glob("*.md"))]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Heading and text of each section, down to the next heading of any level."""
    outside_of_code = re.sub(r"^```.*?^```$", lambda code: code[0].replace("\n#", "\n\0"), text, flags=re.DOTALL | re.M)
    for part in re.split(r"^#+ ", outside_of_code, flags=re.MULTILINE)[1:]:
        heading, _, body = part.partition("\n")
        yield heading.strip(), body.replace("\0", "#")


def examples(text: str) -> list[tuple[str, list[str]]]:
    """Each command after `$ ` in the console blocks, with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in CONSOLE.findall(text):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found:
                found[-1][1].append(line)
    return found


if __name__ == "__main__":
    ENV_TEMPLATE.write_text(env_template())
    for page in pages_with_made_parts():
        page.write_text(made(page.read_text()))
