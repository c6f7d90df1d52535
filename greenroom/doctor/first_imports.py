"""The first request imports a module, and the loop stands meanwhile: at which own line, and which module."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .findings import Finding
from .wording import duration

FRAMES = ("<frozen importlib", "importlib/")
WARNING_SECONDS = 0.1


def finding(place: str, module: str, seconds: float) -> Finding:
    file, _, line = place.rpartition(":")
    return Finding(
        "import-in-request",
        file,
        int(line),
        f"The first request imports {module or 'a module'} here, and the loop stands for {duration(seconds)}, in each "
        "worker.",
        f"Import {module or 'it'} at the top of the module.",
        level="warning" if seconds >= WARNING_SECONDS else "note",
        cost=seconds,
    )


def own_line(stack: Sequence[Any], is_own: Callable[[str], bool]) -> str:
    """The own line that imports, outermost of nested imports; "" when nothing is being imported."""
    last = max((number for number, line in enumerate(stack) if str(line).startswith(FRAMES)), default=-1)
    if last < 0:
        return ""
    places = (str(line).partition(" ")[0] for line in stack[last + 1 :])
    return next((place for place in places if is_own(place)), "")


def module_of(stack: Sequence[Any], is_own: Callable[[str], bool]) -> str:
    """The module whose import the own line has begun, as far as its file says; "" if nothing does."""
    for line in reversed(stack):
        place, _, function = str(line).partition(" ")
        file = place.rpartition(":")[0]
        if function == "<module>" and not is_own(place) and file.endswith(".py"):
            path = file.rpartition("site-packages/")[2].removesuffix(".py").removesuffix("/__init__")
            return path.strip("/").replace("/", ".")
    return ""


def most_at(told: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """From the probe's answers: by own line the module with which most others came."""
    counts: dict[str, tuple[int, str]] = {}
    for answer in told:
        for line, module, count in answer.get("imports", []):
            counts[line] = max(counts.get(line, (0, "")), (int(count), str(module)))
    return {line: module for line, (_, module) in counts.items()}
