"""Output while a load runs: a line each second; on a terminal with `rich`, a panel that is drawn anew."""

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TextIO

from .engine import Engine
from .histogram import merged
from .units import written

BARS = "▁▂▃▄▅▆▇█"
SPARKS = 60
RECENT_SECONDS = 5


class Live(Protocol):
    def second(self, engine: Engine, number: int) -> None:
        """The `number`-th second of the run has ended. Runs on: the generator's thread, between requests."""

    def close(self) -> None:
        """End the live output: the run is over."""


class Silent:
    """Shows nothing."""

    def second(self, engine: Engine, number: int) -> None:
        pass

    def close(self) -> None:
        pass


class Lines:
    """Plain lines, for logs and pipes."""

    def __init__(self, out: TextIO = sys.stderr) -> None:
        self._out = out

    def second(self, engine: Engine, number: int) -> None:
        print(line(numbers(engine, number)), file=self._out, flush=True)

    def close(self) -> None:
        self._out.flush()


class Panel:
    """A panel by rich. Drawing takes milliseconds, so it happens in a thread that gives way to the generator."""

    def __init__(self, title: str, cause: Callable[[], str] = lambda: "") -> None:
        from rich.live import Live as RichLive

        self._title = title
        self._cause = cause
        self._p99: list[float] = []
        self._rich = RichLive(auto_refresh=False, transient=True)
        self._shown: Mapping[str, Any] | None = None
        self._news = threading.Event()
        self._is_over = False
        self._rich.start()
        self._thread = threading.Thread(target=self._draw, name="live", daemon=True)
        self._thread.start()

    def second(self, engine: Engine, number: int) -> None:
        self._shown = numbers(engine, number)
        self._news.set()

    def close(self) -> None:
        self._is_over = True
        self._news.set()
        self._thread.join(2.0)
        self._rich.stop()

    def _draw(self) -> None:
        from rich.panel import Panel as RichPanel

        while self._news.wait() and not self._is_over:
            self._news.clear()
            shown = self._shown
            if shown is None:
                continue
            self._p99 = [*self._p99, shown["p99"] or 0.0][-SPARKS:]
            cause = self._cause()
            text = "\n".join([line(shown), f"p99 {sparkline(self._p99)}", *([cause] if cause else [])])
            self._rich.update(RichPanel(text, title=self._title, title_align="left"), refresh=True)


def numbers(engine: Engine, number: int) -> dict[str, Any]:
    """Return the counts of the second that has ended, and latencies of the last few: answers are still to come."""
    tally = engine.tally
    row = tally.second(number - 1)
    recent = merged(one.latency for one in tally.seconds[max(0, number - RECENT_SECONDS) : number])
    return {
        "second": number,
        "asked": row.asked,
        "got": row.good + row.shed + row.errors,
        "good": row.good,
        "shed": row.shed,
        "errors": row.errors,
        "late": row.late,
        "p50": recent.percentile(50),
        "p95": recent.percentile(95),
        "p99": recent.percentile(99),
    }


def line(shown: Mapping[str, Any]) -> str:
    latency = "  ".join(
        f"{name} {written(shown[name]) if shown[name] is not None else '-'}" for name in ("p50", "p95", "p99")
    )
    late = f"  sent late {shown['late']}" if shown["late"] else ""
    return (
        f"{shown['second']:4d} s  asked {shown['asked']}/s  good {shown['good']}/s  shed {shown['shed']}  "
        f"errors {shown['errors']}  {latency}{late}"
    )


def sparkline(values: Sequence[float]) -> str:
    most = max(values, default=0.0)
    if most <= 0:
        return BARS[0] * len(values)
    return "".join(BARS[min(len(BARS) - 1, int(value / most * (len(BARS) - 1) + 0.5))] for value in values)


def live_for(mode: str, title: str, cause: Callable[[], str] = lambda: "") -> Live:
    """`auto`: a panel on a terminal that has rich, else lines. `lines` and `off` are as they say."""
    if mode == "off":
        return Silent()
    if mode == "auto" and sys.stderr.isatty() and sys.stdout.isatty():
        try:
            return Panel(title, cause)
        except ImportError:
            return Lines()  # rich is an extra: greenroom[load]
    return Lines()
