"""The settings as documentation: rows for tables and for `.env-template`."""

import textwrap
from dataclasses import dataclass, fields

from .fields import Fields
from .knobs import allowed, environment_name, shown


@dataclass(frozen=True)
class Row:
    """One setting as a line of documentation."""

    name: str
    default: str
    allowed: str
    about: str


def rows() -> list[Row]:
    """All settings, in their order, for docs/settings.md and `.env-template`."""
    return [
        Row(environment_name(item.name), shown(item.default), allowed(item), str(item.metadata["about"]))
        for item in fields(Fields)
    ]


def env_template() -> str:
    """The server's part of `.env-template`: every name, commented out, under its sentence."""
    blocks = []
    for row in rows():
        sentence = textwrap.wrap(about(row), 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        blocks.append("\n".join([*sentence, f"#{row.name}={row.default}"]))
    return "\n\n".join(blocks)


def markdown_table() -> str:
    """The server's settings as docs/settings.md shows them."""
    lines = ["| Setting | Default | Range | What it is for |", "|---|---|---|---|"]
    for row in rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.name}` | {default} | {row.allowed} | {row.about} |")
    return "\n".join(lines)


def about(row: Row) -> str:
    """Its sentence, with what it may be."""
    return row.about + (f" ({row.allowed})" if row.allowed else "")
