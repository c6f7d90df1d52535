"""The settings as rows: what `.env-template` and the table of docs/settings.md are made from."""

import textwrap
from typing import Any, Literal, NamedTuple, get_args, get_origin

from . import SECRET_NAMES, TEMPLATE_SECRET, Config


class Row(NamedTuple):
    """One setting as text. `default` is empty where there is none; `range` where any value will do."""

    name: str
    default: str
    range: str
    description: str


def rows() -> list[Row]:
    """Every setting of the application, in the order of its definition."""
    return [
        Row(name, shown(field.default, name), range_of(field), field.description or "")
        for name, field in Config.model_fields.items()
    ]


def shown(value: Any, name: str) -> str:
    """A default as it is written in the environment. The development stand-in of a secret is not shown."""
    if value is None or name in SECRET_NAMES:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def range_of(field: Any) -> str:
    """Return the range of a setting: `1 to 500`, `above 0 to 300`, `a, b`, `yes, no`; empty for text."""
    if get_origin(field.annotation) is Literal:
        return ", ".join(choice for choice in get_args(field.annotation) if choice)
    if bool in (field.annotation, *get_args(field.annotation)):
        return "yes, no"
    limits = {
        limit: getattr(item, limit) for item in field.metadata for limit in ("ge", "gt", "le") if hasattr(item, limit)
    }
    if not limits:
        return ""
    low = f"above {limits['gt']:g}" if "gt" in limits else f"{limits['ge']}"
    return f"{low} to {limits['le']}"


def env_template() -> str:
    """The application's part of `.env-template`.

    SECRET_KEY is set to the placeholder, which only development accepts; everything else is commented out and shows
    its default.
    """
    examples = {
        "DATABASE_URL": f"postgresql://boards:{TEMPLATE_SECRET}@localhost/boards",
        "REDIS_URL": "redis://localhost:6379/0",
        "CELERY_BROKER_URL": "redis://localhost:6379/1",
        "MAIL_PASSWORD": TEMPLATE_SECRET,
    }
    parts = []
    for row in rows():
        about = row.description + (f" ({row.range})" if row.range else "")
        parts += textwrap.wrap(about, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        if row.name == "SECRET_KEY":
            parts.append(f"SECRET_KEY={TEMPLATE_SECRET}")
        else:
            parts.append(f"#{row.name}={examples.get(row.name, row.default)}")
        parts.append("")
    return "\n".join(parts)


def markdown_table() -> str:
    """The application's settings as docs/settings.md shows them."""
    lines = ["| Setting | Default | Range | What it is for |", "|---|---|---|---|"]
    for row in rows():
        default = f"`{row.default}`" if row.default else ""
        lines.append(f"| `{row.name}` | {default} | {row.range} | {row.description.replace('|', '&#124;')} |")
    return "\n".join(lines) + "\n"
