"""greenroom/tune/verifying: only what was measured as better is proposed, also on a noisy machine."""

from collections.abc import Callable, Mapping

from greenroom.tune.model import BUDGET, LIMIT, LINE, PATIENCE, POOL, UPSTREAMS, WORKERS, Bounds, Costs, propose
from greenroom.tune.telling import Measured
from greenroom.tune.verifying import Verifier

NOW = {WORKERS: "1", LIMIT: "0", UPSTREAMS: "0", PATIENCE: "1000", LINE: "1000", BUDGET: "60000", POOL: "5"}
MB = 2**20
CPU_BOUND = Costs(cpu=0.010, latency=0.012, memory_bytes=100 * MB)
DATABASE_BOUND = Costs(cpu=0.002, latency=0.060, database=0.050, memory_bytes=100 * MB)


class Machine:
    """Measures by a function of the settings; `seen` has them in order, with how often each was asked before."""

    def __init__(self, rate: Callable[[Mapping[str, str], int], float]) -> None:
        self.rate = rate
        self.seen: list[dict[str, str]] = []

    def __call__(self, what: str, changes: Mapping[str, str]) -> Measured:
        settings = {**NOW, **changes}
        turn = self.seen.count(settings)
        self.seen.append(settings)
        return Measured(what, changes, self.rate(settings, turn))

    def tried(self, name: str) -> list[str]:
        return [one[name] for one in self.seen]


def verified(machine: Machine, costs: Costs, bounds: Bounds) -> tuple[dict[str, str], list[str]]:
    said: list[str] = []
    found = Verifier(machine, costs, propose(costs, bounds, NOW, 0.3), NOW, bounds, said.append).verified()
    return {one.name: one.proposed for one in found if one.is_change}, said


def test_what_is_better_in_both_turns_is_proposed() -> None:
    machine = Machine(lambda settings, turn: 100.0 * min(4, int(settings[WORKERS])))

    changes, said = verified(machine, CPU_BOUND, Bounds(cores=4))

    assert changes[WORKERS] == "4"
    assert machine.tried(WORKERS) == ["1", "4", "3", "5", "1", "4"]
    assert said == ["as proposed: 400/s instead of 100/s, 4.00 times as much."]


def test_what_was_only_lucky_once_is_taken_back() -> None:
    machine = Machine(lambda settings, turn: 130.0 if settings[WORKERS] != "1" and not turn else 100.0)

    changes, said = verified(machine, CPU_BOUND, Bounds(cores=2))

    assert changes == {}
    assert said[0].startswith("Nothing is worth changing: 100/s as it is, 100/s at best otherwise.")


def test_an_alternative_that_was_only_lucky_once_gives_way_to_the_proposal() -> None:
    rates = {"1": (100.0, 100.0), "2": (170.0, 180.0), "3": (200.0, 165.0)}
    machine = Machine(lambda settings, turn: rates.get(settings[WORKERS], (0.0, 0.0))[turn])

    changes, said = verified(machine, CPU_BOUND, Bounds(cores=2))

    assert changes[WORKERS] == "2"
    assert said == ["as proposed: 170/s instead of 100/s, 1.70 times as much."]


def test_an_alternative_that_is_better_in_both_turns_is_taken() -> None:
    rates = {"1": (100.0, 100.0), "2": (170.0, 160.0), "3": (200.0, 190.0)}
    machine = Machine(lambda settings, turn: rates.get(settings[WORKERS], (0.0, 0.0))[turn])

    changes, said = verified(machine, CPU_BOUND, Bounds(cores=2))

    assert changes[WORKERS] == "3"
    assert said == ["with WEB_CONCURRENCY=3: 190/s instead of 100/s, 1.90 times as much."]


def test_what_is_measured_as_worse_is_never_proposed() -> None:
    machine = Machine(lambda settings, turn: 100.0 if settings == NOW else 60.0)

    assert verified(machine, CPU_BOUND, Bounds(cores=4))[0] == {}


def test_an_alternative_that_is_better_leads_on_in_its_direction() -> None:
    # A lock that each worker has for itself: three times as many workers as cores serve more.
    machine = Machine(lambda settings, turn: 100.0 * min(6, int(settings[WORKERS])))

    changes, _ = verified(machine, CPU_BOUND, Bounds(cores=2))

    assert machine.tried(WORKERS) == ["1", "2", "1", "3", "4", "5", "6", "1", "6", "2"]
    assert changes[WORKERS] == "6"


def test_steps_end_where_memory_does() -> None:
    machine = Machine(lambda settings, turn: 100.0 * int(settings[WORKERS]))

    changes, _ = verified(machine, CPU_BOUND, Bounds(cores=2, memory_bytes=320 * MB))

    assert changes[WORKERS] == "3"


def test_more_workers_share_the_connections_that_there_are() -> None:
    costs = Costs(cpu=0.010, latency=0.060, database=0.050, memory_bytes=MB)
    machine = Machine(lambda settings, turn: 100.0 * int(settings[WORKERS]))

    changes, _ = verified(machine, costs, Bounds(cores=2, max_connections=23))

    assert all(int(one[WORKERS]) * int(one[POOL]) <= 20 for one in machine.seen)
    assert (changes[WORKERS], changes[POOL]) == ("6", "3")


def test_a_limit_moves_by_the_same_factor() -> None:
    machine = Machine(lambda settings, turn: 100.0 + int(settings[LIMIT]))

    verified(machine, DATABASE_BOUND, Bounds(cores=2, max_connections=23))

    assert machine.tried(LIMIT)[:5] == ["0", "19", "13", "27", "38"]
