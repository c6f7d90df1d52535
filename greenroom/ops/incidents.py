"""Incidents: from the verdicts of each second to "this was wrong from 02:40 to 02:52".

A cause opens an incident when it has been seen for a while, and closes it when it has been away for longer, so a value
near a threshold is one incident and not fifty. There is one incident for each cause at a time.
"""

from dataclasses import dataclass, replace

from .shapes import Verdict
from .verdicts import BAD, LEVELS, OK

# How long a cause must be seen before it is an incident, by its level.
OPENS_AFTER_SECONDS = {BAD: 3.0}
OPENS_AFTER_SECONDS_ELSE = 15.0
CLOSES_AFTER_SECONDS = 30.0
# A cause may be missing for this long while it is not open yet.
GAP_SECONDS = 10.0
MOST_CAUSES = 100


@dataclass(frozen=True)
class Incident:
    """One cause from its beginning to its end. `began` and `ended` are Unix times; `ended` is None while it is open.

    `level` is the worst that it reached; sentence and advice are those said at that level last.
    """

    cause: str
    level: str
    sentence: str
    do: str
    began: float
    ended: float | None = None

    @property
    def key(self) -> str:
        """The same at its beginning and at its end, for whoever must match the two."""
        return f"{self.cause}-{int(self.began)}"


@dataclass
class _Watched:
    incident: Incident
    first_seen: float
    last_seen: float
    last_seen_at: float
    is_open: bool = False


class Incidents:
    """Runs on: the collecting thread."""

    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}

    @property
    def open(self) -> list[Incident]:
        return [watched.incident for watched in self._watched.values() if watched.is_open]

    def look(self, verdict: Verdict, now: float, at: float) -> list[Incident]:
        """The incidents that began, got worse or ended with this moment's verdict.

        Each finding of the verdict gets its `since`, in Unix time; None for what is no trouble. `now` is the monotonic
        clock, which decides; `at` is the Unix time, which is written down.
        """
        changed = []
        for found in (verdict, *verdict.get("others", ())):
            found["since"] = None
            if found["level"] != OK and (found["cause"] in self._watched or len(self._watched) < MOST_CAUSES):
                incident = self._see(found, now, at)
                if incident is not None:
                    changed.append(incident)
        return changed + self._close(now)

    def _see(self, found: Verdict, now: float, at: float) -> Incident | None:
        cause, level = found["cause"], found["level"]
        watched = self._watched.get(cause)
        if watched is None:
            incident = Incident(cause, level, found["sentence"], found.get("do", ""), at)
            watched = self._watched[cause] = _Watched(incident, now, now, at)
        watched.last_seen, watched.last_seen_at = now, at
        found["since"] = watched.incident.began
        is_worse = LEVELS.index(level) < LEVELS.index(watched.incident.level)
        if is_worse or level == watched.incident.level:
            sentence, do = found["sentence"], found.get("do", "")
            watched.incident = replace(watched.incident, level=level, sentence=sentence, do=do)
        opens_after = OPENS_AFTER_SECONDS.get(watched.incident.level, OPENS_AFTER_SECONDS_ELSE)
        if not watched.is_open and now - watched.first_seen >= opens_after:
            watched.is_open = True
            return watched.incident
        return watched.incident if is_worse and watched.is_open else None

    def _close(self, now: float) -> list[Incident]:
        ended = []
        for cause, watched in list(self._watched.items()):
            away = now - watched.last_seen
            if watched.is_open and away >= CLOSES_AFTER_SECONDS:
                # The clock may have been put back meanwhile.
                ended.append(replace(watched.incident, ended=max(watched.incident.began, watched.last_seen_at)))
                del self._watched[cause]
            elif not watched.is_open and away >= GAP_SECONDS:
                del self._watched[cause]
        return ended
