"""The files in deploy/ name settings, files, commands and times of the project; here they are held to each other."""

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import SECRET_NAMES, TEMPLATE_SECRET, ConfigError, read_config
from greenroom.settings import Settings

from .deploy_files import DEPLOY, FOREIGN_NAMES, INSTALLED, ROOT, SETTINGS, UNITS, compose, directives, shipped, text

FILES = sorted(path for path in DEPLOY.iterdir() if path.is_file() and path.name != ".env")


# ---- Names in all of them


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_setting_named_exists(path: Path) -> None:
    names = set(re.findall(r"\b[A-Z][A-Z0-9]*_[A-Z0-9_]+\b", strip_ciphers(path.read_text())))

    assert names - SETTINGS - FOREIGN_NAMES == set()


def strip_ciphers(config: str) -> str:
    return re.sub(r"ssl_ciphers [^;]*;", "", config)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_file_of_the_project_named_exists(path: Path) -> None:
    content = path.read_text()
    named = set(re.findall(r"(?<![\w./-])(?:deploy|app|greenroom|tests)/[\w./-]*\w", content))
    named |= set(re.findall(rf"{INSTALLED}/([\w./-]*\w)", content))
    named -= {"deploy/.env", "deploy/tls"}  # the operator's own
    missing = {name for name in named if not name.startswith(".venv/") and not (ROOT / name).exists()}

    assert missing == set()


def test_readme_links_exist_and_name_every_file() -> None:
    links = set(re.findall(r"\]\(([^)]+)\)", text("README.md")))

    assert {link for link in links if not (DEPLOY / link).exists()} == set()
    assert {path.name for path in FILES} - links == {"README.md", "Dockerfile.dockerignore"}


def commands() -> Iterator[tuple[str, list[str]]]:
    """(where, words) of each command that starts something of ours."""
    for unit in UNITS:
        yield unit.name, shlex.split(directives(unit)["ExecStart"][-1])
    for name, service in compose()["services"].items():
        if "build" in service and "command" in service:
            yield f"compose {name}", shlex.split(service["command"])
    yield "Dockerfile", ["gunicorn"]
    for line in text("README.md").splitlines():
        for command in re.findall(r"(?:\.venv/bin/|`)((?:flask|python|celery|dotenv) [^`']+)", line):
            yield "README.md", shlex.split(command)


@pytest.mark.parametrize(("where", "words"), list(commands()), ids=lambda value: str(value))
def test_every_command_named_exists(where: str, words: list[str]) -> None:
    program = Path(words[0]).name

    assert (Path(sys.executable).parent / program).exists()
    if program == "celery":
        assert words[1:3] == ["-A", "app.celery_app"]
        assert (ROOT / "app" / "celery_app.py").exists()
    if program == "flask":
        assert words[1:3] == ["db", "upgrade"]
    if words[1:2] == ["-m"]:
        assert (ROOT / words[2].replace(".", "/") / "__main__.py").exists()


def test_production_env_has_only_settings_that_exist() -> None:
    assert set(shipped()) - SETTINGS == {"POSTGRES_PASSWORD"}


def test_production_env_holds_no_secret_and_is_refused_as_it_is() -> None:
    secrets = {name: value for name, value in shipped().items() if name in SECRET_NAMES}

    with pytest.raises(ConfigError) as refused:
        read_config(shipped())

    asked_for = {name for name, value in secrets.items() if TEMPLATE_SECRET in value}
    assert asked_for == {"SECRET_KEY", "DATABASE_URL", "MAIL_PASSWORD"}
    assert {problem.split()[0] for problem in refused.value.problems} == asked_for


def test_production_env_is_accepted_with_its_placeholders_filled_in() -> None:
    filled = {name: value.replace(TEMPLATE_SECRET, "0123456789abcdef" * 2) for name, value in shipped().items()}

    config, settings = read_config(filled), Settings.read(filled)

    assert config.is_production
    assert config.trusted_proxies == ["unix"]
    assert settings.bind.startswith("unix:")


def test_production_env_means_the_same_to_systemd_and_compose() -> None:
    """Both take a line as it is, but for quotes, `$` and comments behind values, which they read differently."""
    lines = [line for line in text("production.env").splitlines() if line and not line.startswith("#")]

    assert [line for line in lines if not re.fullmatch(r"[A-Z_]+=[\w@:/.,-]*", line)] == []
    assert dict(line.split("=", 1) for line in lines) == shipped()
