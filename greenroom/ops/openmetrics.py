"""OpenMetrics text: families, samples, escaped labels.

Format: https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

import zlib
from collections.abc import Iterable, Mapping, Sequence

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
LONGEST_LABEL = 200

Labels = Mapping[str, str]
Sample = tuple[str, Labels, float]


def info(name: str, about: str, labels: Labels) -> list[str]:
    return [*_head(name, "info", about), sample(f"{name}_info", labels, 1)]


def counter(name: str, about: str, samples: Iterable[tuple[Labels, float]], unit: str = "") -> list[str]:
    return [*_head(name, "counter", about, unit), *(sample(f"{name}_total", *each) for each in samples)]


def gauge(name: str, about: str, samples: Iterable[tuple[Labels, float]], unit: str = "") -> list[str]:
    return [*_head(name, "gauge", about, unit), *(sample(name, *each) for each in samples)]


def histogram(
    name: str,
    about: str,
    samples: Iterable[tuple[Labels, Sequence[float], float]],
    bounds: Sequence[float | None],
    unit: str = "",
) -> list[str]:
    """`samples` are (labels, how many in each bucket, sum)."""
    lines = _head(name, "histogram", about, unit)
    for labels, buckets, total in samples:
        if not buckets:
            continue
        below = 0.0
        for count, bound in zip(buckets, bounds, strict=False):
            below += count
            lines.append(
                sample(f"{name}_bucket", {**labels, "le": "+Inf" if bound is None else repr(float(bound))}, below)
            )
        lines += [sample(f"{name}_count", labels, below), sample(f"{name}_sum", labels, total)]
    return lines


def _head(name: str, kind: str, about: str, unit: str = "") -> list[str]:
    head = [f"# TYPE {name} {kind}"]
    if unit:
        head.append(f"# UNIT {name} {unit}")
    return [*head, f"# HELP {name} {about}"]


def sample(name: str, labels: Labels, value: float) -> str:
    inner = ",".join(f'{key}="{escaped(text)}"' for key, text in labels.items())
    return f"{name}{{{inner}}} {number(value)}" if inner else f"{name} {number(value)}"


def escaped(text: str) -> str:
    r"""A label's value: `\`, `"` and line ends are escaped; other control characters have no business in one."""
    if len(text) > LONGEST_LABEL:  # what is different stays different
        text = f"{text[:LONGEST_LABEL]}~{zlib.crc32(text.encode(errors='replace')):08x}"
    bounded = text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in bounded)


def number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
