"""`greenroom load --compare a.json b.json`: results side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

from .units import written


def compare(results: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Results side by side as text; of the others, how they differ from the first."""
    names = [name for name, _ in results]
    width = max(22, *(len(name) + 2 for name in names))
    lines = [f"{'':22}" + "".join(f"{name:>{width}}" for name in names)]
    for key, title, unit in _COMPARED:
        values = [_inside(said, key) for _, said in results]
        if all(value is None for value in values):
            continue
        cells = [_cell(value, values[0] if number else None, unit) for number, value in enumerate(values)]
        lines.append(f"{title:22}" + "".join(f"{cell:>{width}}" for cell in cells))
    for _, said in results[1:]:
        if said["settings"].get("rate") != results[0][1]["settings"].get("rate"):
            lines.append("note: the runs did not ask for the same load; compare them with care")
            break
    for name, said in results:
        if not said["valid"]:
            lines.append(f"note: {name} is not valid: {'; '.join(said['problems'])}")
        if said["limited_by"]:
            lines.append(f"{name} was limited by: {said['limited_by']}")
    return "\n".join(lines)


_COMPARED = (
    ("asked_per_second", "asked", "/s"),
    ("good_per_second", "good", "/s"),
    ("capacity_per_second", "capacity", "/s"),
    ("p50_ms", "p50", " ms"),
    ("p95_ms", "p95", " ms"),
    ("p99_ms", "p99", " ms"),
    ("max_ms", "max", " ms"),
    ("errors_ratio", "errors", "%"),
    ("shed_ratio", "shed", "%"),
    ("generator.late_p99_ms", "generator late, p99", " ms"),
)


def _inside(said: Mapping[str, Any], key: str) -> float | None:
    value: Any = said
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def _cell(value: float | None, first: float | None, unit: str) -> str:
    if value is None:
        return "-"
    words = f"{value * 100:.2f}%" if unit == "%" else written(value / 1000) if unit == " ms" else f"{value:.4g}{unit}"
    if first and unit != "%":
        words += f" ({value / first - 1:+.0%})"
    return words
