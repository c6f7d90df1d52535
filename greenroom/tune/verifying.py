"""The proposal is measured beside the present settings and the nearest alternatives: only gains are told.

    as it is, as proposed
    each alternative, and on in its direction while that is better by a twentieth
    the best of them, the proposal and what is now once more: the best counts by its worse turn, the others by their
    better one; an alternative that is not better than the proposal then gives way to it

On a noisy machine the best of several measurements is often only the luckiest; the second turn takes it back.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from . import model, telling
from .model import Bounds, Costs, Proposal, Proposed
from .telling import Measured

STEP_RATIO, MOST_STEPS = 1.05, 4
MOST_WORKERS_PER_CORE = 4
Measure = Callable[[str, Mapping[str, str]], Measured]


@dataclass(frozen=True)
class Verifier:
    """Compares proposed settings with those of now.

    `measure(what, changes)` finds the capacity with changed settings; `now` are the present ones.
    """

    measure: Measure
    costs: Costs
    proposal: Proposal
    now: Mapping[str, str]
    bounds: Bounds
    say: Callable[[str], None] = print

    def verified(self, *, has_alternatives: bool = True) -> tuple[Proposed, ...]:
        """All settings, with those as `proposed` that are worth it; none when nothing is."""
        before = self.measure("as it is", {})
        changes = {one.name: one.proposed for one in self.proposal.settings if one.is_change}
        others = [self.measure("as proposed", changes)] if changes else []
        if has_alternatives:
            for alternative in self.proposal.alternatives[:2]:
                others += self._tried(changes, alternative, others[0] if changes else before)
        sentence, best = self._verdict(before, others)
        if best is not before:
            _, before = self._turns(before)
            proposed = others[0] if changes else best
            best, _ = self._turns(best)
            if best.settings != proposed.settings:
                worse, better = self._turns(proposed)
                if _rate(best) <= _rate(better):
                    best = worse
            sentence, best = self._verdict(before, [best])
        self.say(sentence)
        return () if best is before else self._settings(best.settings)

    def _turns(self, one: Measured) -> tuple[Measured, Measured]:
        """Measure it once more; its worse turn and its better one."""
        worse, better = sorted((_rate(one), _rate(self.measure(f"{one.what}, again", one.settings))))
        return replace(one, per_second=worse or None), replace(one, per_second=better or None)

    def _tried(self, changes: Mapping[str, str], alternative: Mapping[str, str], proposed: Measured) -> list[Measured]:
        """An alternative, and those beyond it while each is better than the one before."""
        tried: list[Measured] = []
        values, best = self.proposal.values(), proposed
        for _ in range(MOST_STEPS):
            settings = model.fitting({**changes, **alternative}, self.now, self.bounds)
            if not self._has_room(settings):
                break
            named = ", ".join(f"{name}={value}" for name, value in alternative.items())
            tried.append(self.measure(f"with {named}", settings))
            if _rate(tried[-1]) < STEP_RATIO * _rate(best) or not _rate(tried[-1]):
                break
            best = tried[-1]
            beyond = {name: model.further(name, values[name], value) for name, value in alternative.items()}
            if beyond == alternative:
                break
            values, alternative = {**values, **alternative}, beyond
        return tried

    def _has_room(self, settings: Mapping[str, str]) -> bool:
        """One worker always; more as far as cores and memory go."""
        workers = int(settings.get(model.WORKERS, self.now[model.WORKERS]))
        memory = self.bounds.memory_bytes
        fits = memory is None or workers * self.costs.memory_bytes <= memory
        return workers == 1 or (fits and workers <= MOST_WORKERS_PER_CORE * self.bounds.cores)

    def _verdict(self, before: Measured, others: list[Measured]) -> tuple[str, Measured]:
        return telling.verdict(before, others, self.costs, self.proposal.bound)

    def _settings(self, best: Mapping[str, str]) -> tuple[Proposed, ...]:
        named = {one.name: one for one in self.proposal.settings}
        named.update({name: Proposed(name, self.now[name], "", "measured") for name in best if name not in named})
        return tuple(replace(one, proposed=best.get(name, one.now)) for name, one in named.items())


def _rate(one: Measured) -> float:
    return one.per_second or 0.0
