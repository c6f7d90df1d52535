import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from app.config import ROOT, SECRET_NAMES, TEMPLATE_SECRET, Config, ConfigError, read_config
from app.config.__main__ import main
from app.config.rows import env_template, markdown_table, rows

# Written out and not taken from the code: a default that changes by accident is found here.
NUMBERS = {
    "DB_POOL_SIZE": (10, 1, 500),
    "DB_POOL_OVERFLOW": (5, 0, 500),
    "DB_CONNECT_TIMEOUT_SECONDS": (5, 1, 300),
    "DB_STATEMENT_TIMEOUT_SECONDS": (30, 1, 3600),
    "SESSION_LIFETIME_DAYS": (14, 1, 365),
    "SIGN_IN_LIMIT": (10, 1, 10_000),
    "HISTORY_DAYS": (30, 1, 3650),
    "MAIL_PORT": (587, 1, 65_535),
    "MAIL_TIMEOUT_SECONDS": (20, 1, 300),
    "BOARD_BUDGET_MS": (10_000, 100, 300_000),
    "SOURCE_RESPONSE_BYTES": (1_048_576, 1024, 104_857_600),
    "SOURCE_REDIRECTS": (3, 0, 20),
    "SOURCES_PER_BOARD": (50, 1, 200),
}
OTHERS = {
    "APP_ENV": "development",
    "SECRET_KEY": "development-only-not-a-secret",
    "PUBLIC_URL": "http://127.0.0.1:8000",
    "INSTANCE_PATH": ROOT / "instance",
    "DATABASE_URL": "",
    "DB_POOL_TIMEOUT_SECONDS": 10.0,
    "REDIS_URL": "",
    "JOBS": "",
    "CELERY_BROKER_URL": "",
    "MAIL_SERVER": "",
    "MAIL_USERNAME": "",
    "MAIL_PASSWORD": "",
    "MAIL_USE_TLS": True,
    "MAIL_USE_SSL": False,
    "MAIL_SENDER": "boards@localhost",
    "FETCH_LIMIT": None,
    "ALLOW_PRIVATE_SOURCES": None,
    "DEMO": None,
    "TRUSTED_PROXIES": "",
}
PRODUCTION = {
    "APP_ENV": "production",
    "SECRET_KEY": "0123456789abcdef" * 2,
    "DATABASE_URL": "postgresql://boards:secret@db.example.org/boards",
    "PUBLIC_URL": "https://boards.example.org",
    "MAIL_SERVER": "smtp.example.org",
}


def problems(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read_config(environ)
    return caught.value.problems


@pytest.fixture
def env_file(tmp_path: Path) -> Callable[[str], Path]:
    def write(content: str) -> Path:
        path = tmp_path / ".env"
        path.write_text(content)
        return path

    return write


def test_nothing_has_to_be_set_for_development() -> None:
    expected = {name: default for name, (default, _, _) in NUMBERS.items()} | OTHERS

    assert read_config({}).model_dump() == expected


@pytest.mark.parametrize("name", NUMBERS)
def test_number_is_taken_up_to_both_ends_of_its_range_and_not_beyond(name: str) -> None:
    _, low, high = NUMBERS[name]

    assert getattr(read_config({name: str(low)}), name) == low
    assert getattr(read_config({name: f" {high} "}), name) == high
    for wrong in (str(low - 1), str(high + 1), "many"):
        (problem,) = problems({name: wrong})
        assert problem.startswith(f"{name}: input should be")
        assert repr(wrong) in problem


def test_pool_timeout_takes_fractions_but_not_zero() -> None:
    assert read_config({"DB_POOL_TIMEOUT_SECONDS": "0.5"}).DB_POOL_TIMEOUT_SECONDS == 0.5
    assert problems({"DB_POOL_TIMEOUT_SECONDS": "0"}) != []
    assert problems({"DB_POOL_TIMEOUT_SECONDS": "300.1"}) != []


@pytest.mark.parametrize("name", Config.model_fields)
def test_every_setting_is_described_by_full_sentences(name: str) -> None:
    description = Config.model_fields[name].description

    assert description is not None
    assert re.fullmatch(r"[A-Z`/].{9,}\.", description)


@pytest.mark.parametrize("name", ["MAIL_USE_TLS", "ALLOW_PRIVATE_SOURCES", "DEMO"])
def test_switch_understands_yes_and_no_and_nothing_else(name: str) -> None:
    assert getattr(read_config({name: "yes"}), name) is True
    assert getattr(read_config({name: "0"}), name) is False
    assert "'perhaps'" in problems({name: "perhaps"})[0]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"APP_ENV": "prod"}, "APP_ENV: input should be 'development' or 'production' (got 'prod')"),
        ({"JOBS": "cron"}, "JOBS: input should be 'thread', 'celery' or '' (got 'cron')"),
        ({"PUBLIC_URL": "boards.example.org"}, "PUBLIC_URL must be a URL that starts with http:// or https://"),
        ({"PUBLIC_URL": "http:///boards"}, "PUBLIC_URL has no host name"),
        ({"DATABASE_URL": "mysql://u:hunter2@h/d"}, "DATABASE_URL must be a URL that starts with postgres:// or"),
        ({"DATABASE_URL": "postgresql://h:port/d"}, "DATABASE_URL must be a URL"),
        ({"DATABASE_URL": "postgresql://[h/d"}, "DATABASE_URL must be a URL"),
        ({"REDIS_URL": "localhost:6379"}, "REDIS_URL must be a URL that starts with redis://"),
        ({"CELERY_BROKER_URL": "rabbit.example.org"}, "CELERY_BROKER_URL must be a URL such as redis://host/0"),
        ({"TRUSTED_PROXIES": "10.0.0.0/8, lb1"}, "TRUSTED_PROXIES has 'lb1': not an address or a network"),
        ({"MAIL_SENDER": "boards"}, "MAIL_SENDER must be a mail address (got 'boards')"),
        ({"MAIL_USE_SSL": "yes"}, "MAIL_USE_TLS and MAIL_USE_SSL exclude each other"),
        ({"MAIL_USERNAME": "boards"}, "MAIL_USERNAME and MAIL_PASSWORD belong together"),
    ],
)
def test_wrong_value_is_one_sentence_about_it(environ: dict[str, str], expected: str) -> None:
    (problem,) = problems(environ)

    assert problem.startswith(expected)
    assert "hunter2" not in problem


def test_all_problems_are_reported_at_once() -> None:
    found = problems({"MAIL_PORT": "0", "DB_POOL_SIZE": "x", "DATABASE_URL": "sqlite://", "TRUSTED_PROXIES": "me"})

    assert [problem.split()[0].rstrip(":") for problem in found] == [
        "DB_POOL_SIZE",
        "MAIL_PORT",
        "DATABASE_URL",
        "TRUSTED_PROXIES",
    ]


def test_empty_value_means_the_default() -> None:
    assert read_config({"MAIL_PORT": "", "DEMO": " ", "APP_ENV": ""}) == read_config({})


def test_relative_instance_path_starts_at_the_project_wherever_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert read_config({"INSTANCE_PATH": "data"}).INSTANCE_PATH == ROOT / "data"
    assert tmp_path == read_config({"INSTANCE_PATH": str(tmp_path)}).INSTANCE_PATH


def test_development_is_convenient_and_production_is_safe() -> None:
    development, production = read_config({}), read_config(PRODUCTION)

    assert (development.allow_private_sources, development.demo, development.jobs) == (True, True, "thread")
    assert (production.allow_private_sources, production.demo, production.jobs) == (False, False, "celery")


def test_convenience_can_be_asked_for_in_production() -> None:
    asked = read_config(PRODUCTION | {"ALLOW_PRIVATE_SOURCES": "1", "DEMO": "1", "JOBS": "thread"})

    assert (asked.allow_private_sources, asked.demo, asked.jobs) == (True, True, "thread")


def test_production_needs_everything_that_has_no_safe_default() -> None:
    found = problems({"APP_ENV": "production"})

    assert [problem.split()[0] for problem in found] == ["SECRET_KEY", "DATABASE_URL", "PUBLIC_URL", "MAIL_SERVER"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"SECRET_KEY": TEMPLATE_SECRET}, "SECRET_KEY is missing or still the placeholder"),
        ({"SECRET_KEY": "development-only-not-a-secret"}, "SECRET_KEY is missing or still the placeholder"),
        ({"SECRET_KEY": "x" * 31}, "SECRET_KEY has 31 characters, it needs 32"),
        ({"DATABASE_URL": "postgresql://boards:change-me@h/d"}, "DATABASE_URL still has the placeholder"),
        ({"REDIS_URL": "redis://:change-me@h/0"}, "REDIS_URL still has the placeholder"),
        ({"CELERY_BROKER_URL": "amqp://u:change-me@h"}, "CELERY_BROKER_URL still has the placeholder"),
        ({"MAIL_USERNAME": "u", "MAIL_PASSWORD": "change-me"}, "MAIL_PASSWORD still has the placeholder"),
        ({"MAIL_USERNAME": "u", "MAIL_PASSWORD": "p", "MAIL_USE_TLS": "no"}, "MAIL_PASSWORD would go over the network"),
        ({"PUBLIC_URL": "http://boards.example.org"}, "PUBLIC_URL must be the https:// address"),
    ],
)
def test_production_refuses_unsafe_value(given: dict[str, str], expected: str) -> None:
    (problem,) = problems(PRODUCTION | given)

    assert problem.startswith(expected)


def test_no_secret_is_shown_in_a_problem() -> None:
    found = problems(PRODUCTION | dict.fromkeys(SECRET_NAMES, "hunter2"))

    assert "hunter2" not in "\n".join(found)


def test_environment_goes_before_the_file(env_file: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = env_file("MAIL_PORT=25\nHISTORY_DAYS=7\nSIGN_IN_LIMIT=3\n")
    monkeypatch.setenv("MAIL_PORT", "2525")
    monkeypatch.setenv("SIGN_IN_LIMIT", "")

    config = read_config(env_file=path)

    assert (config.MAIL_PORT, config.HISTORY_DAYS, config.SIGN_IN_LIMIT) == (2525, 7, 10)
    assert "HISTORY_DAYS" not in os.environ


def test_unknown_name_in_the_file_is_a_problem_with_a_suggestion(env_file: Callable[[str], Path]) -> None:
    path = env_file("DATABSE_URL=postgresql://h/d\nFROBNICATE=1\nGREENROOM_X=1\nWEB_CONCURRENCY=2\n")

    with pytest.raises(ConfigError) as caught:
        read_config(env_file=path)

    assert caught.value.problems == [
        "DATABSE_URL in .env is unknown; did you mean DATABASE_URL?",
        "FROBNICATE in .env is unknown",
    ]


def test_line_of_the_file_that_cannot_be_read_is_a_problem(env_file: Callable[[str], Path]) -> None:
    path = env_file('MAIL_PORT=25\nthis is = not "a setting\n')

    with pytest.raises(ConfigError, match=r"line 2 of \.env is not NAME=value"):
        read_config(env_file=path)


def test_file_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"MAIL_PORT=\xff\xfe")

    with pytest.raises(ConfigError, match=r"\.env can't be read"):
        read_config(env_file=tmp_path / ".env")


def test_template_names_every_setting_once_in_order() -> None:
    assert re.findall(r"^#?([A-Z_]+)=", env_template(), re.MULTILINE) == list(Config.model_fields)


def test_template_as_it_is_serves_development_and_is_refused_in_production(env_file: Callable[[str], Path]) -> None:
    path = env_file(env_template())

    assert read_config(env_file=path).SECRET_KEY == TEMPLATE_SECRET
    path.write_text(env_template().replace("#APP_ENV=development", "APP_ENV=production"))
    with pytest.raises(ConfigError, match="SECRET_KEY is missing or still the placeholder"):
        read_config(env_file=path)


def test_every_default_in_the_template_is_the_default(env_file: Callable[[str], Path]) -> None:
    secrets = "|".join(SECRET_NAMES)
    path = env_file(re.sub(rf"^#?(?!{secrets})([A-Z_]+=)", r"\1", env_template(), flags=re.MULTILINE))
    path.write_text(path.read_text().replace(f"SECRET_KEY={TEMPLATE_SECRET}", ""))

    assert read_config(env_file=path) == read_config({})


def test_every_secret_in_the_template_is_a_placeholder_that_production_refuses() -> None:
    values = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", env_template(), re.MULTILINE))

    with_secret = {name for name in SECRET_NAMES if TEMPLATE_SECRET in values[name]}

    assert with_secret == {"SECRET_KEY", "DATABASE_URL", "MAIL_PASSWORD"}
    found = problems(PRODUCTION | {"MAIL_USERNAME": "u"} | {name: values[name] for name in with_secret})
    assert {problem.split()[0] for problem in found} == with_secret


def test_rows_tell_default_and_range() -> None:
    by_name = {row.name: row for row in rows()}

    assert by_name["DB_POOL_SIZE"][1:3] == ("10", "1 to 500")
    assert by_name["DB_POOL_TIMEOUT_SECONDS"][1:3] == ("10", "above 0 to 300")
    assert by_name["APP_ENV"][1:3] == ("development", "development, production")
    assert by_name["DEMO"][1:3] == ("", "yes, no")
    assert by_name["MAIL_USE_TLS"][1:3] == ("yes", "yes, no")
    assert by_name["SECRET_KEY"][1:3] == ("", "")
    assert markdown_table().count("\n") == len(Config.model_fields) + 2


def test_command_says_that_settings_are_fine(capsys: pytest.CaptureFixture[str], env_file: Callable) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == "settings are fine\n"


def test_command_prints_each_problem_on_a_line_of_standard_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_PORT", "0")
    monkeypatch.setenv("DATABASE_URL", "sqlite://")

    assert main([]) == 2

    output = capsys.readouterr()
    assert output.out == ""
    assert [line[:15] for line in output.err.splitlines()] == ["  - MAIL_PORT: ", "  - DATABASE_UR"]


def test_command_prints_the_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--env-template"]) == 0
    assert capsys.readouterr().out == env_template()
