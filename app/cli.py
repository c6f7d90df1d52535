"""`flask user | token | board | jobs | mail ...`: what an operator does from a terminal, a script or cron.

Results go to standard output and can be piped; prompts, progress and errors go to standard error. An error is one
sentence with exit code 1 (2 for wrong usage or settings), and nothing is half-saved.
"""

import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click
from flask import Flask
from flask.cli import AppGroup
from sqlalchemy import select
from sqlalchemy.exc import OperationalError, ProgrammingError
from werkzeug.datastructures import MultiDict
from wtforms import Form

from . import boards
from .extensions import db
from .logs import first_line
from .models import ApiToken, Board, User

COLUMNS = ("board", "source", "status", "ms", "error")


class Commands(AppGroup):
    """Commands over the database. One that is down, or has no tables yet, is a sentence and not a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OperationalError as exc:
            raise click.ClickException(f"the database did not answer: {first_line(exc)}") from exc
        except ProgrammingError as exc:
            raise click.ClickException(f"{first_line(exc)}; is the database up to date? Run: flask db upgrade") from exc


user = Commands("user", help="Accounts.")
token = Commands("token", help="API tokens.")
board = Commands("board", help="Boards.")
job = Commands("jobs", help="Background jobs, run here and now: for cron, where no Celery runs.")
mail = Commands("mail", help="Mail.")


def init_app(app: Flask) -> None:
    for group in (user, token, board, job, mail):
        app.cli.add_command(group)


@user.command("create")
@click.argument("email")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
def create_user(email: str, password_stdin: bool) -> None:
    """Create the account EMAIL. Asks for the password twice."""
    from .auth.forms import SignUpForm
    from .auth.views import create_user as store_user

    if password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    form = checked(SignUpForm, email=email, password=password)
    account = store_user(form.email.data, password)
    if account is None:
        raise click.ClickException(f"there is an account {form.email.data} already")
    click.echo(f"created {account.email}")


@token.command("create")
@click.argument("email")
@click.option("--name", default="command line", show_default=True, help="What it is for; shown in the list of tokens.")
def create_token(email: str, name: str) -> None:
    """Create an API token for the account EMAIL and print it, and nothing else. It can't be shown again."""
    from .auth.forms import TokenForm

    form = checked(TokenForm, name=name)
    account = User.by_email(email) if "\0" not in email else None
    if account is None:
        raise click.ClickException(f"there is no account {email}; create it with: flask user create {email}")
    _, text = ApiToken.issue(account, form.name.data)
    db.session.commit()
    click.echo(text)


@board.command("fetch")
@click.argument("slugs", nargs=-1, metavar="SLUG...")
@click.option("--all", "fetch_all", is_flag=True, help="Every board there is.")
def fetch_boards(slugs: tuple[str, ...], fetch_all: bool) -> None:
    """Fetch boards now, record what came, and show it: a table, or lines with tabs where the output is piped."""
    if bool(slugs) == fetch_all:
        raise click.UsageError("name boards, or give --all")
    plans = planned(None if fetch_all else slugs)
    show([row_of(plan.slug, source) for plan in progress(plans) for source in boards.results(plan)["sources"]])


@job.command("refresh")
def refresh() -> None:
    """Fetch and record every board. Exit code 1 if one could not be."""
    from .jobs.work import refresh_all_boards

    counted = refresh_all_boards()
    click.echo(", ".join(f"{outcome} {number}" for outcome, number in counted.items()))
    if counted["failed"]:
        raise click.ClickException("some boards could not be refreshed; the log says why")


@job.command("purge")
def purge() -> None:
    """Delete history older than HISTORY_DAYS, and sessions and rate limit counters that are over."""
    from .jobs.work import purge

    click.echo(", ".join(f"{table} {number}" for table, number in purge().items()))


@mail.command("test")
@click.argument("email")
def test_mail(email: str) -> None:
    """Send a message to EMAIL, without a queue, to see that the mail settings are right."""
    from .jobs.work import send_mail

    try:
        send_mail(email, "Boards can send mail", "You asked for this message with: flask mail test\n")
    except (OSError, ValueError) as exc:
        raise click.ClickException(f"the mail was not sent: {first_line(exc)}") from exc
    click.echo(f"sent to {email}")


def checked(form_class: type[Form], **values: str) -> Any:
    """The filled form: the same rules as on the pages. Raises ClickException with what is wrong."""
    form = form_class(MultiDict(values), meta={"csrf": False})
    if not form.validate():
        raise click.ClickException(" ".join(message for messages in form.errors.values() for message in messages))
    return form


def planned(slugs: Iterable[str] | None) -> list[boards.BoardPlan]:
    """The boards to fetch, None for all. Nothing is fetched when one of them does not exist."""
    if slugs is None:
        slugs = list(db.session.scalars(select(Board.slug).order_by(Board.slug)))
    found, missing = [], []
    for slug in dict.fromkeys(slugs):
        item = boards.find(slug)
        if item is None:
            missing.append(slug)
        else:
            found.append(boards.plan(item))
    if missing:
        raise click.ClickException(f"there is no board {', '.join(missing)}; see `flask board fetch --all`")
    return found


def row_of(slug: str, source: dict[str, Any]) -> tuple[str, ...]:
    cells = (slug, source["name"], source.get("status", ""), source["elapsed_ms"], source.get("error", ""))
    return tuple(printable(str(cell)) for cell in cells)


def printable(text: str) -> str:
    """Without control characters: a source's name must neither break the line nor talk to the terminal."""
    return "".join(" " if unicodedata.category(character) == "Cc" else character for character in text)


def show(rows: list[tuple[str, ...]]) -> None:
    if not sys.stdout.isatty():
        for row in (COLUMNS, *rows):
            click.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS[:2])
    table.add_column("status", justify="right")
    table.add_column("ms", justify="right")
    table.add_column("error")
    for name, source, status, elapsed_ms, error in rows:
        colour = "red" if error or int(status or 0) >= 500 else "yellow" if int(status or 0) >= 400 else "green"
        table.add_row(name, Text(source), Text(status, colour), elapsed_ms, Text(error, "red"))
    Console().print(table)


def progress(plans: Sequence[boards.BoardPlan]) -> Iterator[boards.BoardPlan]:
    """The same boards; a bar on standard error tells how many are done, where somebody can see it."""
    if len(plans) < 2 or not sys.stderr.isatty():
        yield from plans
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("boards", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield from bar.track(plans)
