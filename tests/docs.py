"""The documentation that is made from the settings. `python -m tests.docs` (or `make docs`) writes it anew."""

import re
from pathlib import Path

from app.config import rows as application
from greenroom.settings import documenting as server

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
ENV_TEMPLATE = ROOT / ".env-template"

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


def readme(text: str) -> str:
    """`text` with both tables of settings as they are now."""
    tables = {"server": server.markdown_table(), "application": application.markdown_table()}
    for name, following in (("server", "application"), ("application", "end")):
        pattern = rf"(<!-- settings: {name} -->\n).*?(<!-- settings: {following} -->)"
        table = tables[name].strip()
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}\n{table}\n\n{match[2]}", text, flags=re.S)
    return text


if __name__ == "__main__":
    ENV_TEMPLATE.write_text(env_template())
    README.write_text(readme(README.read_text()))
