"""The files in deploy/, read for the tests that hold them to each other."""

from pathlib import Path
from typing import Any

import yaml
from dotenv import dotenv_values

from app.config import Config
from greenroom.settings import rows

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
INSTALLED = "/srv/greenroom"
SETTINGS = {row.name for row in rows()} | set(Config.model_fields)
# Capital letters with an underscore that are no setting of ours.
FOREIGN_NAMES = {
    "AF_UNIX",
    "AF_INET",
    "AF_INET6",
    "AF_NETLINK",
    "MAX_CONTENT_LENGTH",
    "POSTGRES_DB",
    "POSTGRES_PASSWORD",
    "POSTGRES_USER",
}


def text(name: str) -> str:
    return (DEPLOY / name).read_text()


def directives(unit: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if line and line[0] not in "#;[":
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(text("compose.yaml")))


# ---- production.env


def shipped() -> dict[str, str]:
    return {name: value or "" for name, value in dotenv_values(DEPLOY / "production.env").items()}


def seconds(value: str) -> int:
    return int(value.removesuffix("s"))
