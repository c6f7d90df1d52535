"""`top` where the package rich is not installed: the verdict and the tables as plain text, anew every second or two."""

import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .client import Client, OpsError
from .text_report import now_table, table, tables

LOOK_SECONDS = 2.0
HOME_AND_CLEAR = "\x1b[H\x1b[2J"
HINT = "Ctrl-C ends this. With `pip install rich` top shows requests in flight and looks inside them."


def screen(view: Mapping[str, Any], width: int, height: int) -> str:
    """Return the text that fits on a terminal of this size."""
    verdict = view.get("verdict") or {}
    lines: list[str] = []
    for finding in [verdict, *verdict.get("others", [])[:3]]:
        lines += textwrap.wrap(f"[{finding.get('level')}] {finding.get('sentence', '')}", width)
        lines += textwrap.wrap(finding.get("do") or "", width, initial_indent="  ", subsequent_indent="  ")
    if "total" in view:
        shown = tables(view)
        now = now_table(view)
        for title, head, rows in [now, *(one for one in shown if one[0] != now[0])]:
            lines += ["", title, *table(head, rows[:10])]
    return "\n".join(line[:width] for line in [*lines[: max(1, height - 2)], "", HINT])


def run(client: Client, write: Callable[[str], Any] = sys.stdout.write, looks: Sequence[float] | None = None) -> int:
    """Show the view again and again until Ctrl-C; `looks` are the pauses, for a test."""
    client.view()  # what is wrong with the address or the token is said before the screen is taken
    pauses = iter(looks) if looks is not None else None
    try:
        while True:
            size = shutil.get_terminal_size()
            try:
                text = screen(client.view(), size.columns, size.lines)
            except OpsError as exc:
                text = f"{exc}"
            write(f"{HOME_AND_CLEAR}{text}\n")
            sys.stdout.flush()
            if pauses is None:
                time.sleep(LOOK_SECONDS)
            elif (pause := next(pauses, None)) is None:
                return 0
            else:
                time.sleep(pause)
    except KeyboardInterrupt:
        return 0
