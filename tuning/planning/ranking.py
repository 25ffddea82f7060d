"""Which option wins: the cheapest that meets the SLO with headroom; ties to the faster, then to the reversible.

Pure ordering over predictions, by whatever engine they were made. Why an option won or lost is told by `explain`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuning.planning import thresholds as th
from tuning.planning.effects import Posterior
from tuning.planning.ports import Candidate, Predicted
from tuning.planning.settings import PlanningSettings


@dataclass(frozen=True)
class Ranked:
    """An option with all that decides. barred: why it may not be chosen at all ("" if it may). half: it was tried for
    the incident, and may still be half of a pair."""

    candidate: Candidate
    predicted: Predicted
    posterior: Posterior
    rate_window_s: float
    barred: str = ""
    half: bool = False

    @property
    def success(self) -> float:
        """Probability of meeting the SLO times what the ledger says of it."""
        return self.predicted.meets * self.posterior.weight

    @property
    def drains(self) -> bool:
        """Whether the queue empties while it is still this incident."""
        return self.predicted.drain_s < th.QUEUE_TIME_MAX_S

    @property
    def ends(self) -> bool:
        """Whether the queue empties at all: it is carried, and more."""
        return math.isfinite(self.predicted.drain_s)

    @property
    def time_to_effect_s(self) -> float:
        """Until the objectives show it: the lever's delay, the queue's draining, and the rate window."""
        return self.candidate.delay_s + self.predicted.drain_s + self.rate_window_s

    def eligible(self, settings: PlanningSettings, limits: Mapping[str, float]) -> bool:
        """Meets the SLO with headroom, surely enough, and may be chosen."""
        return (
            not self.barred
            and self.drains
            and self.predicted.ratio(limits) <= settings.headroom
            and self.success >= settings.confidence
            and not self.too_wide(limits)
        )

    @property
    def guessed(self) -> bool:
        """Its prediction rests on what is usual elsewhere: a gain that nobody measured, batches that nobody saw."""
        return self.predicted.unproven or self.predicted.unknown

    def too_wide(self, limits: Mapping[str, float]) -> bool:
        """A step that is hard to undo, or of a kind never seen here, whose interval reaches over the SLO."""
        doubtful = self.candidate.risk >= th.RISKY or self.predicted.unknown
        return doubtful and self.predicted.high_ratio(limits) > 1


def barred(
    candidate: Candidate, posterior: Posterior, tried: frozenset[str], harmful: frozenset[str] = frozenset()
) -> str:
    """Why an option may not be chosen: tried for this incident, or demoted by the ledger.

    What was not enough alone may be half of what is, where another lever goes with it; what made it worse may not.
    """
    worse = [lever for lever in candidate.levers if lever in harmful]
    if worse:
        return f"{' and '.join(worse)} was tried for this incident and made it worse"
    again = [lever for lever in candidate.levers if lever in tried]
    if again and len(again) == len(candidate.levers):
        return f"{' and '.join(again)} was tried for this incident and did not help"
    if posterior.mean < th.DEMOTED:
        return f"demoted: for this cause it {posterior.text()} here"
    return ""


def best(ranked: list[Ranked], settings: PlanningSettings, limits: Mapping[str, float]) -> Ranked | None:
    """The winner, or the likeliest option where none is sure (from `LEAST_CHANCE` on), or None.

    A pair has to earn its second change: it is looked at only among options that are strictly cheaper alone, or where
    no single lever is eligible.
    """
    eligible = [item for item in ranked if item.eligible(settings, limits)]
    if eligible:
        winner = min(eligible, key=lambda item: order(item, settings))
        if winner.candidate.cost_per_hour <= th.FREE:
            return winner
        free = [item for item in ranked if probable(item, settings, limits)]
        free = free or [item for item in ranked if as_risky(item, winner, settings, limits)]
        return min(free, key=likeliest, default=winner)
    open_ = [item for item in ranked if not item.barred and item.success >= th.LEAST_CHANCE and item.drains]
    if not open_:
        # All that would do takes long to work off what waits. Holding takes longer: there the queue grows.
        # Until one would tell that such an option fails, it has cost for as long.
        late = [item for item in ranked if not item.barred and item.success >= th.LATE_CHANCE and item.ends]
        return min(late, key=soonest, default=None)
    singles = [item for item in open_ if len(item.candidate.changes) == 1]
    top = min(open_, key=likeliest)
    if top.candidate.cost_per_hour > th.FREE:
        # What goes before a paid option that is sure goes all the more before one that is not.
        free = [item for item in open_ if probable(item, settings, limits)]
        if free:
            return min(free, key=likeliest)
    sure = [item for item in singles if item.success >= top.success - _worth(top, item)]
    return min(sure, key=likeliest) if sure else top


def _worth(pair: Ranked, single: Ranked) -> float:
    """Chance that a pair has to add to a single step to go before it: it is one more change to prove and to pay for.
    Where it costs no more and is no harder to undo, a step of the chance is enough."""
    dearer = pair.candidate.cost_per_hour > single.candidate.cost_per_hour + th.FREE
    riskier = pair.candidate.risk >= th.RISKY > single.candidate.risk
    return th.PAIR_GAIN if dearer or riskier else 1 / th.UNSURE_STEPS


def least_loss(ranked: list[Ranked], settings: PlanningSettings, limits: Mapping[str, float]) -> Ranked | None:
    """Of variants that cost quality, the one that loses least of those that meet the SLO; where none surely does, the
    likeliest that more probably does than not. None: what is lost would buy nothing."""
    eligible = [item for item in ranked if item.eligible(settings, limits)]
    if eligible:
        return min(eligible, key=lambda item: (item.candidate.loss, *order(item, settings)))
    open_ = [item for item in ranked if not item.barred and item.drains and item.success >= th.WORTH_A_LOSS]
    return min(open_, key=likeliest, default=None)


def least_refused(ranked: list[Ranked], settings: PlanningSettings, limits: Mapping[str, float]) -> Ranked | None:
    """Of limits of what is taken in, the highest that surely meets the SLO with headroom: it keeps most of what bursts
    bring; where none surely does, the likeliest that more probably does than not. None: nothing would be won."""
    eligible = [item for item in ranked if item.eligible(settings, limits)]
    if eligible:
        return min(eligible, key=lambda item: (round(_refused(item), 2), -_limit(item)))
    open_ = [i for i in ranked if not i.barred and i.drains and i.success >= th.WORTH_A_LOSS]
    return min(open_, key=lambda item: (-round(item.success, 2), -_limit(item)), default=None)


def _refused(item: Ranked) -> float:
    return item.predicted.refused.value if item.predicted.refused is not None else 0.0


def _limit(item: Ranked) -> float:
    """The limit that is set."""
    return max(float(value) for change in item.candidate.changes for value in change.new.values())


def does(item: Ranked | None, settings: PlanningSettings, limits: Mapping[str, float]) -> bool:
    """Whether an option is predicted to meet the SLO with headroom, surely or not: then nothing that costs quality is
    looked at before it was tried."""
    return item is not None and item.drains and item.predicted.ratio(limits) <= settings.headroom


def probable(item: Ranked, settings: PlanningSettings, limits: Mapping[str, float]) -> bool:
    """A free step like those seen before, undone in seconds, that probably suffices: tried before what costs."""
    return (
        not item.barred
        and item.drains
        and item.candidate.cost_per_hour <= th.FREE
        and item.candidate.risk < th.RISKY
        and not item.predicted.unknown
        and item.predicted.ratio(limits) <= settings.headroom
        and item.success >= th.FREE_CHANCE
    )


def as_risky(item: Ranked, winner: Ranked, settings: PlanningSettings, limits: Mapping[str, float]) -> bool:
    """A free step that takes the same risk as one that costs, and is sure enough: that its interval is too wide is no
    reason to pay, for whoever pays takes that risk as well (another precision, with replicas or without)."""
    risk = item.candidate.risk
    return (
        not item.barred
        and item.drains
        and item.candidate.cost_per_hour <= th.FREE
        and th.RISKY <= risk <= winner.candidate.risk
        and item.predicted.ratio(limits) <= settings.headroom
        and item.success >= settings.confidence
    )


def explore(ranked: list[Ranked], saturated: bool) -> Ranked | None:
    """A free step whose effect nobody has seen, where holding loses for sure: nothing else does, and the queue grows.

    s(b)/b = alpha/b + beta never rises with b, so under saturation a larger batch cannot carry less; it costs nothing
    and is undone in seconds. saturated: the present setting does not carry the load.
    """
    if not saturated:
        return None
    free = [
        item
        for item in ranked
        if len(item.candidate.changes) == 1
        and not item.barred
        and item.candidate.cost_per_hour <= 0
        and item.candidate.risk < th.RISKY
        and item.predicted.unknown
        and min(item.predicted.carries, item.predicted.meets) >= th.LEAST_CARRIES
    ]
    return min(free, key=lambda item: (-round(item.predicted.room, 2), -item.predicted.carries), default=None)


def last_resort(ranked: list[Ranked], saturated: bool) -> Ranked | None:
    """What may well do although the load is more than it carries by the middle of what is known, where holding loses
    for sure: the load, or its growth, is not known well enough to call it hopeless. saturated: as for `explore`.
    """
    if not saturated:
        return None
    fair = [item for item in ranked if not item.barred and item.success >= th.LEAST_CHANCE]
    return min(fair, key=likeliest, default=None)


def soonest(item: Ranked) -> tuple[float, ...]:
    """Where a long queue stands: when it is gone, in steps, then what was measured first, then the price."""
    return (round(item.time_to_effect_s / th.LATE_STEP_S), float(item.predicted.unproven), *likeliest(item))


def likeliest(item: Ranked) -> tuple[float, ...]:
    """Where nothing is sure: the chance, in steps of 2 %, then the price, then the chance and the room in full."""
    candidate = item.candidate
    chance = (-round(item.success, 2), -round(item.predicted.room, 2))
    return (-round(th.UNSURE_STEPS * item.success), round(candidate.cost_per_hour, 4), *chance, *candidate.size)


def order(item: Ranked, settings: PlanningSettings) -> tuple[object, ...]:
    """Of options that do: the price, then what was measured first, then those with room for what may come on top, then
    the fewer changes, then the surer.

    Room is asked for with the same confidence as the SLO: what does at the load of now is undone by a load that grows
    on, so at the same price a pair that has room goes before a single step that has none.

    A gain that nobody measured is no reason to pay: whatever cannot be undone in seconds is `too_wide` unless its whole
    interval lies under the SLO, and its gate measures it before it goes live. A batch larger than any that was seen is
    as little measured.
    """
    candidate, predicted = item.candidate, item.predicted
    return (
        round(candidate.cost_per_hour, 4),
        float(item.guessed),
        float(predicted.room < settings.confidence),
        len(candidate.changes),
        -round(th.CHANCE_STEPS * item.success),
        round(item.time_to_effect_s / th.EFFECT_STEP_S),
        candidate.risk,
        candidate.size[:1],
        # The line was learned at the present setting; room is what pays for its errors elsewhere on the line.
        -round(item.success, 2),
        -round(predicted.room, 2),
        sum(shown.high for shown in predicted.shown.values()),
        candidate.size[1:],
    )
