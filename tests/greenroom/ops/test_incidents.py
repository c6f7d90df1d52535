"""When a verdict becomes an incident, and when it is over."""

from typing import Any

from greenroom.ops.incidents import CLOSES_AFTER_SECONDS, Incident, Incidents


def verdict(*found: tuple[str, str], words: str = "it is so") -> dict[str, Any]:
    rows = [{"level": level, "cause": cause, "sentence": f"{cause}: {words}", "do": "act"} for level, cause in found]
    rows = rows or [{"level": "ok", "cause": "healthy", "sentence": "Healthy.", "do": ""}]
    return {**rows[0], "others": rows[1:]}


def run(incidents: Incidents, begin: int, end: int, said: dict[str, Any]) -> list[Incident]:
    changed = []
    for second in range(begin, end):
        changed += incidents.look(said, float(second), 5000.0 + second)
    return changed


def test_a_cause_that_lasts_begins_once_and_ends_once() -> None:
    incidents = Incidents()

    said = verdict(("bad", "blocked"), ("ok", "idle"))
    (began,) = run(incidents, 0, 20, said)
    assert (said["since"], said["others"][0]["since"]) == (5000.0, None)
    assert (began.cause, began.began, began.ended) == ("blocked", 5000.0, None)
    assert incidents.open == [began]

    (ended,) = run(incidents, 20, 100, verdict())
    assert (ended.key, ended.ended) == (began.key, 5019.0)
    assert incidents.open == []


def test_a_moment_is_no_incident() -> None:
    incidents = Incidents()

    assert run(incidents, 0, 2, verdict(("bad", "blocked"))) == []
    assert run(incidents, 2, 60, verdict()) == []
    assert run(incidents, 60, 70, verdict(("watch", "cpu"))) == []
    assert run(incidents, 70, 130, verdict()) == []


def test_a_cause_that_comes_and_goes_is_one_incident() -> None:
    incidents = Incidents()
    changed = run(incidents, 0, 20, verdict(("watch", "pool")))
    for begin in range(20, 200, 20):
        changed += run(incidents, begin, begin + 15, verdict())
        changed += run(incidents, begin + 15, begin + 20, verdict(("watch", "pool")))

    assert [incident.cause for incident in changed] == ["pool"]


def test_one_that_gets_worse_is_told_again_with_the_worse_sentence() -> None:
    incidents = Incidents()
    run(incidents, 0, 20, verdict(("watch", "memory"), words="it grows"))

    (worse,) = run(incidents, 20, 30, verdict(("bad", "memory"), words="it is full"))
    (better,) = run(incidents, 30, 200, verdict())

    assert (worse.level, worse.sentence) == ("bad", "memory: it is full")
    assert (better.level, better.sentence) == ("bad", "memory: it is full")
    assert better.key == worse.key


def test_several_causes_are_several_incidents() -> None:
    incidents = Incidents()

    changed = run(incidents, 0, 30, verdict(("bad", "database_silent"), ("watch", "memory_grows")))

    assert [incident.cause for incident in changed] == ["database_silent", "memory_grows"]


def test_a_clock_that_steps_ends_nothing() -> None:
    incidents = Incidents()
    run(incidents, 0, 10, verdict(("bad", "blocked")))

    assert incidents.look(verdict(("bad", "blocked")), 10.0, 999_999.0) == []
    assert incidents.look(verdict(), 10.0 + CLOSES_AFTER_SECONDS - 1, 1.0) == []


def test_a_cause_that_flickers_has_one_beginning() -> None:
    incidents = Incidents()
    incidents.look(verdict(("watch", "pool")), 0.0, 5000.0)
    incidents.look(verdict(), 5.0, 5005.0)

    said = verdict(("watch", "pool"))
    incidents.look(said, 8.0, 5008.0)

    assert said["since"] == 5000.0


def test_an_incident_never_ends_before_it_began() -> None:
    incidents = Incidents()
    run(incidents, 0, 10, verdict(("bad", "blocked")))
    incidents.look(verdict(("bad", "blocked")), 10.0, 1400.0)  # the clock was put back by an hour

    (ended,) = incidents.look(verdict(), 11.0 + CLOSES_AFTER_SECONDS, 1431.0)

    assert (ended.began, ended.ended) == (5000.0, 5000.0)
