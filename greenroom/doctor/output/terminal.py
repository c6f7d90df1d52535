"""The report in the terminal: plain text, in colour where somebody looks; progress on standard error."""

import os
import sys
import textwrap
import time
from typing import TextIO

from ..examination import COULD_NOT_RUN, Report
from ..findings import Finding
from ..gains import NOT_MEASURED
from ..shapes import RouteRow

COLOURS = {"error": "31", "warning": "33", "note": "36", "bold": "1", "dim": "2", "good": "32"}
DIFF_COLOURS = {"+": "good", "-": "error"}
WIDTH = 100
SHOWN_SKIPPED = 12


class Progress:
    """One line on standard error that is written over; nothing where nobody looks."""

    def __init__(self, stream: TextIO, *, is_quiet: bool) -> None:
        self.stream = stream
        self.is_quiet = is_quiet or not stream.isatty()
        self.began = time.monotonic()

    def tell(self, words: str) -> None:
        if not self.is_quiet:
            self.stream.write(f"\r\x1b[K{time.monotonic() - self.began:3.0f} s  {words[:80]}")
            self.stream.flush()

    def end(self) -> None:
        if not self.is_quiet:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


class Terminal:
    def __init__(self, stream: TextIO | None = None, *, has_colour: bool | None = None) -> None:
        self.stream = stream or sys.stdout
        self.has_colour = self.stream.isatty() and not os.environ.get("NO_COLOR") if has_colour is None else has_colour

    def paint(self, text: str, colour: str) -> str:
        return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m" if self.has_colour else text

    def show(self, report: Report) -> None:
        lines = [self._verdict(report)]
        for finding in report.findings:
            lines += ["", *self._finding(finding)]
        if report.has_gains:
            lines += [
                "",
                self.paint("Gains, route by route (20 clients at most; requests/s, and within how long 95 %)", "bold"),
            ]
            known = [route for route in report.routes if route["gains"] != NOT_MEASURED]
            lines += [self._route(route) for route in known]
            if len(known) < len(report.routes):
                lines.append(f"  {len(report.routes) - len(known)} more: {NOT_MEASURED}")
        if report.skipped:
            lines += ["", self.paint("Not looked at", "bold")]
            lines += [f"  {one.what}: {one.why}" for one in report.skipped[:SHOWN_SKIPPED]]
            if len(report.skipped) > SHOWN_SKIPPED:
                lines.append(f"  and {len(report.skipped) - SHOWN_SKIPPED} more (--json has all)")
        if report.accepted:
            lines += ["", f"{len(report.accepted)} accepted before and not shown."]
        print("\n".join(lines), file=self.stream)

    def _verdict(self, report: Report) -> str:
        counts = {
            level: sum(finding.level == level for finding in report.findings) for level in ("error", "warning", "note")
        }
        said = ", ".join(f"{count} {level}{'s' if count != 1 else ''}" for level, count in counts.items() if count)
        colour = {"ready": "good", "ready, with warnings": "warning"}.get(report.verdict, "error")
        sentence = report.verdict[0].upper() + report.verdict[1:]
        if report.verdict == COULD_NOT_RUN:
            sentence += f": {report.why}"
        facts = report.facts.get("import", {})
        imported = (
            f"  Import: {facts['seconds']:.1f} s, {facts['mb']:.0f} MB ({facts['seconds_unpatched']:.1f} s unpatched)."
            if facts
            else ""
        )
        remarks = "".join(f"\n  {sentence}" for sentence in report.remarks)
        seconds = f"  Took {report.facts.get('seconds', 0):.0f} s." if report.facts else ""
        return self.paint(sentence, colour) + (f": {said}." if said else ".") + imported + seconds + remarks

    def _finding(self, finding: Finding) -> list[str]:
        head = f"{self.paint(finding.level, finding.level)}  {self.paint(finding.place, 'bold')}  {finding.rule}"
        return [
            head,
            *textwrap.wrap(finding.says, WIDTH, initial_indent="  ", subsequent_indent="  "),
            *textwrap.wrap(finding.do, WIDTH, initial_indent="  -> ", subsequent_indent="     "),
            *(self.paint(f"     {line}", DIFF_COLOURS.get(line[:1], "dim")) for line in finding.change),
            self.paint(f"     {finding.docs}", "dim"),
        ]

    def _route(self, route: RouteRow) -> str:
        shown = "  ".join(
            f"{kind} {one['requests_per_second']:.0f}/s in {one['p95_seconds'] * 1000:.0f} ms"
            for kind in ("sync", "gthread", "greenroom")
            if (one := route["rates"].get(kind)) is not None
        )
        return f"  {route['route']}: {route['gains']}" + (f"  ({shown})" if shown else "")
