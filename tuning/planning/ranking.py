"""Which option wins: the cheapest that meets the SLO with headroom; ties to the faster, then to the reversible.

Pure ordering over predictions; every option that does not win carries the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuning.formats import ms
from tuning.planning.effects import Posterior
from tuning.planning.options import Candidate
from tuning.planning.predict import Predicted
from tuning.planning.settings import PlanningSettings

LEAST_CHANCE = 0.35
"""Below this probability of meeting the SLO even the best option is not worth a change."""
LEAST_CARRIES = 0.05
"""Below this probability of carrying the load, and of meeting the SLO, even a free try is none."""
_DEMOTED = 0.4
_PAIR_GAIN = 0.15
_RISKY = 0.1
"""From this risk on (another precision) the whole interval must lie under the SLO, not only the prediction."""


@dataclass(frozen=True)
class Ranked:
    """An option with all that decides. success: probability of meeting the SLO times what the ledger says of it.

    barred: why it may not be chosen at all ("" if it may). unproven: it rests on a gain that was never measured here;
    as long as an option with measured effect does, production is no place to find out.
    """

    candidate: Candidate
    predicted: Predicted
    posterior: Posterior
    rate_window_s: float
    barred: str = ""
    unproven: bool = False

    @property
    def success(self) -> float:
        return self.predicted.meets * self.posterior.weight

    @property
    def time_to_effect_s(self) -> float:
        """Until P95 shows it: the lever's delay, the queue's draining, and the rate window."""
        return self.candidate.delay_s + self.predicted.drain_s + self.rate_window_s

    def eligible(self, settings: PlanningSettings, slo_ms: float) -> bool:
        """Meets the SLO with headroom, surely enough, and may be chosen."""
        return (
            not self.barred
            and math.isfinite(self.predicted.drain_s)
            and self.predicted.p95_ms.value <= settings.headroom * slo_ms
            and self.success >= settings.confidence
            and (self.candidate.risk < _RISKY or self.predicted.p95_ms.high <= slo_ms)
        )


def barred(candidate: Candidate, posterior: Posterior, tried: frozenset[str]) -> str:
    """Why an option may not be chosen: tried for this incident, or demoted by the ledger."""
    again = [lever for lever in candidate.levers if lever in tried]
    if again:
        return f"{' and '.join(again)} was tried for this incident and did not help"
    if posterior.mean < _DEMOTED:
        return f"demoted: for this cause it {posterior.text()} here"
    return ""


def best(ranked: list[Ranked], settings: PlanningSettings, slo_ms: float) -> Ranked | None:
    """The winner, or the likeliest option where none is sure (from `LEAST_CHANCE` on), or None.

    A pair has to earn its second change: it is looked at only among options that are strictly cheaper alone, or where
    no single lever is eligible.
    """
    eligible = [item for item in ranked if item.eligible(settings, slo_ms)]
    if eligible:
        return min(eligible, key=_order)
    open_ = [item for item in ranked if not item.barred and item.success >= LEAST_CHANCE]
    open_ = [item for item in open_ if math.isfinite(item.predicted.drain_s)]
    if not open_:
        return None
    singles = [item for item in open_ if len(item.candidate.changes) == 1]
    top = min(open_, key=_likeliest)
    sure = [item for item in singles if item.success >= top.success - _PAIR_GAIN]
    return min(sure, key=_likeliest) if sure else top


def explore(ranked: list[Ranked], saturated: bool, unknown: Callable[[int], bool]) -> Ranked | None:
    """A larger batch whose time nobody has seen, where holding loses for sure: nothing else does, and the queue grows.

    s(b)/b = alpha/b + beta never rises with b, so under saturation a larger batch cannot carry less; it costs nothing
    and is undone in seconds. saturated: the present setting does not carry the load. unknown: by batch size.
    """
    if not saturated:
        return None
    free = [
        item
        for item in ranked
        if item.candidate.levers == ("batch_size",)
        and not item.barred
        and item.candidate.cost_per_hour <= 0
        and unknown(item.candidate.batch)
        and min(item.predicted.carries, item.predicted.meets) >= LEAST_CARRIES
    ]
    return min(free, key=lambda item: (-round(item.predicted.room, 2), -item.predicted.carries), default=None)


def _likeliest(item: Ranked) -> tuple[float, ...]:
    """Where nothing is sure: the chance, in steps of 5 %, then the price, then the chance and the room in full."""
    candidate = item.candidate
    chance = (-round(item.success, 2), -round(item.predicted.room, 2))
    return (-round(20 * item.success), round(candidate.cost_per_hour, 4), *chance, candidate.batch)


def _order(item: Ranked) -> tuple[float, ...]:
    candidate, predicted = item.candidate, item.predicted
    return (
        float(item.unproven),
        round(candidate.cost_per_hour, 4),
        len(candidate.changes),
        -round(20 * item.success),
        round(item.time_to_effect_s / 30.0),
        candidate.risk,
        candidate.replicas,
        # The line was learned at the present setting; room is what pays for its errors elsewhere on the line.
        -round(item.success, 2),
        -round(predicted.room, 2),
        predicted.p95_ms.high,
        candidate.batch,
    )


def why_not(item: Ranked, winner: Ranked | None, settings: PlanningSettings, slo_ms: float) -> str:
    """One sentence on why an option was passed over."""
    predicted, limit = item.predicted, settings.headroom * slo_ms
    if item.barred:
        return item.barred
    if not math.isfinite(predicted.drain_s):
        return f"the load would be {predicted.load:.0%} of its capacity, so the queue would not drain"
    if predicted.p95_ms.value > limit:
        p95_ms = predicted.p95_ms.value
        return f"its predicted P95 of {ms(p95_ms)} is over {ms(limit)} (the SLO of {ms(slo_ms)} with headroom)"
    if item.success < settings.confidence:
        chance = f"it meets the SLO with a probability of {predicted.meets:.0%} only"
        return f"{chance} ({settings.confidence:.0%} is asked for)" if item.posterior.weight >= 1 else (
            f"{chance}, and {item.posterior.text()} here")  # fmt: skip
    if item.candidate.risk >= _RISKY and predicted.p95_ms.high > slo_ms:
        return f"its gain is not measured yet, so P95 may end at {ms(predicted.p95_ms.high)}"
    if winner is None:
        return "not chosen"
    return _against(item, winner)


def _against(item: Ranked, winner: Ranked) -> str:
    mine, chosen = item.candidate, winner.candidate
    if item.unproven and not winner.unproven:
        return "it would do, but its gain was never measured here, and the chosen option rests on measurements"
    extra = mine.cost_per_hour - chosen.cost_per_hour
    if extra > 0.00005:
        return f"it would do as well, but costs {extra:.2f}/h more"
    if len(mine.changes) > len(chosen.changes):
        return "it would do as well, but one change is enough"
    if winner.success - item.success >= 0.01:
        return f"it meets the SLO with {item.predicted.meets:.1%}, the chosen option with {winner.predicted.meets:.1%}"
    later = item.time_to_effect_s - winner.time_to_effect_s
    if later > 15:
        return f"it would do as well, but takes {later:.0f} s longer to show"
    if mine.risk > chosen.risk:
        return "it would do as well, but is harder to undo"
    load, best_load = item.predicted.load, winner.predicted.load
    if load - best_load >= 0.005:
        return (
            f"it would do as well today, but leaves less room: {load:.0%} of its capacity is used, {best_load:.0%} "
            "with the chosen option"
        )
    p95_ms, best_ms = item.predicted.p95_ms.value, winner.predicted.p95_ms.value
    if p95_ms > 1.02 * best_ms:
        return f"its predicted P95 is {ms(p95_ms)}, the chosen option's {ms(best_ms)}"
    return f"it gains nothing over the chosen option: P95 of {ms(p95_ms)} at the same cost, for a larger step"
