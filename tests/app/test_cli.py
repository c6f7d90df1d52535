import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from app import boards, cli, create_app
from app.extensions import db
from app.jobs import work
from app.models import ApiToken, Board, Source, User
from tests.app.tokens import token_of
from tests.support import PASSWORD


@pytest.fixture
def run(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@pytest.fixture
def make_board(app: Flask) -> Callable[..., None]:
    def make(slug: str, source_name: str = "one") -> None:
        with app.app_context():
            source = Source(position=0, name=source_name, url="http://127.0.0.1:1/", timeout_ms=500)
            db.session.add(Board(slug=slug, title=slug, sources=[source]))
            db.session.commit()

    return make


def test_user_is_created_with_the_password_from_standard_input(app: Flask, run: FlaskCliRunner) -> None:
    result = run.invoke(args=["user", "create", "Ann@Example.org", "--password-stdin"], input=f"{PASSWORD}\nmore\n")

    assert (result.exit_code, result.stdout, result.stderr) == (0, "created ann@example.org\n", "")
    with app.app_context():
        assert User.by_email("ann@example.org").has_password(PASSWORD)


def test_user_is_created_with_a_password_typed_twice_and_not_shown(run: FlaskCliRunner) -> None:
    result = run.invoke(args=["user", "create", "ann@example.org"], input=f"{PASSWORD}\n{PASSWORD}\n")

    assert (result.exit_code, result.stdout) == (0, "created ann@example.org\n")
    assert PASSWORD not in result.output


@pytest.mark.parametrize(
    ("email", "password", "expected"),
    [
        ("ann@example.org", "short", "A password has 10 to 200 characters."),
        ("ann@example.org", "", "Please choose a password."),
        ("ann@example.org", "x" * 201, "A password has 10 to 200 characters."),
        ("ann", PASSWORD, "This does not look like an e-mail address."),
        ("a" * 250 + "@example.org", PASSWORD, "An address has at most 254 characters."),
    ],
)
def test_user_that_the_sign_up_page_would_refuse_is_refused(
    run: FlaskCliRunner, count: Callable[[str], int], email: str, password: str, expected: str
) -> None:
    result = run.invoke(args=["user", "create", email, "--password-stdin"], input=f"{password}\n")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert expected in result.stderr
    assert count("users") == 0


def test_second_user_of_an_address_is_an_error_and_changes_nothing(
    app: Flask, run: FlaskCliRunner, make_user: Callable[..., int], count: Callable[[str], int]
) -> None:
    make_user("ann@example.org")

    result = run.invoke(args=["user", "create", "ANN@example.org", "--password-stdin"], input="another password\n")

    assert result.exit_code == 1
    assert result.stderr == "Error: there is an account ann@example.org already\n"
    assert count("users") == 1
    with app.app_context():
        assert User.by_email("ann@example.org").has_password(PASSWORD)


def test_token_is_printed_and_nothing_else_and_works(
    app: Flask, run: FlaskCliRunner, make_user: Callable[..., int]
) -> None:
    user_id = make_user("ann@example.org")

    result = run.invoke(args=["token", "create", "Ann@example.org", "--name", "nightly"])

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    with app.app_context():
        token = token_of(result.stdout.strip())
        assert (token.user_id, token.name) == (user_id, "nightly")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nobody@example.org"], "there is no account nobody@example.org; create it with: flask user create"),
        (["ann@example.org", "--name", "x" * 81], "A name has at most 80 characters."),
        (["ann@example.org", "--name", ""], "Please give the token a name."),
    ],
)
def test_token_that_cannot_be_is_an_error(
    run: FlaskCliRunner, count: Callable[[str], int], arguments: list[str], expected: str
) -> None:
    result = run.invoke(args=["token", "create", *arguments])

    assert (result.exit_code, result.stdout) == (1, "")
    assert expected in result.stderr
    assert count("api_tokens") == 0


def test_fetch_in_a_pipe_is_lines_with_tabs_and_is_recorded(
    run: FlaskCliRunner, make_board: Callable[..., None], count: Callable[[str], int]
) -> None:
    make_board("one", source_name="a\tb\x1b[31m")
    make_board("two")

    result = run.invoke(args=["board", "fetch", "--all"])

    assert result.exit_code == 0, result.output
    header, first, second = (line.split("\t") for line in result.stdout.splitlines())
    assert header == ["board", "source", "status", "ms", "error"]
    assert first[:3] == ["one", "a b [31m", ""]
    assert second[:2] == ["two", "one"]
    assert second[4] != ""
    assert count("fetches") == 2


def test_fetch_of_a_board_that_does_not_exist_fetches_nothing(
    run: FlaskCliRunner, make_board: Callable[..., None], count: Callable[[str], int]
) -> None:
    make_board("one")

    result = run.invoke(args=["board", "fetch", "one", "nope", "nil\0"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "there is no board nope" in result.stderr
    assert count("fetches") == 0


@pytest.mark.parametrize("arguments", [[], ["one", "--all"]])
def test_fetch_wants_boards_or_all_of_them(run: FlaskCliRunner, arguments: list[str]) -> None:
    result = run.invoke(args=["board", "fetch", *arguments])

    assert result.exit_code == 2
    assert "name boards, or give --all" in result.stderr


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_gets_a_table_and_markup_in_names_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")

    cli.show([("demo", "[bold]one[/bold]", "200", "12", ""), ("demo", "two", "", "7", "no answer")])

    assert "[bold]one[/bold]" in terminal.getvalue()
    assert "no answer" in terminal.getvalue()
    assert "─" in terminal.getvalue()


def test_progress_of_many_boards_goes_to_standard_error_where_somebody_sees_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    plans = [boards.BoardPlan(1, "one", ()), boards.BoardPlan(2, "two", ())]
    assert list(cli.progress(plans)) == plans
    assert list(cli.progress(plans[:1])) == plans[:1]

    assert "2/2" in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_refresh_says_what_it_did(run: FlaskCliRunner, make_board: Callable[..., None]) -> None:
    make_board("one")

    result = run.invoke(args=["jobs", "refresh"])

    assert (result.exit_code, result.stdout) == (0, "refreshed 1, failed 0, skipped 0\n")


def test_refresh_that_failed_is_seen_by_cron(
    run: FlaskCliRunner, make_board: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_board("one")
    monkeypatch.setattr(boards, "results", lambda planned: 1 / 0)

    result = run.invoke(args=["jobs", "refresh"])

    assert (result.exit_code, result.stdout) == (1, "refreshed 0, failed 1, skipped 0\n")


def test_purge_says_what_it_did(run: FlaskCliRunner) -> None:
    result = run.invoke(args=["jobs", "purge"])

    assert (result.exit_code, result.stdout) == (
        0,
        "fetches 0, sessions 0, rate_limit_counters 0, kombu_message 0\n",
    )


def test_mail_test_sends_one(app: Flask, run: FlaskCliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app.extensions["mailman"], "file_path", str(tmp_path))

    result = run.invoke(args=["mail", "test", "ann@example.org"])

    assert (result.exit_code, result.stdout) == (0, "sent to ann@example.org\n")
    assert len(list(tmp_path.iterdir())) == 1


def test_mail_that_the_server_does_not_take_is_an_error(run: FlaskCliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: str) -> None:
        raise ConnectionRefusedError("nobody listens")

    monkeypatch.setattr(work, "send_mail", refuse)

    result = run.invoke(args=["mail", "test", "ann@example.org"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "Error: the mail was not sent: nobody listens\n"


def test_database_that_is_down_is_a_sentence() -> None:
    down = create_app({"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:1/boards"})

    result = down.test_cli_runner().invoke(args=["token", "create", "ann@example.org"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: the database did not answer: connection to server at")
    assert "hunter2" not in result.stderr
    assert not isinstance(result.exception, OperationalError)


def test_nothing_half_saved_is_left_when_the_commit_fails(
    app: Flask, run: FlaskCliRunner, make_user: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_user("ann@example.org")

    def fail() -> None:
        db.session.flush()
        raise OperationalError("COMMIT", {}, Exception("server closed the connection"))

    monkeypatch.setattr(db.session, "commit", fail)

    result = run.invoke(args=["token", "create", "ann@example.org"])

    assert (result.exit_code, result.stdout) == (1, "")
    with app.app_context():
        assert db.session.scalars(select(ApiToken)).all() == []
