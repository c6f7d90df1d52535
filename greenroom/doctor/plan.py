"""The plan of a drive: the application's routes, and others that descriptions, logs and recordings name."""

import ast
import importlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from ..errors import GreenroomError
from .reading.functions import Function
from .reading.project import Project
from .shapes import SkippedRow

# A GET of such a name does something; a careful person does not send it to see what happens.
UNSAFE = re.compile(
    r"(?:^|[/_.-])(?:log-?out|sign-?out|delete|destroy|remove|drop|purge|reset|truncate|shutdown|restart|reboot|stop|kill"
    r"|unsubscribe|cancel|pay|checkout|charge|migrate|revoke|disable|wipe|clear|flush)(?:$|[/_.-])",
    re.IGNORECASE,
)
NUMBERS = ("IntegerConverter", "IntConverter", "FloatConverter")
WORDS = ("UnicodeConverter", "StringConverter", "PathConverter", "SlugConverter", "")
LOG_LINE = re.compile(r'"(?P<method>[A-Z]+) (?P<target>\S+) HTTP/[\d.]+" (?P<status>\d{3})')
MOST_ROUTES = 60
LARGEST_FILE = 50_000_000


@dataclass(frozen=True)
class Route:
    """One thing to ask. `{nonce}` in the path stands for a word that is another one each time.

    `words` are names of query arguments that the view reads as text. `place` is the view's `file:line`.
    """

    name: str
    path: str
    place: str = ""
    words: tuple[str, ...] = ()
    method: str = "GET"
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    source: str = "routes"

    def target(self, nonce: str = "") -> str:
        """The path for one request; "" asks as it is, without what the view could read."""
        path = self.path.replace("{nonce}", nonce or "doctor")
        if nonce and self.words:
            path += ("&" if "?" in path else "?") + urlencode({name: nonce for name in self.words})
        return path

    @property
    def takes_nonce(self) -> bool:
        return bool(self.words) or "{nonce}" in self.path


@dataclass(frozen=True)
class Skipped:
    what: str
    why: str

    def as_dict(self) -> SkippedRow:
        return {"what": self.what, "why": self.why}


def planned(
    routes: Sequence[dict[str, Any]],
    project: Project,
    *,
    urls: Iterable[str] = (),
    files: Iterable[Path] = (),
    allow_writes: bool = False,
) -> tuple[list[Route], list[Skipped]]:
    """The requests to send, and those that are left out, each with its reason."""
    found: dict[tuple[str, str], Route] = {}
    skipped: list[Skipped] = []
    for path in urls:
        found[("GET", path)] = Route(f"GET {path.partition('?')[0]}", local_target(path), source="--url")
    for file in files:
        for route in read_file(file, allow_writes=allow_writes):
            found.setdefault((route.method, route.path), route)
    for one in routes:
        ruled, why = _of_rule(one, project, allow_writes=allow_writes)
        if ruled is not None:
            found.setdefault((ruled.method, ruled.path), ruled)
        elif why:
            skipped.append(Skipped(f"{'/'.join(_methods(one))} {one['rule']}", why))
    if not found and not skipped:
        found[("GET", "/")] = Route("GET /", "/", place=_only_view(project))
        skipped.append(
            Skipped("routes", "the application lists none that can be asked: name them with --url or --from")
        )
    chosen = list(found.values())
    for route in chosen[MOST_ROUTES:]:
        skipped.append(Skipped(route.name, f"more than {MOST_ROUTES} routes: name it with --url"))
    return chosen[:MOST_ROUTES], skipped


def _methods(rule: dict[str, Any]) -> list[str]:
    return [method for method in rule["methods"] if method not in ("HEAD", "OPTIONS")]


def _of_rule(rule: dict[str, Any], project: Project, *, allow_writes: bool) -> tuple[Route | None, str]:
    path, endpoint = str(rule["rule"]), str(rule["endpoint"])
    if endpoint.rpartition(".")[2] == "static":
        return None, ""
    if rule["is_websocket"] or _is_websocket(rule, project):
        return None, "a websocket"
    if "GET" not in rule["methods"]:
        return None, "not GET: give --allow-writes, and a file that describes its requests with --from"
    if UNSAFE.search(path) and not allow_writes:
        return None, "its name says that it does something: --allow-writes, or --url to ask it all the same"
    if rule["host"]:
        return None, "for another host name"
    for name, converter in rule["arguments"].items():
        pattern = re.compile(r"<(?:[^<>]*:)?" + re.escape(name) + r">")
        if converter in NUMBERS:
            path = pattern.sub("1", path)
        elif converter in WORDS:
            path = pattern.sub("{nonce}", path)
        else:
            return None, f"nothing is known for <{name}>: --url names one"
    function = view_of(str(rule["place"]), project)
    words = tuple(words_read(function)) if function is not None else ()
    return Route(f"GET {rule['rule']}", path, str(rule["place"]), words), ""


def _is_websocket(rule: dict[str, Any], project: Project) -> bool:
    function = view_of(str(rule["place"]), project)
    return function is not None and any(
        re.match(r"(?:sock|ws|sockets?)\.route|.*\.websocket", ast.unparse(one)) for one in function.node.decorator_list
    )


def view_of(place: str, project: Project) -> Function | None:
    """The function that begins at `file:line`."""
    file, _, line = place.rpartition(":")
    for function in project.functions:
        first = min([one.lineno for one in function.node.decorator_list] + [function.node.lineno])
        if function.source.shown == file and line.isdigit() and first <= int(line) <= function.node.lineno:
            return function
    return None


def words_read(function: Function) -> Iterator[str]:
    """Names of query arguments that a view reads as text: `request.args["q"]`, `request.args.get("q")`."""
    seen: set[str] = set()
    for node in function.nodes:
        name: Any = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value).endswith("request.args"):
            name = node.slice.value if isinstance(node.slice, ast.Constant) else None
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("request.args.get", "request.GET.get")):
            if not any(keyword.arg == "type" for keyword in node.keywords) and len(node.args) < 3 and node.args:
                name = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
                if len(node.args) > 1 and not (
                    isinstance(node.args[1], ast.Constant) and isinstance(node.args[1].value, str | None)
                ):
                    name = None
        if isinstance(name, str) and name not in seen and not _is_number(function, node):
            seen.add(name)
            yield name


def _is_number(function: Function, node: ast.AST) -> bool:
    return any(
        isinstance(call.func, ast.Name) and call.func.id in ("int", "float", "bool") and node in call.args
        for call in function.calls
    )


def _only_view(project: Project) -> str:
    views = project.views
    return f"{views[0].source.shown}:{views[0].node.lineno}" if len(views) == 1 else ""


def local_target(url: str) -> str:
    """The path and query of a URL; of a path itself."""
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def read_file(path: Path, *, allow_writes: bool) -> list[Route]:
    """Requests in an OpenAPI description, a HAR file, a recording of Greenroom's, or an access log.

    Raises GreenroomError when the file says nothing that can be asked.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise GreenroomError(f"{path} is larger than {LARGEST_FILE // 1_000_000} MB: give a part of it")
        text = path.read_text(errors="replace")
    except OSError as exc:
        raise GreenroomError(f"{path} can't be read: {exc.strerror}") from exc
    try:
        content = json.loads(text)
    except ValueError:
        content = _yaml(text) if path.suffix in (".yml", ".yaml") else None
    if isinstance(content, dict) and "paths" in content:
        found = list(_openapi(content, allow_writes=allow_writes))
    elif isinstance(content, dict) and "log" in content:
        found = list(_har(content, allow_writes=allow_writes))
    elif isinstance(content, dict) and "records" in content:
        found = list(_recording(content))
    else:
        found = list(_access_log(text))
    if not found:
        raise GreenroomError(f"{path} has no request that may be asked: only GET counts without --allow-writes")
    return found


def _yaml(text: str) -> Any:
    try:
        yaml: Any = importlib.import_module("yaml")
    except ImportError as exc:
        raise GreenroomError("an OpenAPI description in YAML needs PyYAML; JSON is read without it") from exc
    return yaml.safe_load(text)


def _openapi(content: dict[str, Any], *, allow_writes: bool) -> Iterator[Route]:
    for path, operations in content["paths"].items():
        if not isinstance(operations, dict):
            continue
        for method, operation in operations.items():
            if method != "get" or not isinstance(operation, dict):
                continue
            parameters = [*operations.get("parameters", []), *operation.get("parameters", [])]
            target, query = str(path), {}
            for one in parameters:
                if not isinstance(one, dict):
                    continue
                value = _example(one)
                if one.get("in") == "path":
                    target = target.replace("{" + str(one.get("name")) + "}", str(value))
                elif one.get("in") == "query" and (one.get("required") or "example" in one):
                    query[str(one.get("name"))] = str(value)
            if "{" not in target and (allow_writes or not UNSAFE.search(target)):
                asked = target + (f"?{urlencode(query)}" if query else "")
                yield Route(f"GET {path}", asked, source="OpenAPI")


def _example(parameter: dict[str, Any]) -> Any:
    schema = parameter.get("schema") or parameter
    for holder in (parameter, schema):
        if "example" in holder:
            return holder["example"]
        if isinstance(holder.get("examples"), dict) and holder["examples"]:
            first = next(iter(holder["examples"].values()))
            return first.get("value", first) if isinstance(first, dict) else first
        if "default" in holder:
            return holder["default"]
    if schema.get("enum"):
        return schema["enum"][0]
    return 1 if schema.get("type") in ("integer", "number") else "doctor"


def _har(content: dict[str, Any], *, allow_writes: bool) -> Iterator[Route]:
    for entry in content["log"].get("entries", []):
        request = entry.get("request", {})
        method = str(request.get("method", ""))
        if method != "GET" and not allow_writes:
            continue
        target = local_target(str(request.get("url", "/")))
        sent = (request.get("postData") or {}).get("text")
        kind = (request.get("postData") or {}).get("mimeType", "")
        # Cookies and logins in a HAR file are somebody's own: they are left out.
        yield Route(
            f"{method} {target.partition('?')[0]}",
            target,
            method=method,
            body=sent.encode() if isinstance(sent, str) else None,
            headers={"Content-Type": kind} if kind else {},
            source="HAR",
        )


def _recording(content: dict[str, Any]) -> Iterator[Route]:
    for record in content["records"]:
        name = str(record.get("name", "")) if isinstance(record, dict) else ""
        if name.startswith("/") and "<" not in name:
            yield Route(f"GET {name}", name, source="recording")


def _access_log(text: str) -> Iterator[Route]:
    seen: set[str] = set()
    for line in text.splitlines():
        found = LOG_LINE.search(line)
        if found is None or found["method"] != "GET" or found["status"][0] not in "23":
            continue
        path = found["target"].partition("?")[0]
        if (
            path not in seen
            and not UNSAFE.search(path)
            and path.isprintable()
            and "\N{HORIZONTAL ELLIPSIS}" not in path
        ):
            seen.add(path)
            yield Route(f"GET {path}", path, source="access log")
