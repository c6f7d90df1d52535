"""Findings from the run, each at the application's own innermost line."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from . import executors, first_imports
from .driving import WAITING_SHARE, Drive, Seen
from .findings import Finding
from .log import crash, last_error
from .reading.project import Project
from .reading.queries import held_pair
from .server import NO_ANSWER
from .wording import change_for, duration

# A stall of this length at each request is an error, a warning, or a note.
ERROR_SECONDS, WARNING_SECONDS = 0.1, 0.03
COMPUTES_SECONDS = 0.1
# As many times the same statement in one request is a loop.
REPEATED = 5
# A container that grows by so many of the requests grows with them.
GROWTH_SHARE = 0.6
FEWEST_REQUESTS = 8
# How an application asks for related rows at once, by whether it is Django's.
TOGETHER = {False: "selectinload() or joinedload()", True: "select_related() or prefetch_related()"}
# A request that takes less alone is in nobody's way in a pool.
KEPT_SECONDS = 0.05


class Judge:
    """Knows which files are the application's own."""

    def __init__(self, project: Project, static: Sequence[Finding]) -> None:
        self.project = project
        self.static = static
        self.own = {source.shown for source in project.sources}
        self.imports: dict[str, str] = {}  # own line -> the module that requests import there

    def findings(self, drive: Drive) -> Iterator[Finding]:
        self.imports = first_imports.most_at((*drive.earlier, drive.last))
        for seen in drive.routes:
            yield from self._route(seen, drive)
        yield from self._probe(drive)

    def _route(self, seen: Seen, drive: Drive) -> Iterator[Finding]:
        if seen.died:
            yield self._died(seen, drive)
            return
        yield from self.stalls(seen)
        yield from self._deadlocks(seen)
        if seen.alone and all(one.error == NO_ANSWER for one in seen.alone) and not seen.deadlocks:
            yield from self._hangs(seen)
        yield from self.mixed(seen)
        yield from self._fails(seen, drive)
        yield from self._pools(seen)
        yield from self._locks(seen)
        yield from executors.full(seen, self.project, self.static)

    # Stalls.

    def stalls(self, seen: Seen) -> Iterator[Finding]:
        """Lines that stop the loop each time; those that did once are imports, or nobody's business."""
        asked = len([one for one in seen.alone if one.status])
        by_line: dict[str, list[dict[str, Any]]] = {}
        for stall in seen.stalls:
            if "garbage collection" in str(stall.get("called", "")):
                continue
            stack = stall.get("stack", [])
            place = first_imports.own_line(stack, self.is_own)
            if place:
                seconds = float(stall["seconds"]) - float(stall.get("stolen_seconds", 0.0))
                if seconds >= WARNING_SECONDS:
                    module = self.imports.get(place) or first_imports.module_of(stack, self.is_own)
                    yield first_imports.finding(place, module, seconds)
                continue
            by_line.setdefault(self.own_line(stall, seen), []).append(stall)
        # Lines that nobody saw (a busy machine, C code that keeps the GIL): where another of the route's was seen.
        if len(unseen := by_line.pop("", [])) > 1:
            known = {line: stalls for line, stalls in by_line.items() if line != seen.route.place}
            most = max(known, key=lambda line: len(known[line]), default=seen.route.place)
            by_line[most] = [*unseen, *by_line.get(most, [])]
        for place, stalls in by_line.items():
            if not place:
                continue
            lengths = sorted(float(one["seconds"]) - float(one.get("stolen_seconds", 0.0)) for one in stalls)
            is_current = any(one.get("is_current") for one in stalls)
            if len(stalls) < 2 and asked > 1 and not is_current:
                continue  # the first time something is made
            seconds = sum(lengths) / max(1, asked) if len(lengths) > asked else lengths[len(lengths) // 2]
            seconds = max(lengths) if is_current else seconds
            holds_gil = sum(bool(one.get("holds_gil")) for one in stalls) * 2 > len(stalls)
            called = self._called(stalls[-1])
            level = "error" if seconds >= ERROR_SECONDS else "warning" if seconds >= WARNING_SECONDS else "note"
            yield self._at(
                "stops-loop",
                place,
                f"The loop stands here for {duration(seconds)} in each request of {seen.route.name}"
                + (f", in {called}" if called else "")
                + (" (it keeps the GIL)" if holds_gil and called else "")
                + (
                    f"; a page that does nothing took {duration(seen.heartbeat_seconds)} meanwhile."
                    if seen.heartbeat_seconds > seconds / 2
                    else "."
                ),
                change_for(stalls, called, place.rpartition(":")[0], self.static),
                level=level,
                cost=seconds,
                stack=tuple(str(line) for line in stalls[-1].get("stack", [])[:12]),
            )

    def own_line(self, stall: dict[str, Any], seen: Seen) -> str:
        """The innermost own line, the view where there is none; "" where no line was seen at all."""
        for line in stall.get("stack", []):
            place = str(line).partition(" ")[0]
            if self.is_own(place):
                return place
        place = str(stall.get("line", ""))
        return place if self.is_own(place) else seen.route.place if stall.get("stack") else ""

    def is_own(self, place: str) -> bool:
        return place.rpartition(":")[0] in self.own

    def _called(self, stall: dict[str, Any]) -> str:
        """Return the call that the line was in: the function of a library just below it."""
        inner = ""
        for line in stall.get("stack", []):
            place, _, function = str(line).partition(" ")
            if self.is_own(place):
                return inner
            inner = f"{function}()"
        return ""  # no line of their own is in what was kept of the stack

    # Answers.

    def mixed(self, seen: Seen) -> Iterator[Finding]:
        """Answers with a word that only another request had sent."""
        others = [nonce for nonce, _ in seen.crowd]
        told = [
            (nonce, [other for other in others if other != nonce and other.encode() in answer.body])
            for nonce, answer in seen.crowd
        ]
        wrong = [one for one in told if one[1]]
        if not wrong or any(
            earlier.encode() in answer.body
            for number, (_, answer) in enumerate(seen.paced)
            for earlier, _ in seen.paced[:number]
        ):
            return  # it shows what others have asked even when nobody else asks now: that is what it is for
        known = [one for one in self.static if one.rule == "shared-state"]
        place = known[0].place if known else seen.route.place
        file, _, line = place.rpartition(":")
        if known:
            yield replace(
                known[0],
                level="error",
                cost=1.0,
                says=known[0].says
                + f" Seen: {len(wrong)} of {len(seen.crowd)} answers of {seen.route.name} held another request's word.",
            )
        else:
            yield Finding(
                "answers-mixed",
                file,
                int(line or 0),
                f"{len(wrong)} of {len(seen.crowd)} answers of {seen.route.name} held a word that only another request "
                "had sent at the same time.",
                "Look for what requests share: globals, attributes of shared objects, default arguments.",
                cost=1.0,
            )

    def _fails(self, seen: Seen, drive: Drive) -> Iterator[Finding]:
        good = [one for one in seen.alone if one.is_good]
        failed = [one for _, one in seen.crowd if one.status >= 500]
        if not good or len(good) < len(seen.alone) or len(failed) < max(2, len(seen.crowd) // 20):
            return
        if all(one.status in (503, 504) for one in failed) or any(one.status >= 500 for _, one in seen.paced):
            return
        error, place = last_error(drive.output, self.is_own)
        yield self._at(
            "fails-at-once",
            place or seen.route.place,
            f"{seen.route.name} answers alone, and fails {len(failed)} of {len(seen.crowd)} times when as many ask at "
            f"once{f': {error}' if error else '.'}",
            "Look for what requests share: a connection, a cursor, a file, a pool that raises when it is empty.",
            cost=len(failed) / len(seen.crowd),
        )

    def _hangs(self, seen: Seen) -> Iterator[Finding]:
        place = next(
            (str(line).partition(" ")[0] for line in seen.stacks if self.is_own(str(line).partition(" ")[0])),
            seen.route.place,
        )
        if any(one.get("is_current") for one in seen.stalls):
            return  # a stall, and told as one
        yield self._at(
            "route-hangs",
            place,
            f"{seen.route.name} gave no answer within {duration(max(one.seconds for one in seen.alone))}; it was here.",
            "Bound what it waits for. A stream or a long poll is meant to: leave it out with --url of others.",
            cost=1.0,
        )

    def _deadlocks(self, seen: Seen) -> Iterator[Finding]:
        for deadlock in seen.deadlocks[:3]:
            for member in deadlock.get("members", [])[:2]:
                place = next(
                    (
                        str(line).partition(" ")[0]
                        for line in member.get("stack", [])
                        if self.is_own(str(line).partition(" ")[0])
                    ),
                    "",
                )
                if place:
                    yield self._at(
                        "deadlock",
                        place,
                        f"Requests wait here for each other, for ever (taken at {member.get('taken_at', '')}).",
                        "Take locks in one order everywhere; release them in `finally` or `with`.",
                        cost=2.0,
                    )

    def _pools(self, seen: Seen) -> Iterator[Finding]:
        waiting = [pool for pool in seen.pools if pool.get("kind") == "database" and pool.get("size")]
        if not waiting:
            return
        worst = max(waiting, key=lambda pool: int(pool["waiting"]))
        # Where each keeps a connection for a few milliseconds, the wait is short and the processor is the limit.
        is_quick = seen.typical_seconds < KEPT_SECONDS or seen.cpu_seconds > seen.typical_seconds / 2
        if is_quick or worst["waiting"] < WAITING_SHARE * seen.at_once:
            return
        known = [one for one in self.static if one.rule in ("pool-too-small", "default-pool", "held-connection")]
        says = (
            f"{worst['waiting']} of {seen.at_once} requests of {seen.route.name} waited for one of the pool's "
            f"{worst['size']} connections."
        )
        holder = next((str(one["line"]) for one in worst.get("holders", []) if self.is_own(str(one["line"]))), "")
        if known:
            yield replace(known[0], says=f"{known[0].says} Seen: {says}", cost=known[0].cost + 1)
        elif holder:
            yield self._at("pool-too-small", holder, says, "Raise pool_size towards what is in flight.", cost=1.0)

    def _locks(self, seen: Seen) -> Iterator[Finding]:
        waits = [wait for wait in seen.waits if wait.get("state") == "lock" and wait.get("held_by")]
        lines: dict[str, int] = {}
        for wait in waits:
            held_by = wait["held_by"]
            line = str(held_by.get("taken_at", "") if isinstance(held_by, dict) else "")
            if self.is_own(line):
                lines[line] = lines.get(line, 0) + 1
        for line, count in lines.items():
            if count >= WAITING_SHARE * seen.at_once:
                yield self._at(
                    "lock-held",
                    line,
                    f"Requests of {seen.route.name} waited for the lock that is taken here, one after the other.",
                    "Wait first; take the lock only for what changes shared data.",
                    cost=0.5,
                )

    # The findings of the probe.

    def _probe(self, drive: Drive) -> Iterator[Finding]:
        for told in (*drive.earlier, drive.last):
            yield from self._told(told)
        for pair in drive.held:
            used, line = str(pair.get("used", "")), str(pair.get("upstream", ""))
            if self.is_own(used) and self.is_own(line):
                gain = float(pair.get("gain") or 1.0)
                more = (
                    f": the pool serves {float(pair.get('rate') or 0):.0f} requests/s like this, and "
                    f"{float(pair.get('rate_released') or 0):.0f} if it is released before."
                )
                yield from self._held(used, line, more, gain)
        yield from self._growth(drive)

    def _told(self, last: dict[str, Any]) -> Iterator[Finding]:
        for sql, line, count in last.get("repeated", []):
            if count >= REPEATED and self.is_own(line):
                yield self._at(
                    "n-plus-one",
                    line,
                    f"One request ran the same statement {count} times here: {sql[:120]}",
                    f"Load them together: {TOGETHER[self.project.has_django]}, `WHERE id IN (...)`, or a join.",
                    cost=count / 100,
                )
        for used, line, count in last.get("held", []):
            if self.is_own(used) and self.is_own(line):
                yield from self._held(used, line, f" (seen {count} times).", 0.5)
        yield from self._offloaded(last)
        for name, count in last.get("cookies", {}).items():
            yield from self._shared_cookies(name, count)

    def _held(self, used: str, line: str, more: str, cost: float) -> Iterator[Finding]:
        used_file, _, used_line = used.rpartition(":")
        file, _, number = line.rpartition(":")
        yield from held_pair(used_file, int(used_line), file, int(number), more, cost)

    def _offloaded(self, last: dict[str, Any]) -> Iterator[Finding]:
        for name, line, seconds in last.get("offloaded", []):
            shortest = min(seconds, default=0.0)
            if shortest >= WARNING_SECONDS and self.is_own(line):
                yield self._at(
                    "computes",
                    line,
                    f"{name}() computes for {duration(shortest)} in each request; Greenroom runs it in a thread, and a "
                    f"core serves {1 / shortest:.0f} of them a second at most.",
                    "Do it less often (a session instead of a password with each request), with a cheaper cost, or in "
                    "a job.",
                    level="warning" if shortest >= COMPUTES_SECONDS else "note",
                    cost=shortest,
                )

    def _growth(self, drive: Drive) -> Iterator[Finding]:
        first, last = drive.first.get("sizes", {}), drive.last.get("sizes", {})
        if drive.requests < FEWEST_REQUESTS:
            return
        most = max((len(one.crowd) for one in drive.routes), default=0)
        for name, size in last.items():
            grown = size - first.get(name, 0)
            if name not in first or not most or grown < max(FEWEST_REQUESTS, GROWTH_SHARE * most):
                continue
            place = self._grows_at(name)
            if place is None:
                continue
            yield self._at(
                "grows",
                place,
                f"`{name}` grew by {grown} entries with {drive.requests} requests.",
                "Bound it: `deque(maxlen=...)`, `functools.lru_cache(maxsize=...)`, or keep it outside of the process.",
                cost=grown / drive.requests,
            )

    def _grows_at(self, name: str) -> str | None:
        """The line that lets a container grow, as far as reading has found it; else where it is made."""
        words = name.split(".")
        for finding in self.static:
            if finding.rule == "grows" and f"`{words[-1]}`" in finding.says:
                return finding.place
        for module, values in self.project.module_values.items():
            if name.startswith(f"{module}."):
                binding = values.get(name.removeprefix(f"{module}.").split(".")[0])
                if binding is not None:
                    return f"{binding.source.shown}:{binding.line}"
                for function in self.project.functions:
                    if function.source.module == module and function.name == words[-1]:
                        return f"{function.source.shown}:{function.node.lineno}"
        return None

    def _shared_cookies(self, name: str, count: int) -> Iterator[Finding]:
        module, _, attribute = name.rpartition(".")
        binding = self.project.module_values.get(module, {}).get(attribute)
        if binding is not None:
            yield Finding(
                "shared-cookies",
                binding.source.shown,
                binding.line,
                f"`{attribute}` keeps {count} cookie{'s' if count > 1 else ''} that an upstream has set: the next "
                "request's calls send them, whoever asks.",
                f"`{attribute}.cookies.set_policy(http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))`",
                cost=1.0,
            )

    def _died(self, seen: Seen, drive: Drive) -> Finding:
        output = seen.output or drive.output
        error, place = crash(output, self.is_own)
        if not error:
            error, place = last_error(output, self.is_own)
        return self._at(
            "worker-dies",
            place or seen.route.place,
            f"The worker ended while it answered {seen.route.name}{f': {error}.' if error else '.'}",
            "Look for os._exit(), for C code that crashes, and for memory.",
            cost=1.0,
        )

    @staticmethod
    def _at(
        rule: str, place: str, says: str, do: str, level: str = "", cost: float = 0.0, stack: tuple[str, ...] = ()
    ) -> Finding:
        file, _, line = place.rpartition(":")
        return Finding(rule, file, int(line) if line.isdigit() else 0, says, do, level, cost, stack)
