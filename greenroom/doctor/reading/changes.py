"""The change of a deployment file as a diff of its line."""

import re
from pathlib import Path

# Of gunicorn's configuration file: the new line, "" where it is taken out.
SETTINGS = {
    "worker-class": 'worker_class = "greenroom.Worker"',
    "threads-with-gevent": "",
    "reuse-port-max-requests": "",
    "workers-above-cores": "",
    "preload": "preload_app = False",
}
# Of a command, in a shell's words or as a list of strings.
_SEPARATOR = r"[\"']?[=,\s]+[\"']?"
OPTIONS = {
    "worker-class": (rf"((?:-k|--worker-class){_SEPARATOR})[\w.]+", r"\1greenroom.Worker"),
    "threads-with-gevent": (rf"[,\s]+[\"']?--threads{_SEPARATOR}\d+[\"']?", ""),
    "reuse-port-max-requests": (r"[,\s]+[\"']?--reuse-port[\"']?", ""),
    "workers-above-cores": (rf"[,\s]+[\"']?(?:-w|--workers){_SEPARATOR}\d+[\"']?", ""),
    "preload": (r"[,\s]+[\"']?--preload[\"']?", ""),
}


def diff(rule: str, file: str, line: int, folder: Path) -> tuple[str, ...]:
    """The lines of a diff; () where the change is not one of a line."""
    if rule not in SETTINGS or not line:
        return ()
    try:
        lines = (folder / file).read_text(errors="replace").splitlines()
    except OSError:
        return ()
    old = lines[line - 1].rstrip() if line <= len(lines) else ""
    if file.endswith(".py"):
        if not re.match(r"\w+\s*=\s*[^#]*[^\s#(\[{,\\]\s*(?:#.*)?$", old):
            return ()  # a statement of several lines, or none
        new = SETTINGS[rule]
    else:
        new = re.sub(*OPTIONS[rule], old)
    if new == old:
        return ()
    return (f"--- {file}:{line}", f"-{old}", *([f"+{new}"] if new else []))
