"""Settings of the application, read once from the environment and checked all together.

`read_config()` takes a mapping, so a test hands in a dict and nothing is patched. Names are the environment's own;
`.env-template` and the table of docs/settings.md are made from the fields below, and a test compares them.
`python -m app.config` checks them without starting anything. Pydantic checks each value; pydantic-settings, which would
read them, passes over names in `.env` that nobody knows and lines that it can't read, and here both are problems.
Secrets come from the environment only: in development an open stand-in is used, anywhere else it is refused.
"""

import difflib
import ipaddress
import os
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import click
from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

ROOT = Path(__file__).resolve().parents[2]
DEVELOPMENT_SECRET = "development-only-not-a-secret"  # noqa: S105 - refused outside development
TEMPLATE_SECRET = "change-me"  # noqa: S105 - what .env-template shows; refused outside development
SECRET_LENGTH = 32
FETCHES_IN_PRODUCTION = 120
# Families of names that share .env with ours and belong to other programs.
FOREIGN_PREFIXES = (
    "GREENROOM_",
    "GUNICORN_",
    "FLASK_",
    "PG",
    "POSTGRES_",
    "PYTHON",
    "COMPOSE_",
    "WEB_CONCURRENCY",
    "WSGI_APP",
    "FORWARDED_ALLOW_IPS",
    "TZ",
)
# These may hold a password; their values are never shown.
SECRET_NAMES = ("SECRET_KEY", "DATABASE_URL", "REDIS_URL", "CELERY_BROKER_URL", "MAIL_PASSWORD")


class ConfigError(click.ClickException, ValueError):
    """Some settings are wrong; `problems` has a sentence for each. On the command line: exit code 2, no traceback."""

    exit_code = 2

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("settings to correct:\n" + "\n".join(f"  - {problem}" for problem in problems))


class Config(BaseModel):
    """Everything the application can be told from outside. Durations carry their unit in the name."""

    model_config = ConfigDict(frozen=True, extra="ignore", str_strip_whitespace=True)

    APP_ENV: Literal["development", "production"] = Field(
        "development", description="`production` switches every safety on and every convenience off."
    )
    SECRET_KEY: str = Field(
        DEVELOPMENT_SECRET,
        description="Signs form tokens and reset links: 32 characters or more, from `openssl rand -hex 32`. "
        "No default outside development.",
    )
    PUBLIC_URL: str = Field(
        "http://127.0.0.1:8000",
        description="The address users see; links in mail start with it. Must be https:// in production.",
    )
    INSTANCE_PATH: Path = Field(
        Path("instance"),
        description="Folder for what the application writes: embedded database, development mail. A relative path "
        "starts at the project's folder.",
    )

    DATABASE_URL: str = Field(
        "", description="Any PostgreSQL. Empty: an embedded one is started in INSTANCE_PATH (development only)."
    )
    DB_POOL_SIZE: int = Field(10, ge=1, le=500, description="Connections that each worker keeps open.")
    DB_POOL_OVERFLOW: int = Field(
        5, ge=0, le=500, description="Connections a worker may add to its pool for a moment of high load."
    )
    DB_POOL_TIMEOUT_SECONDS: float = Field(
        10, gt=0, le=300, description="How long a request waits for a free connection before it fails."
    )
    DB_CONNECT_TIMEOUT_SECONDS: int = Field(
        5, ge=1, le=300, description="How long opening a database connection may take."
    )
    DB_STATEMENT_TIMEOUT_SECONDS: int = Field(
        30, ge=1, le=3600, description="How long one SQL statement may run before PostgreSQL stops it."
    )

    REDIS_URL: str = Field(
        "", description="Set: sessions and rate limits live in this Redis. Empty: they live in PostgreSQL."
    )
    SESSION_LIFETIME_DAYS: int = Field(14, ge=1, le=365, description="A sign-in lasts this long.")
    SIGN_IN_LIMIT: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Failed sign-ins allowed in 15 minutes, for each address and for each account.",
    )

    JOBS: Literal["thread", "celery", ""] = Field(
        "",
        description="Who sends mail: `celery` (a worker must run) or `thread` (this process, after the request; what "
        "is queued is lost if the process is killed). Empty: thread in development, celery in production.",
    )
    CELERY_BROKER_URL: str = Field(
        "", description="Broker for Celery: Redis, RabbitMQ, ... Empty: tables in the same PostgreSQL."
    )
    HISTORY_DAYS: int = Field(30, ge=1, le=3650, description="Recorded fetches older than this are purged.")

    MAIL_SERVER: str = Field("", description="SMTP host. Empty in development: mail lands in INSTANCE_PATH/outbox.")
    MAIL_PORT: int = Field(587, ge=1, le=65535, description="Port of the SMTP server.")
    MAIL_USERNAME: str = Field("", description="SMTP user, if the server wants one.")
    MAIL_PASSWORD: str = Field("", description="SMTP password. Secret.")
    MAIL_USE_TLS: bool = Field(True, description="STARTTLS before signing in.")
    MAIL_USE_SSL: bool = Field(
        False, description="TLS from the first byte, as on port 465; MAIL_USE_TLS must then be `no`."
    )
    MAIL_TIMEOUT_SECONDS: int = Field(20, ge=1, le=300, description="How long the SMTP server may take to answer.")
    MAIL_SENDER: str = Field("boards@localhost", description="Address that mail comes from.")

    BOARD_BUDGET_MS: int = Field(
        10_000, ge=100, le=300_000, description="One board is answered within this time, whatever its sources do."
    )
    SOURCE_RESPONSE_BYTES: int = Field(
        1_048_576, ge=1024, le=104_857_600, description="A source that answers more than this becomes an error."
    )
    SOURCE_REDIRECTS: int = Field(3, ge=0, le=20, description="Redirects followed for one source.")
    SOURCES_PER_BOARD: int = Field(50, ge=1, le=200, description="Sources that one board may have.")
    FETCH_LIMIT: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        description="Fetches of one board that one client may ask for in a minute; 0: any number. "
        "Empty: any number in development, 120 in production.",
    )
    ALLOW_PRIVATE_SOURCES: bool | None = Field(
        None,
        description="Sources may name loopback and private addresses. Empty: yes in development, no in production. "
        "Yes lets every user make this server call your internal network.",
    )
    DEMO: bool | None = Field(
        None, description="The /demo upstream and the demo board. Empty: on in development, off in production."
    )

    TRUSTED_PROXIES: str = Field(
        "",
        description="Addresses or networks, comma separated, whose X-Forwarded-* headers are believed; `unix` stands "
        "for a unix socket. Empty: nobody's.",
    )

    @property
    def is_production(self) -> bool:
        return self.APP_ENV == "production"

    @property
    def allow_private_sources(self) -> bool:
        return not self.is_production if self.ALLOW_PRIVATE_SOURCES is None else self.ALLOW_PRIVATE_SOURCES

    @property
    def demo(self) -> bool:
        return not self.is_production if self.DEMO is None else self.DEMO

    @property
    def fetch_limit(self) -> int:
        if self.FETCH_LIMIT is None:
            return FETCHES_IN_PRODUCTION if self.is_production else 0
        return self.FETCH_LIMIT

    @property
    def jobs(self) -> str:
        return self.JOBS or ("celery" if self.is_production else "thread")

    @property
    def trusted_proxies(self) -> list[str]:
        return [name.strip() for name in self.TRUSTED_PROXIES.split(",") if name.strip()]

    def problems(self) -> list[str]:
        """Return the conflicts between these values, a sentence each; empty when they can be used."""
        found = []
        for name, schemes in (
            ("PUBLIC_URL", ("http", "https")),
            ("DATABASE_URL", ("postgres", "postgresql", "postgresql+psycopg2")),
            ("REDIS_URL", ("redis", "rediss", "unix")),
        ):
            value = getattr(self, name)
            if value and not _is_url(value, schemes):
                found.append(
                    f"{name} must be a URL that starts with {' or '.join(scheme + '://' for scheme in schemes)}"
                )
        if self.PUBLIC_URL and _is_url(self.PUBLIC_URL) and not urlsplit(self.PUBLIC_URL).hostname:
            found.append("PUBLIC_URL has no host name")
        if self.CELERY_BROKER_URL and not _is_url(self.CELERY_BROKER_URL):
            found.append("CELERY_BROKER_URL must be a URL such as redis://host/0 or amqp://host")
        for proxy in self.trusted_proxies:
            if proxy != "unix" and not _is_network(proxy):
                found.append(f"TRUSTED_PROXIES has {proxy!r}: not an address or a network such as 10.0.0.0/8")
        if "@" not in parseaddr(self.MAIL_SENDER)[1]:
            found.append(f"MAIL_SENDER must be a mail address (got {self.MAIL_SENDER!r})")
        if self.MAIL_USE_TLS and self.MAIL_USE_SSL:
            found.append("MAIL_USE_TLS and MAIL_USE_SSL exclude each other; set one of them to `no`")
        if bool(self.MAIL_USERNAME) != bool(self.MAIL_PASSWORD):
            found.append("MAIL_USERNAME and MAIL_PASSWORD belong together; one of them is missing")
        if self.is_production:
            found += self._production_problems()
        return found

    def _production_problems(self) -> list[str]:
        found = []
        if self.SECRET_KEY in (DEVELOPMENT_SECRET, TEMPLATE_SECRET):
            found.append("SECRET_KEY is missing or still the placeholder; make one with: openssl rand -hex 32")
        elif len(self.SECRET_KEY) < SECRET_LENGTH:
            found.append(
                f"SECRET_KEY has {len(self.SECRET_KEY)} characters, it needs {SECRET_LENGTH}; "
                "make one with: openssl rand -hex 32"
            )
        if not self.DATABASE_URL:
            found.append(
                "DATABASE_URL is missing; the embedded database is for development (it trusts every local user)"
            )
        for name in SECRET_NAMES[1:]:
            if TEMPLATE_SECRET in getattr(self, name):
                found.append(f"{name} still has the placeholder {TEMPLATE_SECRET!r}")
        if not self.PUBLIC_URL.startswith("https://"):
            found.append("PUBLIC_URL must be the https:// address that users see")
        if not self.MAIL_SERVER:
            found.append("MAIL_SERVER is missing; without it nobody can reset a password")
        if self.MAIL_PASSWORD and not (self.MAIL_USE_TLS or self.MAIL_USE_SSL):
            found.append("MAIL_PASSWORD would go over the network unencrypted; set MAIL_USE_TLS or MAIL_USE_SSL")
        return found

    @model_validator(mode="after")
    def _tidy(self) -> Self:
        object.__setattr__(self, "PUBLIC_URL", self.PUBLIC_URL.rstrip("/"))
        # Not relative to the current folder: cron, a Celery worker and the server must find the same one.
        object.__setattr__(self, "INSTANCE_PATH", ROOT / self.INSTANCE_PATH.expanduser())
        return self


def _is_url(text: str, schemes: tuple[str, ...] | None = None) -> bool:
    try:
        url = urlsplit(text)
        _ = url.port  # raises for a port that is no number
    except ValueError:
        return False
    return "://" in text and (url.scheme in schemes if schemes else bool(url.scheme))


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def env_file_problems(env_file: Path) -> list[str]:
    """A sentence for each line of the `.env` file that can't be read, and each name that no program here reads."""
    if not env_file.exists():
        return []
    known = list(Config.model_fields)
    found = []
    with env_file.open(encoding="utf-8") as stream:
        for binding in parse_stream(stream):
            if binding.error:
                # The line itself is not shown: it may hold half a secret.
                found.append(f"line {binding.original.line} of {env_file.name} is not NAME=value")
            elif binding.key and binding.key not in known and not binding.key.startswith(FOREIGN_PREFIXES):
                close = difflib.get_close_matches(binding.key, known, n=1)
                advice = f"; did you mean {close[0]}?" if close else ""
                found.append(f"{binding.key} in {env_file.name} is unknown{advice}")
    return found


def read_config(environ: Mapping[str, str | None] | None = None, env_file: Path = ROOT / ".env") -> Config:
    """The settings in `environ`; None reads the process environment over `env_file`, and changes neither.

    An empty value means the default. One that is empty in the environment counts as well: `DATABASE_URL= flask run`
    does without the file's. Raises ConfigError with every problem at once.
    """
    problems: list[str] = []
    if environ is None:
        try:
            problems += env_file_problems(env_file)
            environ = {**dotenv_values(env_file), **os.environ}
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError([f"{env_file.name} can't be read: {exc}"]) from exc
    given = {name: environ[name] for name in Config.model_fields if (environ.get(name) or "").strip()}
    try:
        config = Config.model_validate(given)
    except ValidationError as exc:
        # The rest is checked as well, with the wrong values left out, so that one start shows every problem.
        problems += [_sentence(error) for error in exc.errors(include_url=False)]
        wrong = {str(error["loc"][0]) for error in exc.errors() if error["loc"]}
        config = Config.model_validate({name: value for name, value in given.items() if name not in wrong})
    problems += config.problems()
    if problems:
        raise ConfigError(problems)
    return config


def _sentence(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]) or "settings"
    shown = "" if name in SECRET_NAMES else f" (got {error['input']!r})"
    return f"{name}: {error['msg'][0].lower()}{error['msg'][1:]}{shown}"
