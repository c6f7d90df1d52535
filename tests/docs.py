"""The documentation that is made from the settings. `python -m tests.docs` (or `make docs`) writes it anew."""

import re
from pathlib import Path

from app.config import rows as application
from greenroom import cli as server
from greenroom import replacements
from greenroom.replacements import report

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
ENV_TEMPLATE = ROOT / ".env-template"
REPLACEMENTS = ROOT / "docs" / "replacements.md"
REPLACEMENTS_HEAD = """\
# What Greenroom replaces

Every name of another package that is replaced, why, and with which versions that is tested. Each part is replaced as a
whole or not at all: a version that nobody has tested, or that has other names than we expect, keeps its own behaviour,
and one line in the log says so. `greenroom patched` prints what is replaced on your machine; `greenroom patched --json`
prints it for programs. Nothing else of other packages is assigned to.

This page is made from `greenroom/replacements` by `python -m tests.docs`.

"""

HEAD = """\
# Copy to .env and change what you need; the process environment wins over this file.
# Lines that are commented out show the default. In production replace every `change-me`.
"""


def env_template() -> str:
    parts = (
        HEAD,
        "# --- The application (app/config) ---\n\n" + application.env_template().strip() + "\n",
        "# --- The server (greenroom/settings.py) ---\n\n" + server.env_template().strip() + "\n",
    )
    return "\n".join(parts)


def readme(text: str) -> str:
    """`text` with both tables of settings as they are now."""
    tables = {"server": server.markdown_table(), "application": application.markdown_table()}
    for name, following in (("server", "application"), ("application", "end")):
        pattern = rf"(<!-- settings: {name} -->\n).*?(<!-- settings: {following} -->)"
        table = tables[name].strip()
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text, flags=re.S)
    return text


def replacements_page() -> str:
    return REPLACEMENTS_HEAD + report.markdown(replacements.registry)


if __name__ == "__main__":
    REPLACEMENTS.write_text(replacements_page())
    ENV_TEMPLATE.write_text(env_template())
    README.write_text(readme(README.read_text()))
