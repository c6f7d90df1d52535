"""One examination: reading, importing, driving, measuring, in this order and within the time there is."""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import agents, patching, redaction
from ..cores import usable_cores
from . import driving, gains, login
from .answers import differences
from .findings import Finding, ordered, verdict
from .importing import Imported, import_twice
from .judging import Judge
from .plan import Skipped, planned
from .reading import commands, deployment, drivers, every_rule, lazy_imports, memory, pools
from .reading.project import Project
from .reading.sources import Sources
from .scratch import Scratch
from .server import Answer, Server
from .shapes import Document, Facts, RouteRow

AT_IMPORT = ("sleep-at-import", "io-at-import", "thread-at-import", "process-at-import")
COULD_NOT_RUN = "could not run"
# Shares of the time there is, for what comes before.
IMPORT_SHARE, DRIVE_SHARE = 0.4, 0.75
MEASURE_SECONDS = 0.5
UNSURE = (
    "answered otherwise than under sync, perhaps only by what was asked before: no time was left to ask fresh workers, "
    "--for more"
)


@dataclass
class Options:
    app: str
    seconds: float = 60.0
    allow_writes: bool = False
    urls: Sequence[str] = ()
    files: Sequence[Path] = ()
    configuration: Path | None = None
    is_reading_only: bool = False
    has_gains: bool = True
    login: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Report:
    verdict: str = ""
    findings: list[Finding] = field(default_factory=list)
    routes: list[RouteRow] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    accepted: list[Finding] = field(default_factory=list)
    facts: Facts = field(default_factory=Facts)
    why: str = ""  # it could not run

    @property
    def has_gains(self) -> bool:
        """Whether anything is known of what the routes gain."""
        return any(route["gains"] != gains.NOT_MEASURED for route in self.routes)

    @property
    def remarks(self) -> list[str]:
        """Sentences that are no findings: how the patched import did otherwise, and how much was not seen."""
        return [*self.facts.get("differs", []), *filter(None, [self.facts.get("unseen")])]

    def as_dict(self) -> Document:
        return {
            "verdict": self.verdict,
            "findings": [finding.as_dict() for finding in self.findings],
            "routes": self.routes,
            "skipped": [one.as_dict() for one in self.skipped],
        }


def behind_an_agent() -> Iterator[Finding]:
    """An agent's launcher that has started the doctor, and nothing that patches before it."""
    command = agents.launcher()
    if command and not agents.wants_to_be_first(agents.folder()) and not patching.is_patched():
        yield Finding(
            "patched-too-late",
            command,
            0,
            f"`{command}` imports what patching replaces before anything can patch: gunicorn refuses to start then.",
            f"`greenroom run -- {command} gunicorn -k greenroom.Worker ...`; the doctor serves the application so.",
            level="warning",
        )


class Examination:
    """`tell(words)` is called with what is being done."""

    def __init__(self, options: Options, tell: Callable[[str], None]) -> None:
        self.options = options
        self.tell = tell
        self.began = time.monotonic()
        self.until = self.began + options.seconds
        self.found: list[Finding] = []
        self.report = Report()

    def left(self) -> float:
        return self.until - time.monotonic()

    def run(self) -> Report:
        self.tell("reading")
        project = self.read()
        if self.options.is_reading_only:
            return self.finished()
        with Scratch(allow_writes=self.options.allow_writes) as scratch:
            self.tell("importing")
            imported = import_twice(
                scratch, self.options.app, lazy_imports.names(project), IMPORT_SHARE * self.options.seconds
            )
            project = self.read_more(project, imported)
            if not imported.why_not or imported.is_kept_from_writing:
                # The effects of the import have been seen at the import itself, or can't be.
                self.found = [one for one in self.found if one.rule not in AT_IMPORT]
            self.found += imported.findings(project)
            self.found += drivers.engines_seen(project, imported.engines, self.found)
            self.found += lazy_imports.heavy(project, imported.lazy)
            self.facts_of(imported)
            if imported.why_not:
                self.report.why = imported.why_not
            else:
                self.serve(scratch, project, imported)
        if scratch.left:
            names = ", ".join(sorted(set(scratch.left)))
            self.report.skipped.append(Skipped("processes", f"ended what the application had left running: {names}"))
        return self.finished()

    def finished(self) -> Report:
        report = self.report
        report.findings = ordered(cleaned(self.found))
        report.why = redaction.words(without_secrets(report.why))
        report.verdict = COULD_NOT_RUN if report.why else verdict(report.findings)
        report.facts["seconds"] = round(time.monotonic() - self.began, 1)
        return report

    # Reading.

    def read(self) -> Project:
        module, _, expression = self.options.app.partition(":")
        folder = Path.cwd()
        search = [Path(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
        path = Path(module)
        if module.endswith(".py") and path.is_file():
            search.append(path.resolve().parent)
            module = path.stem
        sources = Sources(folder.resolve(), [one.resolve() for one in search], folder.resolve())
        sources.follow(module.replace("/", "."))
        for name in ("settings.py", "config.py"):
            for near in (folder, folder / module.partition(".")[0]):
                if (near / name).is_file():
                    sources.read(near / name)
        if not sources.by_module and find_spec_quietly(module) is None:
            self.report.skipped.append(Skipped(module, "no file of that name is here to be read"))
        project = Project(sources, expression.partition("(")[0] if "(" in expression else "")
        self.static(project)
        environ = dict(os.environ)
        self.found += deployment.find(folder, environ, self.options.configuration)
        self.found += behind_an_agent()
        return project

    def static(self, project: Project) -> None:
        self.found = []
        failed: list[str] = []
        self.found += every_rule.find(project, failed)
        workers, _, _ = deployment.workers_of(Path.cwd(), os.environ, self.options.configuration)
        self.found += pools.above_default(project, workers)
        self.found += memory.socket_servers(project, workers)
        self.report.skipped = [Skipped("reading", problem) for problem in [*project.sources.problems, *failed]]

    def read_more(self, project: Project, imported: Imported) -> Project:
        """Return the project with the files and views that only the import shows: no statement leads to them."""
        known = set(project.sources.by_module)
        for module, path in imported.files:
            if module != "__main__" and "greenroom/doctor" not in path:
                project.sources.read_imported(Path(path), module)
        more = Project(project.sources, project.entry, {str(route["place"]) for route in imported.routes})
        if set(project.sources.by_module) == known and len(more.views) == len(project.views):
            return project
        deployed = [one for one in self.found if one.file not in {source.shown for source in project.sources}]
        self.static(more)
        self.found += deployed
        return more

    def facts_of(self, imported: Imported) -> None:
        self.report.facts["import"] = imported.facts()
        self.report.facts["differs"] = [without_secrets(one) for one in imported.differences()]
        self.report.facts["cores"] = usable_cores()

    # Running.

    def serve(self, scratch: Scratch, project: Project, imported: Imported) -> None:
        routes, skipped = planned(
            imported.routes,
            project,
            urls=self.options.urls,
            files=self.options.files,
            allow_writes=self.options.allow_writes,
        )
        self.report.skipped += skipped
        configuration = commands.configuration_of(Path.cwd(), self.options.configuration)
        server = Server(scratch, self.options.app, "greenroom", configuration)
        self.tell("starting a worker")
        try:
            if not server.start(self.start_seconds(imported)):
                if server.is_up():
                    self.report.why = "the import took all of the time; give it longer: --for"
                else:
                    self.report.why = f"the worker did not serve: {last_words(server.output())}"
                return
            is_logged_in = self.log_in(server)
            judge = Judge(project, list(self.found))
            until = self.began + DRIVE_SHARE * self.options.seconds
            driven = driving.drive(server, routes, until, self.tell, time.monotonic)
            self.found += judge.findings(driven)
            self.pools(imported)
            self.report.skipped += [Skipped(route.name, driven.why_not_asked) for route in driven.not_asked]
            self.not_good(driven, is_logged_in, judge)
            measured = {seen.route.name: gains.Gain(seen) for seen in driven.routes}
            if self.options.has_gains:
                self.measure(scratch, server, measured)
        finally:
            server.stop()
        self.report.routes = gains.as_list(measured)
        self.found += self.differing(scratch, configuration, list(measured.values()))

    def start_seconds(self, imported: Imported) -> float:
        """How long a worker may take to start: longer where the import is slow."""
        return min(max(20.0, 5.0 + 1.5 * imported.seconds), (0.85 if imported.seconds > 10.0 else 0.6) * self.left())

    def differing(
        self, scratch: Scratch, configuration: Path | None, measured: Sequence[gains.Gain]
    ) -> Iterator[Finding]:
        """Routes that answer otherwise than under sync, also where both servers are fresh.

        A page that shows what was asked before it differs by that, and by nothing else.
        """
        suspects = [
            gain for gain in measured if differences(gain.seen.alone, gain.sync_answers) and gain.seen.route.place
        ]
        answers: dict[str, list[list[Answer]]] = {}
        for kind in ("greenroom", "sync") if suspects else ():
            self.tell(f"asking a fresh {kind} worker")
            told = self.asked_afresh(scratch, kind, configuration if kind == "greenroom" else None, suspects)
            if told is None:
                names = ", ".join(gain.seen.route.name for gain in suspects)
                self.report.skipped.append(Skipped(names, UNSURE))
                return
            answers[kind] = told
        for gain, ours, theirs in zip(suspects, answers.get("greenroom", ()), answers.get("sync", ()), strict=True):
            differs = differences(ours, theirs)
            if differs:
                file, _, line = gain.seen.route.place.rpartition(":")
                yield Finding(
                    "differs-from-sync",
                    file,
                    int(line),
                    f"{gain.seen.route.name} answers otherwise under Greenroom: {differs}.",
                    "Compare both answers, and look for what depends on the process.",
                )

    def asked_afresh(
        self, scratch: Scratch, kind: str, configuration: Path | None, suspects: Sequence[gains.Gain]
    ) -> list[list[Answer]] | None:
        """The answers of a worker that has served nobody; None if there is no time or no login."""
        if self.left() < 3.0:
            return None
        server = Server(scratch, self.options.app, kind, configuration)
        try:
            if not server.start(min(10.0, 0.4 * self.left())):
                return None
            if login.log_in_at(server, self.options.login, self.options.headers):
                return None
            return [gains.asked(server, gain.seen, 0.3 * self.left()) for gain in suspects]
        finally:
            server.stop()

    def log_in(self, server: Server) -> bool:
        """Whether requests carry a login now; why not is among what was not looked at."""
        why_not = login.log_in_at(server, self.options.login, self.options.headers)
        if why_not:
            more = "" if self.options.allow_writes else " (a login that writes to a database needs --allow-writes)"
            self.report.skipped.append(Skipped("routes behind the login", without_secrets(why_not) + more))
        return bool(self.options.headers or (self.options.login and not why_not))

    def not_good(self, driven: driving.Drive, is_logged_in: bool, judge: Judge) -> None:
        found = [login.not_seen(seen, is_logged_in=is_logged_in, is_own=judge.is_own) for seen in driven.routes]
        self.report.skipped += [one for one in found if one is not None]
        unseen = sum(one is not None for one in found) + len(driven.not_asked)
        routes = len(driven.routes) + len(driven.not_asked)
        if unseen:
            self.report.facts["unseen"] = (
                f"{unseen} of the {routes} routes that were to be asked were not seen, see below."
            )

    def measure(self, scratch: Scratch, ours: Server, measured: dict[str, gains.Gain]) -> None:
        worth = [
            gain
            for gain in measured.values()
            if gains.worth_measuring(gain.seen) and not login.is_behind_login(gain.seen)
        ]
        if not worth or self.left() < 6.0:
            return
        for kind in ("greenroom", "sync", "gthread"):
            if self.left() < 3.0:
                return
            server = ours
            if kind != "greenroom":
                ours.stop()
                server = Server(scratch, self.options.app, kind, None)
                if not server.start(min(15.0, 0.5 * self.left())):
                    server.stop()
                    continue
            try:
                if login.log_in_at(server, self.options.login, self.options.headers):
                    continue
                self.tell(f"measuring under {kind}")
                if kind == "greenroom":
                    server.ask("doctor, look away")
                rest = {"greenroom": 3, "sync": 2, "gthread": 1}[kind]
                each = min(MEASURE_SECONDS, max(0.0, 0.7 * self.left() / rest) / len(worth))
                for gain in worth:
                    if self.left() < 2.0 or each < 0.1:
                        break
                    if gain.seen.typical_seconds > 2 * each:
                        continue  # none would be answered in that time
                    gains.settle(server, 0.1 * self.left())
                    if kind == "sync":
                        gain.sync_answers = gains.asked(server, gain.seen, 0.2 * self.left())
                    gain.by_kind[kind] = gains.measure(server, gain.seen, each)
            finally:
                server.stop()

    def pools(self, imported: Imported) -> None:
        """All workers' pools together, and what the database allows: it was asked, which counts over the default."""
        if any(engine.get("most") for engine in imported.engines):
            self.found = [one for one in self.found if one.rule != "pools-above-max-connections"]
        workers, file, line = deployment.workers_of(Path.cwd(), os.environ, self.options.configuration)
        for engine in imported.engines:
            most, size = int(engine.get("most") or 0), int(engine.get("size") or 0)
            together = (size + max(0, int(engine.get("overflow") or 0))) * workers
            if not most or together <= most:
                continue
            place = next(
                ((one.file, one.line) for one in self.found if one.rule in ("default-pool", "pool-too-small")),
                (file, line),
            )
            self.found.append(
                Finding(
                    "pools-above-max-connections",
                    *place,
                    f"{workers} workers may open {together} connections together, and the database allows {most}.",
                    "Make pool_size and max_overflow smaller, or put PgBouncer in between.",
                    cost=together / most,
                )
            )


def find_spec_quietly(module: str) -> Any:
    try:
        return find_spec(module.partition(".")[0]) if module.partition(".")[0].isidentifier() else None
    except (ImportError, ValueError):
        return None


def cleaned(found: Sequence[Finding]) -> list[Finding]:
    """Sentences in which nothing of a secret is: no passwords in URLs, no long tokens."""
    return [
        replace(one, says=without_secrets(one.says), diff=tuple(without_secrets(line) for line in one.diff))
        for one in found
    ]


def without_secrets(text: str) -> str:
    text = re.sub(r"(://)[^/\s@]*@", r"\1...@", text)
    return re.sub(r"(?i)((?:password|passwd|secret|token|api_?key)\s*[=:]\s*)\S+", r"\1...", text)


def last_words(output: str) -> str:
    """The last line of a log that says why, without what could be a secret."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "rror:" in line or "Exception" in line]
    return redaction.line(without_secrets((telling or lines or ["it said nothing"])[-1]))
