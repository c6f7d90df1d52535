"""Importing the application twice, each time in a child of its own: patched as a worker is, and not."""

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import redaction
from ..insight.stacks import is_installed
from .findings import Finding
from .queued import queued_seconds
from .reading import at_import
from .reading.places import shown_of
from .reading.project import Project
from .scratch import Scratch
from .shapes import Engine, ImportFacts
from .versions import untested

MODULE = "greenroom.doctor.inside.importing"
SLOW_SECONDS = 5.0
# Of the time that an import had: with less, a loop without an end would look like it beside a few other programs.
STARVED_SHARE = 0.8
# A sleep that nobody notices.
SHORT_SLEEP_SECONDS = 0.02
MOST_HOLDERS = 3


# Clients and agents whose own threads watch a connection or send what they have collected: made to be imported.
HELPERS = frozenset(
    "pymongo opentelemetry sentry_sdk ddtrace newrelic elasticapm datadog ldclient kazoo pika kafka confluent_kafka "
    "grpc cassandra elasticsearch hazelcast limits flask_limiter rollbar bugsnag posthog honeycomb libhoney google "
    "azure watchtower statsd logtail loguru".split()
)


@dataclass
class Imported:
    """The report of the patched child, beside the unpatched one.

    `again`: of a second import like the one that succeeded, where only one of the two did.
    """

    patched: dict[str, Any] = field(default_factory=dict)
    plain: dict[str, Any] = field(default_factory=dict)
    again: dict[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[tuple[str, str]]:
        return [(module, path) for module, path in self.patched.get("files", [])]

    @property
    def routes(self) -> list[dict[str, Any]]:
        return list(self.patched.get("routes", []))

    @property
    def engines(self) -> list[Engine]:
        return list(self.patched.get("engines", []))

    @property
    def lazy(self) -> dict[str, float]:
        return dict(self.patched.get("lazy", {}))

    @property
    def seconds(self) -> float:
        return float(self.patched.get("seconds", 0.0))

    @property
    def why_not(self) -> str:
        """Why the application can't be served; "" when it can."""
        if self.patched.get("hangs"):
            queued = float(self.patched.get("queued") or 0.0)
            if self.is_starved:
                return (
                    f"the machine is too busy: for {queued:.0f} s the import was ready to run and had no core; try "
                    "again when it is idle, or give it longer: --for"
                )
            return f"the import did not end within {self.waited:.0f} s: give it longer if it is only slow, with --for"
        return str(self.patched.get("error", ""))

    @property
    def waited(self) -> float:
        """How long an import that did not end was waited for."""
        return float(self.patched.get("waited") or 0.0)

    @property
    def is_starved(self) -> bool:
        """Whether it did not end because others had the cores."""
        return float(self.patched.get("queued") or 0.0) > STARVED_SHARE * float(self.patched.get("waited") or 1.0)

    @property
    def works_only_once(self) -> bool:
        """Whether what an import leaves behind is in the way of the next one, patched or not."""
        failed = self.patched if self.patched.get("error") else self.plain
        return bool(self.again.get("error")) and _kind(self.again) == _kind(failed)

    @property
    def is_kept_from_writing(self) -> bool:
        """Whether it failed because the doctor lets nothing be written: what it did on the way tells nothing then."""
        return "read-only" in self.why_not or "ReadOnly" in self.why_not

    def facts(self) -> ImportFacts:
        return {
            "seconds": round(self.seconds, 2),
            "mb": round(float(self.patched.get("mb", 0.0)), 1),
            "seconds_unpatched": round(float(self.plain.get("seconds", 0.0)), 2),
            "threads": len(self.patched.get("threads", [])),
        }

    def differences(self) -> list[str]:
        """How the patched import did otherwise than the plain one, in sentences."""
        if self.why_not:
            return []
        if self.plain.get("error") and not self.works_only_once:
            return [f"Unpatched the import fails: {redaction.words(str(self.plain['error']))}"]
        found = []
        seen, plain = _events(self.patched), _events(self.plain)
        for mine, others, when in ((seen, plain, "patched"), (plain, seen, "unpatched")):
            found += [f"Only when it is {when} the import does this: {what}." for what in sorted(mine - others)]
        patched, unpatched = self.seconds, float(self.plain.get("seconds", 0.0))
        if patched > unpatched + 1.0 and patched > 2 * unpatched and unpatched:
            found.append(f"The patched import takes {patched:.1f} s, and {unpatched:.1f} s unpatched.")
        return found

    def findings(self, project: Project) -> Iterator[Finding]:
        yield from self._failed()
        yield from untested([tuple(one) for one in self.patched.get("versions", [])], Path.cwd())
        yield from self._held_before()
        if self.is_kept_from_writing:
            return
        own = {source.shown for source in project.sources}
        for event in self.patched.get("events", []):
            file, _, line = str(event["line"]).rpartition(":")
            if file not in own:
                continue
            number, kind, what = int(line), event["kind"], str(event["what"])
            if kind == "sleep" and event["seconds"] >= SHORT_SLEEP_SECONDS:
                yield at_import.sleeps(file, number, float(event["seconds"]))
            elif kind in ("connect", "lookup"):
                does = f"it connects to {what}" if kind == "connect" else f"it looks {what} up"
                is_prepared_for = at_import.is_prepared_for(project, event.get("stack", []))
                yield at_import.talks(file, number, does, is_prepared_for=is_prepared_for)
            elif kind == "thread" and not event.get("has_ended"):
                is_helper = str(event.get("by")) in HELPERS
                yield replace(at_import.thread(file, number, what), level="note" if is_helper else "warning")
            elif kind == "process":
                # A package that asks `git` for the release is no program beside the server.
                is_small = bool(event.get("has_ended") and event.get("by"))
                yield replace(at_import.process(file, number, what), level="note" if is_small else "warning")
        seconds = self.seconds
        if seconds > SLOW_SECONDS and not any(
            event["kind"] == "sleep" and event["seconds"] > seconds / 2 for event in self.patched.get("events", [])
        ):
            yield Finding(
                "slow-import",
                next(iter(own), ""),
                0,
                f"The import takes {seconds:.1f} s and {self.patched.get('mb', 0.0):.0f} MB: so does every reload and "
                "every new worker.",
                "`python -X importtime` says what takes the time.",
                cost=seconds,
            )

    def _failed(self) -> Iterator[Finding]:
        if self.patched.get("hangs") and self.is_starved:
            return  # nothing is known of the application
        if self.patched.get("hangs"):
            file, _, line = str(self.patched.get("hangs_at", "")).rpartition(":")
            yield Finding(
                "import-hangs",
                file,
                int(line) if line.isdigit() else 0,
                f"The import did not end within {self.waited:.0f} s" + (", and was here." if file else "."),
                "Move what waits or computes for long out of the import.",
            )
            return
        told = self.plain if self.works_only_once and not self.patched.get("error") else self.patched
        error = str(told.get("error", ""))
        if not error or told.get("advice"):
            return  # what was imported before anything could patch is told below
        if self.patched.get("is_asgi"):
            yield Finding(
                "import-fails",
                "",
                0,
                f"{error}.",
                "Name the WSGI application within it, wrap it (`a2wsgi.ASGIMiddleware`), or take an ASGI server, say "
                "uvicorn.",
            )
            return
        file, _, line = str(told.get("error_place", "")).rpartition(":")
        if self.works_only_once:
            yield Finding(
                "import-fails",
                file,
                int(line) if line.isdigit() else 0,
                f"The application can be imported once, and each worker imports it: {redaction.words(error)}",
                "Do it in a command before the server, or take what is there already.",
            )
            return
        same = _kind(self.plain) == _kind(self.patched)
        where = "" if same else " in a patched process, though it can in a plain one"
        yield Finding(
            "import-fails",
            file,
            int(line) if line.isdigit() else 0,
            f"The application can't be imported{where}: {redaction.words(error)}",
            "The doctor lets nothing be written: with --allow-writes, and a database that nobody needs, it may."
            if self.is_kept_from_writing
            else "Make it importable from here: the right folder, its packages installed, its settings set.",
        )

    def _held_before(self) -> Iterator[Finding]:
        for sentence in self.patched.get("holders", [])[:MOST_HOLDERS]:
            yield Finding(
                "patched-too-late",
                "sitecustomize",
                0,
                f"Before anything can patch: {sentence}.",
                str(self.patched.get("advice"))
                or "Import it later: something that Python loads first (sitecustomize, a .pth file) brings it in.",
            )


def _events(told: dict[str, Any]) -> set[str]:
    """What an import did, of its own lines."""
    return {f"{one['kind']} at {one['line']}" for one in told.get("events", []) if one["line"]}


def import_twice(scratch: Scratch, app: str, lazy: list[str], seconds: float) -> Imported:
    """Both children at once; none takes longer than `seconds`. Where one failed, the other is asked again."""
    began = time.monotonic()
    found = Imported(**_imports(scratch, app, lazy, seconds, ("patched", "plain")))
    if bool(found.patched.get("error")) != bool(found.plain.get("error")) and not found.patched.get("hangs"):
        name = "plain" if found.patched.get("error") else "patched"
        found.again = _imports(scratch, app, [], 3.0 + 2 * (time.monotonic() - began), (name,))[name]
    return found


def _imports(
    scratch: Scratch, app: str, lazy: list[str], seconds: float, names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    found = {}
    children = {}
    for name in names:
        answer = scratch.folder / f"import-{name}"
        more = {
            "_GREENROOM_DOCTOR_PATCHED": "1" if name == "patched" else "",
            "_GREENROOM_DOCTOR_SECONDS": f"{max(1.0, seconds):.1f}",
            "_GREENROOM_DOCTOR_DATABASES": f"databases-{name}",  # both may write what the other would find there
        }
        command = [sys.executable, "-m", MODULE, str(answer), app, json.dumps(lazy if name == "patched" else [])]
        children[name] = (scratch.start(command, more, is_patched_first=name == "patched"), answer)
    for name, (child, answer) in children.items():
        ended = child.wait(seconds + 3.0)
        queued = 0.0 if ended else queued_seconds(child.process.pid)
        child.stop(0.5)
        said = _answer(answer, child.output(), ended)
        if said.get("hangs"):
            said.update(queued=queued or said.get("queued", 0.0), waited=seconds)
        answer.unlink(missing_ok=True)
        found[name] = said
    return found


def _kind(told: dict[str, Any]) -> str:
    """The name of the error with which an import failed."""
    return str(told.get("error", "")).partition(":")[0]


def _answer(path: Path, output: str, ended: bool) -> dict[str, Any]:
    if path.is_file():
        answer = json.loads(path.read_text())
        assert isinstance(answer, dict)
        return answer
    stack = Path(f"{path}.stack")
    dump = stack.read_text(errors="replace") if stack.is_file() else ""
    if "Timeout" in dump or not ended:
        queued = re.search(r"^Queued ([\d.]+)$", dump, re.MULTILINE)
        return {"hangs": True, "hangs_at": _own_place(dump, path.parent), "queued": float(queued[1]) if queued else 0.0}
    lines = [line for line in output.splitlines() if line.strip()]
    return {
        "error": "the process ended while it imported" + (f": {lines[-1][:200]}" if lines else ""),
        "crashed": True,
        "error_place": _own_place(output, path.parent),
    }


def _own_place(dump: str, scratch: Path) -> str:
    """The innermost line in a stack of faulthandler's that is in no package, and not in the doctor's own folder."""
    for file, line in re.findall(r'File "([^"]+)", line (\d+)', dump):
        if not is_installed(file) and file.endswith(".py") and not file.startswith(f"{scratch}/"):
            return f"{shown_of(file)}:{line}"
    return ""
