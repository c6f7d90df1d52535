"""The report as one HTML file, which can be mailed: no scripts, nothing from elsewhere, plots as SVG."""

import html

from ..examination import Report
from ..findings import Finding
from ..rules import RULES
from ..shapes import Rate, RouteRow

STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}article{border-left:4px solid #888;padding:.1rem 1rem;
margin:1rem 0}article.error{border-color:#c0392b}article.warning{border-color:#d68910}article.note{border-color:#2e86c1}
code,pre{font:13px/1.4 ui-monospace,monospace}code,td,p{overflow-wrap:anywhere}svg{max-width:100%;height:auto}
pre{overflow-x:auto}table{border-collapse:collapse;width:100%}
td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #8884;vertical-align:top}.bar{fill:#2e86c1}
.sync{fill:#95a5a6}.gthread{fill:#b7950b}.why{opacity:.7;font-size:.85rem}.level{text-transform:uppercase;font-size:.75rem;letter-spacing:.05em}
"""
KINDS = ("sync", "gthread", "greenroom")
BAR_WIDTH, BAR_HEIGHT = 320.0, 11


def page(report: Report, app: str) -> str:
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{_text(app)}: {_text(report.verdict)}</title><style>{STYLE}</style>",
        f"<h1>{_text(app)}: {_text(report.verdict)}</h1>",
    ]
    if report.why:
        parts.append(f"<p>{_text(report.why)}</p>")
    facts = report.facts.get("import")
    if facts:
        parts.append(
            f"<p>The import takes {facts['seconds']:.1f} s and {facts['mb']:.0f} MB. "
            f"The doctor took {report.facts['seconds']:.0f} s.</p>"
        )
    parts += [f"<p>{_text(sentence)}</p>" for sentence in report.remarks]
    parts.append(f"<h2>{len(report.findings)} finding{'' if len(report.findings) == 1 else 's'}</h2>")
    parts += [_finding(finding) for finding in report.findings]
    if report.has_gains:
        parts += ["<h2>Gains, route by route</h2>", _routes(report.routes)]
    if report.skipped:
        rows = "".join(f"<tr><td>{_text(one.what)}<td>{_text(one.why)}" for one in report.skipped)
        parts += ["<h2>Not looked at</h2>", f"<table>{rows}</table>"]
    return "\n".join(parts) + "\n</html>\n"


def _finding(finding: Finding) -> str:
    change = f"<pre>{_text(chr(10).join(finding.change))}</pre>" if finding.change else ""
    stack = f"<pre>{_text(chr(10).join(finding.stack))}</pre>" if finding.stack else ""
    return (
        f"<article class={finding.level}><p><span class=level>{finding.level}</span> "
        f"<code>{_text(finding.place)}</code> {_text(finding.rule)}</p>"
        f"<p>{_text(finding.says)}</p><p><b>Change:</b> {_text(finding.do)}</p>{change}{stack}"
        f"<p class=why>Why: {_text(RULES[finding.rule].reason)} More: {_text(finding.docs)}</p></article>"
    )


def _routes(routes: list[RouteRow]) -> str:
    most = max((one["requests_per_second"] for route in routes for one in route["rates"].values()), default=0.0)
    rows = "".join(
        f"<tr><td><code>{_text(route['route'])}</code><br>{_text(route['gains'])}<td>{_plot(route['rates'], most)}"
        for route in routes
    )
    return f"<table><tr><th>Route<th>requests/s under sync (grey), gthread, Greenroom (blue); 95 % within{rows}</table>"


def _plot(rates: dict[str, Rate], most: float) -> str:
    if not rates or not most:
        return ""
    bars = []
    for number, kind in enumerate(kind for kind in KINDS if kind in rates):
        rate, p95 = rates[kind]["requests_per_second"], rates[kind]["p95_seconds"]
        width, y = max(1.0, BAR_WIDTH * rate / most), number * (BAR_HEIGHT + 4)
        said = f"{rate:.0f}/s, {p95 * 1000:.0f} ms"
        bars.append(
            f"<rect class='{'bar' if kind == 'greenroom' else kind}' x=0 y={y} width={width:.0f} height={BAR_HEIGHT} />"
            f"<text x={width + 5:.0f} y={y + BAR_HEIGHT - 1} font-size=11 fill=currentColor>{said}</text>"
        )
    height = len(bars) * (BAR_HEIGHT + 4)
    width = BAR_WIDTH + 140
    return f"<svg width={width:.0f} height={height} viewBox='0 0 {width:.0f} {height}' role=img>{''.join(bars)}</svg>"


def _text(value: object) -> str:
    return html.escape(str(value))
