"""The documentation says what the code does."""

import re
import shlex
from pathlib import Path

import pytest

from tests import docs

README = docs.README.read_text()


def test_env_template_names_every_setting_as_it_is() -> None:
    assert docs.ENV_TEMPLATE.read_text() == docs.env_template(), "run: make docs"


def test_the_readme_tables_are_made_from_the_settings() -> None:
    assert docs.readme(README) == README, "run: make docs"


def test_the_page_of_replacements_is_made_from_the_list() -> None:
    assert docs.REPLACEMENTS.read_text() == docs.replacements_page(), "run: make docs"


@pytest.mark.parametrize(
    "page", [docs.README, *sorted((docs.ROOT / "deploy").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    anchors = {re.sub(r"[^a-z0-9 -]", "", line.strip("# ").lower()).replace(" ", "-") for line in headings(text)}

    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (page.parent / target.partition("#")[0]).exists(), target


def headings(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("#")]


def test_every_setting_that_the_readme_mentions_exists() -> None:
    known = docs.ENV_TEMPLATE.read_text()

    for name in set(re.findall(r"\b(?:GREENROOM|DB|SOURCE|BOARD|MAIL|CELERY|TRUSTED|WEB|WSGI)_[A-Z_]+\b", README)):
        assert re.search(rf"^#?{name}=", known, re.MULTILINE), name


def test_every_file_in_the_layout_exists() -> None:
    layout = README.partition("## Layout")[2].partition("\n## ")[0]

    for name in re.findall(r"\b[\w/.]+\.py\b", layout):
        assert (docs.ROOT / name).exists() or (docs.ROOT / "app" / name).exists(), name


def test_the_first_two_commands_are_the_ones_that_were_promised() -> None:
    commands = [line.strip() for line in README.splitlines() if line.startswith("    python3 -m venv")]

    assert commands == [
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/gunicorn",
        "python3 -m venv .venv && .venv/bin/pip install -r requirements-dev.txt && .venv/bin/pytest",
    ]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_and_says_why(name: str) -> None:
    for line in (docs.ROOT / name).read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            requirement, _, reason = line.partition("#")
            assert "==" in requirement, line
            assert reason.strip() or requirement.startswith("types-"), line


def test_the_readme_commands_can_be_parsed_by_a_shell() -> None:
    commands = re.findall(r"^\$ (.+)$", README, re.MULTILINE)

    assert len(commands) > 10
    for command in commands:
        assert shlex.split(command)
