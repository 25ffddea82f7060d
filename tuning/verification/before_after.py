"""Did P95 really change? A before/after test that corrects for autocorrelation, load, and common causes.

The effect is the ratio of P95 levels, after / before, on the log scale (tuning.verification.autocorrelation holds the
statistics). With a control (replicas that were not changed) the series of differences between changed and unchanged is
compared, so that whatever happened to both cancels. Without one, and with a latency model, the ratio is divided by what
the model expected the old setting to do at the new load. With neither, a load that moved a lot makes the answer
"inconclusive". No data is neither success nor failure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from detection.model import FloatArray, make_id
from detection.signals import percentile
from tuning.formats import change, ms
from tuning.model import Guarded, Interval, Outcome, Plan, Verdict
from tuning.ports import Evidence
from tuning.verification import goodput
from tuning.verification.autocorrelation import Level, shift
from tuning.verification.guarded import (
    Control,
    guard_metrics,
    mean_of,
    requests_of,
    right_again,
    serves_again,
    still_refuses,
    vanished,
)
from tuning.verification.points import BoolArray, Points, both_sides, from_series, history_of
from tuning.verification.separation import LEAST_BEFORE, later_half, separated
from tuning.verification.settings import VerificationSettings


@dataclass(frozen=True)
class _Adjusted:
    """The shift after the adjustment, and what was done, in words."""

    level: Level
    words: str = ""


class BeforeAfterVerifier:
    """Verifier: pure, no clock, no randomness."""

    name = "before_after"

    def __init__(self, settings: VerificationSettings) -> None:
        self._settings = settings

    def judge(self, plan: Plan, before: Evidence, after: Evidence, control: Control | None = None) -> Outcome:
        """The verdict on `plan`; `before` and `after` hold windows of equal step, settled already.

        Never raises on poor data: too little of it is "inconclusive", with the reason. A service that refuses requests
        is judged by these as well: it is not resolved while it does, and what P95 alone cannot tell they may.
        """
        found = self._by_p95(plan, before, after, control)
        if plan.chosen.refusal is not None and plan.rollback_of is None:
            return self._by_goodput(found)
        if found.resolved and still_refuses(before, after):
            found = found.model_copy(update={"resolved": False})
        if control is not None or found.verdict not in ("inconclusive", "unchanged") or vanished(before, after):
            return found
        again = serves_again(before, after, self._settings, at_any_load=plan.chosen.levers == ("breaker",))
        risen = (found.p95_after_ms or 0.0) > (found.p95_before_ms or math.inf)
        if plan.chosen.levers == ("release",):
            # Failed or wrong answers were never slower: P95 has nothing to say but that it is met.
            again = again or right_again(before, after, self._settings)
            risen = risen and not found.resolved
        if plan.chosen.quality_loss:
            told = next((one for one in found.guards if one.signal == goodput.SIGNAL), None)
            again = again or goodput.rose(told, self._settings.throughput_drop)
        if not again or risen:
            return found
        return found.model_copy(update={"verdict": "improved", "reason": f"{again} (P95 alone: {found.reason})"})

    def _by_goodput(self, found: Outcome) -> Outcome:
        """A limit makes those fast who are let in: what it is worth is how many are answered in time."""
        told = next((one for one in found.guards if one.signal == goodput.SIGNAL), None)
        if found.verdict == "worse" or (found.verdict == "inconclusive" and found.effect is None):
            return found
        if told is None:
            reason = f"how many are answered in time cannot be told, so that nothing is proven ({found.reason})"
            return found.model_copy(update={"verdict": "inconclusive", "resolved": None, "reason": reason})
        risen = goodput.rose(told, self._settings.throughput_drop)
        reason = risen or f"goodput did not rise: {told.reason}"
        update = {"verdict": "improved" if risen else "unchanged", "reason": f"{reason} (P95 alone: {found.reason})"}
        return found.model_copy(update=update)

    def _by_p95(self, plan: Plan, before: Evidence, after: Evidence, control: Control | None) -> Outcome:
        settings = self._settings
        guards = guard_metrics(before, after, control, settings, plan.chosen)
        old, new = both_sides(before, after, settings)
        base = _outcome(plan, old, new, after.window.span.end_s, guards)
        failed = _failed(guards)
        # What a trial measured on the side (shadowed answers) ends with it, and so does it where a change is undone.
        lost = "" if failed or plan.rollback_of is not None else vanished(before, after)
        if lost:
            return base.model_copy(update={"reason": f"{lost}: whether it is better cannot be told"})
        if not failed and (apart := self._far_apart(before, after, old, new, control)) is not None:
            return base.model_copy(update=apart)
        lacking = self._lacking(before, after, old, new) or self._lacking_control(before, after, control)
        if lacking:
            # No P95 to speak of, and yet a loss that can be seen: that is enough to go back.
            resolved = None if control is not None else self._met_alone(new, after)
            helped = "" if failed or control is not None else self._copes_alone(new, resolved, after)
            told: Verdict = "worse" if failed else "improved" if helped else "inconclusive"
            reason = failed or (f"{lacking}, and {helped}" if helped else lacking)
            return base.model_copy(update={"verdict": told, "resolved": resolved, "reason": reason})
        history = history_of(before) if old.source == "series" else None
        difference, level = shift(
            old.side, new.side, history=history, prior=settings.phi_prior, noise_floor=settings.noise_floor
        )
        resolved = self._resolved(new, level, after)
        adjusted = self._against_control(before, after, control) or self._against_model(
            difference, level, before, after
        )
        low, high = adjusted.level.interval(settings.interval_level)
        effect = Interval(
            value=math.exp(adjusted.level.mean), low=math.exp(low), high=math.exp(high), level=settings.interval_level
        )
        verdict, reason = self._verdict(adjusted.level, effect, before, after, control)
        if control is None and _outgrown(before, after) and (verdict != "worse" or self._answers_more(before, after)):
            # What P95 was is no measure of what it would be: the old setting carried that load, and not this one.
            verdict = "improved"
        leaning = verdict == "inconclusive" and self._leans(effect, before, after, old, new, control)
        if cut := self._cut_off(_name(after), verdict, old, new, control):
            verdict, reason = "inconclusive", cut
        if failed:
            verdict, reason = "worse", f"{failed} ({_name(after)} alone: {verdict}, {reason})"
        words = "; ".join(word for word in (reason, adjusted.words) if word)
        update = {"verdict": verdict, "resolved": resolved, "effect": effect, "reason": words, "leaning": leaning}
        return base.model_copy(update=update)

    def _leans(
        self, effect: Interval, before: Evidence, after: Evidence, old: Points, new: Points, control: Control | None
    ) -> bool:
        """Whether what is too uncertain to be called improved most probably is: nothing else explains it, and the whole
        interval of the effect says so."""
        explained = _load_explains("improved", before, after, self._settings, control)
        return effect.high < 1 and not explained and not self._cut_off(_name(after), "improved", old, new, control)

    def _far_apart(
        self, before: Evidence, after: Evidence, old: Points, new: Points, control: Control | None
    ) -> dict[str, object] | None:
        """What to say where every point after lies far below every point before, at no smaller load; else None.

        With a control, what has to be far apart is the distance to the unchanged replicas.
        """
        if control is not None:
            return self._far_from_peers(before, after, new, control)
        effect = separated(old, new, self._settings.min_points, self._settings.interval_level)
        if effect is None or self._too_few_requests(before, after):
            return None
        if _model_explains(before, after) or _load_explains("improved", before, after, self._settings):
            return None  # the full test weighs how much of it the load explains
        points = later_half(new, self._settings.min_points)
        count = later_half(old, LEAST_BEFORE).size
        resolved = self._all_met(_drained_under(points, after, self._settings), after)
        reason = (
            f"{_name(after)} {change(effect.value)}: the worst of the last {points.size} points after the change is "
            f"{effect.high:.{1 if effect.high < 0.02 else 0}%} of the best of the last {count} before it"
        )
        return {"verdict": "improved", "resolved": resolved, "effect": effect, "reason": reason}

    def _far_from_peers(
        self, before: Evidence, after: Evidence, new: Points, control: Control
    ) -> dict[str, object] | None:
        settings = self._settings
        first, second = _differences(before, after, control)
        effect = separated(first, second, settings.min_points, settings.interval_level)
        if effect is None or self._too_few_requests(before, after) or _ends_of(control, new):
            return None
        if _load_explains("improved", before, after, settings, control):
            return None
        points = later_half(new, settings.min_points)
        resolved = self._all_met(_drained_under(points, after, settings), after)
        reason = (
            f"{_name(after)} {change(effect.value)} against the unchanged replicas over the same time, and at its "
            f"worst {change(effect.high)}"
        )
        return {"verdict": "improved", "resolved": resolved, "effect": effect, "reason": reason}

    def _lacking_control(self, before: Evidence, after: Evidence, control: Control | None) -> str:
        """A control was promised and there is too little of it to compare with."""
        if control is None:
            return ""
        for name, points in zip(("before", "after"), _differences(before, after, control), strict=True):
            if points.n < self._settings.min_points:
                return f"only {points.n} {_name(after)} points of the unchanged replicas {name} the change"
        return ""

    def _lacking(self, before: Evidence, after: Evidence, old: Points, new: Points) -> str:
        """What is missing for a verdict, in one sentence; empty when nothing is."""
        settings = self._settings
        if few := self._too_few_requests(before, after):
            return few
        for name, points in (("before", old), ("after", new)):
            if points.n < settings.min_points:
                return f"only {points.n} {_name(after)} points {name} the change ({settings.min_points} are needed)"
        return ""

    def _too_few_requests(self, before: Evidence, after: Evidence) -> str:
        for name, evidence in (("before", before), ("after", after)):
            if few := self._few_requests(name, evidence):
                return few
        return ""

    def _few_requests(self, name: str, evidence: Evidence) -> str:
        requests = requests_of(evidence)
        if requests is None or requests >= self._settings.min_requests:
            return ""
        amount = f"only {requests:.0f} requests" if requests > 0 else "no traffic"
        return f"{amount} {name} the change ({self._settings.min_requests:.0f} are needed)"

    def _met_alone(self, new: Points, after: Evidence) -> bool | None:
        """Whether the objective is met where there is nothing to compare with (an incident just begun, little traffic):
        told by the points after the change alone, if there are enough of them."""
        settings = self._settings
        promise = after.judged
        if promise is None or new.n < settings.min_points or self._few_requests("after", after):
            return None
        met = self._known(_drained(new.under(promise.limit_ms), settings), new, promise.limit_ms)
        return self._all_met(met, after)

    def _copes_alone(self, new: Points, resolved: bool | None, after: Evidence) -> str:
        """Why the change helps although too little was seen before it: the old setting would not carry the present
        load, and this one is not seen to miss the objective. Empty where that is not so."""
        enough = new.n >= self._settings.min_points and not self._few_requests("after", after)
        expected = after.expected_p95_ms
        if not enough or resolved is False or expected is None or not math.isinf(expected):
            return ""
        return "at this load the old setting would not cope at all"

    @staticmethod
    def _known(met: bool | None, new: Points, slo_ms: float) -> bool | None:
        """Beyond the last bucket nobody knows whether an objective is met that lies there as well."""
        return None if met is False and new.censored and slo_ms > (new.top_ms or 0.0) else met

    def _answers_more(self, before: Evidence, after: Evidence) -> bool:
        """Whether P95 rose with a queue of requests while so many more are answered than before that no error of the
        model explains it: the change carries more, and not yet enough."""
        return bool(_load_explains("worse", before, after, self._settings))

    def _cut_off(self, name: str, verdict: Verdict, old: Points, new: Points, control: Control | None) -> str:
        """Why a verdict cannot rest on points that are beyond the last bucket; empty when it can. A level that is only
        known to be "at least" may be any higher one: nothing fell to it, stayed at it, or rose from it."""
        limit = 1 - self._settings.resolved_share
        sides = {"improved": (new,), "worse": (old,), "unchanged": (old, new), "inconclusive": ()}[verdict]
        if side := next((side for side in sides if side.cut > limit), None):
            when = "before" if side is old else "after"
            return f"{name} {when} the change is beyond the histogram's last bucket (at least {ms(side.top_ms or 0.0)})"
        if control is not None and sides and any(side.cut > limit for side in _peers(control)):
            return f"{name} of the unchanged replicas is beyond the histogram's last bucket"
        return ""

    def _resolved(self, new: Points, level: Level, after: Evidence) -> bool | None:
        """Under the SLO, not under it, or not to be told. Most points AND the level must agree."""
        if after.judged is None:
            return None
        limit_ms = after.judged.limit_ms
        slo, under = math.log(limit_ms), new.under(limit_ms)
        share = float(under.mean())
        latest = float(under[-max(3, under.size // 3) :].mean())
        if share == 1.0 and not new.censored and under.size >= self._settings.min_points:
            # What was looked at lies under it, however uncertain a level beyond that is.
            return self._all_met(True, after)
        if share >= self._settings.resolved_share and latest >= 0.5 and level.below(slo) >= 0.8:
            return self._all_met(True, after)
        # Where the newest points all lie under it, it depends on when one looks.
        missed = latest < 1.0 and (share <= 0.5 or level.below(slo) <= 0.2)
        return self._known(False if missed else None, new, limit_ms)

    def _all_met(self, resolved: bool | None, after: Evidence) -> bool | None:
        """The word of the promise that was broken, which holds for the service only where the others are kept as well.

        A promise of which too little was seen after the change cannot be told.
        """
        if not resolved or after.slo is None or after.judged is None:
            return resolved
        for one in after.slo.objectives:
            if one.signal == after.judged.signal:
                continue
            points = from_series(after.window, signal=one.signal)
            if points.n < self._settings.min_points:
                return None
            if float(points.under(one.limit_ms).mean()) < self._settings.resolved_share:
                return False
        return True

    def _against_control(self, before: Evidence, after: Evidence, control: Control | None) -> _Adjusted | None:
        """Difference in differences; None without a control."""
        if control is None:
            return None
        settings = self._settings
        old, new = (points.side for points in _differences(before, after, control))
        level, _ = shift(old, new, history=None, prior=settings.phi_prior, noise_floor=settings.noise_floor)
        return _Adjusted(level, "compared with unchanged replicas over the same time")

    def _against_model(self, difference: Level, level: Level, before: Evidence, after: Evidence) -> _Adjusted:
        """Divide by what the old setting would have done at the new load, or by now where the trouble has grown."""
        if (unhelped := after.unhelped_p95_ms) is not None:
            # What was before the change is no level to compare with: by now it would be higher.
            error = math.log1p(self._settings.model_error)
            return _Adjusted(
                level.shifted(-math.log(unhelped), error**2),
                f"compared with the {ms(unhelped)} at least that the old setting would have reached by now, since the "
                "service grew slower meanwhile",
            )
        old, new = before.expected_p95_ms, after.expected_p95_ms
        if old is None or new is None or not (old > 0 and new > 0) or math.isnan(old + new):
            return _Adjusted(difference)
        if math.isinf(new):
            return _Adjusted(difference, "at this load the old setting would not have coped at all")
        if math.isinf(old):
            # The old setting could not carry the old load; what it could do at the new one is all there is to beat.
            error = math.log1p(self._settings.model_error)
            return _Adjusted(
                level.shifted(-math.log(new), error**2),
                f"compared with the {ms(new)} that the old setting would have reached at the new load",
            )
        adjustment = math.log(new / old)
        words = f"the load alone would have moved {_name(after)} by {change(math.exp(adjustment))}"
        error = self._settings.model_error * abs(adjustment)
        return _Adjusted(difference.shifted(-adjustment, error**2), words if abs(adjustment) > 0.02 else "")

    def _verdict(
        self, level: Level, interval: Interval, before: Evidence, after: Evidence, control: Control | None
    ) -> tuple[Verdict, str]:
        settings = self._settings
        improved = level.below(0.0)
        threshold = 1 - (1 - settings.confidence) / 2
        effect, low, high = interval.value - 1, interval.low - 1, interval.high - 1
        span = f"{_name(after)} {change(interval.value)} ({change(interval.low)} to {change(interval.high)})"
        if improved >= threshold and effect <= -settings.min_effect:
            verdict: Verdict = "improved"
        elif 1 - improved >= threshold and effect >= settings.min_effect:
            verdict = "worse"
        elif low >= -settings.same_within and high <= settings.same_within / (1 - settings.same_within):
            return "unchanged", span
        else:
            return "inconclusive", f"{span}: too uncertain to tell a change from noise"
        modelled = before.expected_p95_ms is not None and after.expected_p95_ms is not None
        modelled = modelled or after.unhelped_p95_ms is not None
        if (control is not None or not modelled) and (
            load := _load_explains(verdict, before, after, settings, control)
        ):
            return "inconclusive", f"{span}, but {load}"
        return verdict, span


def _name(side: Evidence) -> str:
    return percentile(side.signal)


def _drained_under(points: FloatArray, after: Evidence, settings: VerificationSettings) -> bool | None:
    return None if after.judged is None else _drained(points <= math.log(after.judged.limit_ms), settings)


def _drained(under: BoolArray, settings: VerificationSettings) -> bool | None:
    """Whether P95 of a queue that drains is under the SLO, by which of its points are; None while it still depends on
    when one looks: the newest third decides, and too many points over the SLO before it ask for a longer look. A burst
    that is over again is no queue: as in the whole look, some of the newest third may lie over it, but for its end."""
    latest = under[-max(3, under.size // 3) :]
    kept = bool(latest[-3:].all()) and latest.mean() >= settings.resolved_share
    if kept and under.mean() >= settings.resolved_share:
        return True
    return False if not latest.any() else None


def _model_explains(before: Evidence, after: Evidence) -> bool:
    """Whether the model expects that the load alone moved P95 down by a tenth or more."""
    old, new = before.expected_p95_ms, after.expected_p95_ms
    if old is None or new is None or math.isnan(old + new) or math.isinf(new):
        return False
    return math.isinf(old) or new < 0.9 * old


def _outgrown(before: Evidence, after: Evidence) -> bool:
    """Whether the load has grown since the change beyond what the old setting carries: P95 would rise without end."""
    old, new = before.expected_p95_ms, after.expected_p95_ms
    return old is not None and math.isfinite(old) and new is not None and math.isinf(new)


def _load_explains(
    verdict: Verdict,
    before: Evidence,
    after: Evidence,
    settings: VerificationSettings,
    control: Control | None = None,
) -> str:
    """Whether the load moved so much, in the direction of the verdict, that it explains it; empty when not.

    With a control: whether it moved between the changed and the unchanged replicas.
    """
    old, new = mean_of(before.window, "qps"), mean_of(after.window, "qps")
    if not old or not new:
        return ""
    moved = math.log(new / old)
    words = "the load"
    if control is not None:
        theirs = [mean_of(side.window, "qps") for side in control]
        if not theirs[0] or not theirs[1]:
            return ""
        moved -= math.log(theirs[1] / theirs[0])
        words = "the load of the changed replicas against the unchanged"
    limit = -math.log1p(-settings.load_tolerance)
    if (verdict == "improved" and moved < -limit) or (verdict == "worse" and moved > limit):
        return f"{words} moved by {change(math.exp(moved))} meanwhile, which may explain it"
    return ""


def _differences(before: Evidence, after: Evidence, control: Control) -> tuple[Points, Points]:
    old, new = (_difference(one, other) for one, other in zip((before, after), control, strict=True))
    return old, new


def _peers(control: Control) -> tuple[Points, ...]:
    return tuple(from_series(side.window, side.buckets, side.signal) for side in control)


def _ends_of(control: Control, new: Points) -> bool:
    """Whether a point of the changed or the unchanged replicas is only known to be "at least"."""
    return new.censored or any(side.censored for side in _peers(control))


def _difference(one: Evidence, other: Evidence) -> Points:
    """log P95 of the changed minus the unchanged, on the grid times that both have."""
    first, second = (from_series(side.window, signal=side.signal) for side in (one, other))
    theirs = {round(float(t), 3): v for t, v in zip(second.times_s, second.side.points, strict=True)}
    pairs = [
        v - theirs.get(round(float(t), 3), math.nan) for t, v in zip(first.times_s, first.side.points, strict=True)
    ]
    return Points(replace(first.side, points=np.asarray(pairs, dtype=np.float64)), first.times_s, "series")


def _failed(guards: tuple[Guarded, ...]) -> str:
    return "; ".join(guarded.reason for guarded in guards if not guarded.ok)


def _outcome(plan: Plan, old: Points, new: Points, at_s: float, guards: tuple[Guarded, ...]) -> Outcome:
    def level(points: Points) -> float | None:
        return math.exp(float(np.nanmean(points.side.points))) if points.n else None

    return Outcome(
        id=make_id(plan.id, "outcome", at_s),
        plan_id=plan.id,
        service=plan.service,
        verdict="inconclusive",
        resolved=None,
        at_s=at_s,
        p95_before_ms=level(old),
        p95_after_ms=level(new),
        samples_before=old.n,
        samples_after=new.n,
        guards=guards,
        method=f"before_after on {new.source}",
    )
