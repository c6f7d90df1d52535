"""The commands and configuration files that start gunicorn: Procfile, Dockerfile, systemd units, scripts."""

import ast
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CONFIGURATIONS = (
    "gunicorn.conf.py",
    "gunicorn_conf.py",
    "gunicorn_config.py",
    "config/gunicorn.py",
    "gunicorn.py",
    "deploy/gunicorn.conf.py",
    "conf/gunicorn.conf.py",
    "gunicorn.config.py",
)
OPTIONS = {
    "-k": "worker_class",
    "--worker-class": "worker_class",
    "-w": "workers",
    "--workers": "workers",
    "--threads": "threads",
    "--timeout": "timeout",
    "-t": "timeout",
    "--graceful-timeout": "graceful_timeout",
    "--max-requests": "max_requests",
    "--keep-alive": "keepalive",
    "-c": "config",
    "--config": "config",
    "--max-requests-jitter": "max_requests_jitter",
    "--worker-connections": "worker_connections",
}
FLAGS = {"--reuse-port": "reuse_port", "--preload": "preload_app"}
COMMAND = re.compile(r"\bgunicorn\b[^\n]*")


@dataclass
class Started:
    """One way in which a server is started: option -> (value, file, line)."""

    file: str
    line: int
    options: dict[str, tuple[Any, str, int]] = field(default_factory=dict)
    is_ours: bool = False  # its configuration calls Greenroom's

    def value(self, name: str) -> Any:
        return self.options[name][0] if name in self.options else None

    def place(self, *names: str) -> tuple[str, int]:
        for name in names:
            if name in self.options:
                return self.options[name][1:]
        return self.file, self.line


def configuration_of(folder: Path, given: Path | None = None) -> Path | None:
    if given is not None:
        return given
    return next((folder / name for name in CONFIGURATIONS if (folder / name).is_file()), None)


def shown_in(path: Path, folder: Path) -> str:
    try:
        return str(path.resolve().relative_to(folder.resolve()))
    except ValueError:
        return str(path)


def read_configuration(path: Path, shown: str) -> dict[str, tuple[Any, str, int]]:
    """The names that the file assigns at its top level; what is computed is kept as its text, in an ast.expr."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return {}
    options: dict[str, tuple[Any, str, int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            value: Any = node.value.value if isinstance(node.value, ast.Constant) else node.value
            options[node.targets[0].id] = (value, shown, node.lineno)
    return options


def commands(folder: Path, environ: Mapping[str, str]) -> Iterator[Started]:
    """Each line of a deployment file that starts gunicorn."""
    for path in deployment_files(folder):
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for number, line in logical_lines(lines):
            if line.lstrip().startswith(("#", "//", ";", "FROM ", "RUN ")) or "pip install" in line:
                continue
            text = _unjsoned(line)
            found = COMMAND.search(text)
            if found is None or "gunicorn.conf" in found[0][:14]:
                continue
            options = parsed(found[0], shown_in(path, folder), number)
            if options or ":" in found[0]:
                yield Started(shown_in(path, folder), number, options)
    if environ.get("GUNICORN_CMD_ARGS"):
        yield Started(
            "GUNICORN_CMD_ARGS", 0, parsed("gunicorn " + environ["GUNICORN_CMD_ARGS"], "GUNICORN_CMD_ARGS", 0)
        )


def deployment_files(folder: Path) -> Iterator[Path]:
    patterns = (
        "Procfile*",
        "Dockerfile*",
        "*.service",
        "docker-compose*.y*ml",
        "compose*.y*ml",
        "*.dockerfile",
        "deploy/*.service",
        "deploy/Procfile*",
        "deploy/Dockerfile*",
        "systemd/*.service",
        "docker/Dockerfile*",
        "*.sh",
        "bin/*.sh",
        "scripts/*.sh",
        "deploy/*.sh",
        "supervisord.conf",
        "supervisor*.conf",
        "fly.toml",
        "render.yaml",
        "app.yaml",
        "k8s/*.y*ml",
        "deploy/*.y*ml",
        "railway.*",
    )
    seen: set[Path] = set()
    for pattern in patterns:
        for path in sorted(folder.glob(pattern)):
            if path.is_file() and path not in seen and path.stat().st_size < 500_000:
                seen.add(path)
                yield path


def logical_lines(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Lines with those that a backslash continues; the number is that of the first."""
    number, whole = 0, ""
    for index, line in enumerate(lines, 1):
        if not whole:
            number = index
        if line.rstrip().endswith("\\"):
            whole += line.rstrip()[:-1] + " "
            continue
        yield number, whole + line
        whole = ""
    if whole:
        yield number, whole


def _unjsoned(line: str) -> str:
    """`["gunicorn", "-w", "4"]` as a command line."""
    if re.search(r"\[\s*[\"'].*[\"']\s*\]", line):
        return " ".join(re.findall(r"[\"']([^\"']*)[\"']", line))
    return line


def parsed(command: str, file: str, line: int) -> dict[str, tuple[Any, str, int]]:
    try:
        words = shlex.split(command.rstrip("\"'"), comments=True)
    except ValueError:
        words = command.split()
    options: dict[str, tuple[Any, str, int]] = {}
    index = 1
    while index < len(words):
        word = words[index]
        name, equals, value = word.partition("=")
        if word in FLAGS:
            options[FLAGS[word]] = (True, file, line)
        elif name in OPTIONS and equals:
            options[OPTIONS[name]] = (_number(value), file, line)
        elif word in OPTIONS and index + 1 < len(words):
            options[OPTIONS[word]] = (_number(words[index + 1]), file, line)
            index += 1
        elif re.fullmatch(r"-[kwtc].+", word) and word[:2] in OPTIONS:
            options[OPTIONS[word[:2]]] = (_number(word[2:]), file, line)
        index += 1
    return options


def _number(text: str) -> Any:
    return int(text) if text.isdigit() else text
