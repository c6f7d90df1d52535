"""The documentation says what the code does."""

import ast
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import docs

README = docs.ROOT / "README.md"
MOST_README_BYTES = 10_000
SETTING = re.compile(r"\b(?:GREENROOM|DB|SOURCE|BOARD|MAIL|CELERY|TRUSTED|WEB|WSGI)_[A-Z_]+\b")

each_page = pytest.mark.parametrize("page", docs.pages(), ids=docs.name_of)


def text_of(page: Path) -> str:
    return page.read_text()


def test_env_template_names_every_setting_as_it_is() -> None:
    assert docs.ENV_TEMPLATE.read_text() == docs.env_template(), "run: make docs"


@pytest.mark.parametrize("name", ["settings.md", "commands.md", "metrics.md", "errors.md", "replacements.md"])
def test_the_reference_is_made_from_the_code(name: str) -> None:
    text = (docs.DOCS / name).read_text()

    assert docs.MARKED.search(text)
    assert docs.made(text) == text, "run: make docs"


def test_the_readme_is_short() -> None:
    assert README.stat().st_size < MOST_README_BYTES


def test_the_first_two_commands_are_the_ones_that_were_promised() -> None:
    commands = [line.strip() for line in text_of(README).splitlines() if line.startswith("    ")]

    assert commands[:4] == [
        "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/gunicorn",
        "python3 -m venv .venv && .venv/bin/pip install -r requirements-dev.txt && .venv/bin/pytest",
        "pip install path/to/greenroom",
        "greenroom serve shop:app",
    ]


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text_of(page))):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        leads_to = (page.parent / path) if path else page
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), target


@functools.cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub, and MkDocs too, make of the headings."""
    headings = [heading for heading, _ in docs.sections(page.read_text())]
    return frozenset(re.sub(r"[^a-z0-9_ -]", "", heading.lower()).replace(" ", "-") for heading in headings)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.DOTALL | re.MULTILINE)


@each_page
def test_every_setting_that_a_page_mentions_exists(page: Path) -> None:
    known = docs.ENV_TEMPLATE.read_text()

    for name in set(SETTING.findall(text_of(page))):
        assert re.search(rf"^#?{name}=", known, re.MULTILINE), name


@each_page
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"(?<![\w./-])(?:app|benchmarks|devdb|deploy|docs|tests)/[\w./-]*\w", without_code_blocks(text_of(page))
    )

    assert [name for name in named if not (docs.ROOT / name).exists() and name not in FOREIGN] == []


# The operator's own, and the shop's of the examples.
FOREIGN = {"deploy/.env", "deploy/tls", "app/main/views.py"}

PLACE = re.compile(r"`(greenroom/[a-z0-9_/]+\.py)`, `([A-Za-z_.]+)`")


def test_every_place_that_answers_a_question_exists() -> None:
    """The table of "how it works" that leads into the source names modules with a class, function or list in each."""
    places = PLACE.findall(text_of(docs.ROOT / "docs" / "how.md"))

    assert len(places) >= 10
    for path, name in places:
        tree: ast.AST | None = ast.parse((docs.ROOT / path).read_text(encoding="utf-8"))
        for part in name.split("."):
            tree = next((node for node in getattr(tree, "body", []) if part in names_of(node)), None)
            assert tree is not None, f"{path} has no {name}"


def names_of(node: ast.AST) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.Assign):
        return [target.id for target in node.targets if isinstance(target, ast.Name)]
    return [getattr(node, "name", "")]


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def all_commands() -> Iterator[tuple[str, str, str]]:
    """(page, section, command) of each `$ ` line."""
    for page in docs.pages():
        for heading, body in docs.sections(page.read_text()):
            for command, _ in docs.examples(body):
                yield docs.name_of(page), heading, command


def test_every_command_is_run_by_a_test() -> None:
    found = list(all_commands())
    untested = [
        (page, section, command)
        for page, section, command in found
        if (page, section) not in docs.RUN_AS_WRITTEN
        and not docs.RUN_BY.search((docs.ROOT / page).read_text())
        and not any(re.fullmatch(pattern, command) for pattern in docs.RUN_ELSEWHERE)
    ]

    assert len(found) > 30
    assert untested == [], "name what runs them: in tests/docs.py, or on the page as `<!-- run by: tests/... -->`"
    assert docs.RUN_AS_WRITTEN <= {(page, section) for page, section, _ in found}
    claimed = [test for page in docs.pages() for test in docs.RUN_BY.findall(text_of(page))]
    assert all((docs.ROOT / test).exists() for test in [*claimed, *docs.RUN_ELSEWHERE.values()])


def test_every_command_can_be_parsed_by_a_shell() -> None:
    for page, _, command in all_commands():
        assert shlex.split(command), page


def test_every_benchmark_that_a_page_names_exists() -> None:
    named = {name for page in docs.pages() for name in re.findall(r"-m benchmarks[. ](\w+)", text_of(page))}

    assert "run" in named
    assert {name for name in named if not (docs.ROOT / "benchmarks" / f"{name}.py").exists()} == set()


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    """Strict: a page that no nav has, a link or an anchor that leads nowhere fails. No network is used."""
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=docs.ROOT,
        # A proxy that nobody is: any request would fail.
        env={
            **os.environ,
            "NO_MKDOCS_2_WARNING": "1",
            "https_proxy": "http://127.0.0.1:9",
            "http_proxy": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert built.returncode == 0, built.stdout + built.stderr
    written = {path.name for path in (tmp_path / "site").glob("*.html")}
    assert {f"{page.stem}.html" for page in docs.DOCS.glob("*.md")} | {"index.html", "deploy.html"} <= written
    index = (tmp_path / "site" / "index.html").read_text()
    assert 'href="deadlines.html"' in index
    assert not re.search(r'(?:src|href)="(?:https?:)?//(?!127\.0\.0\.1|squidfunk)[^"]*\.(?:js|css|woff2?)', index)


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_and_says_why(name: str) -> None:
    for line in (docs.ROOT / name).read_text().splitlines():
        if line and not line.startswith(("#", "-r")):
            requirement, _, reason = line.partition("#")
            assert "==" in requirement, line
            assert reason.strip() or requirement.startswith("types-"), line
