"""Sentences for the on-call engineer: what is wrong, what is done, why this and not another. Decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from detection.model import FloatArray
from detection.signals import percentile as _title
from tuning import formats
from tuning.formats import ms
from tuning.model import Diagnosis, Refusing
from tuning.planning import thresholds as th
from tuning.planning.causes import CAUSES
from tuning.planning.ports import Predicted
from tuning.planning.ranking import Ranked
from tuning.planning.settings import PlanningSettings

_RULE_OF_THUMB = {
    "batch_size": "latency high, so a larger batch",
    "replicas": "throughput low, so more replicas",
    "precision": "so INT8",
    "variant": "so a smaller model",
    "admission": "so a shorter queue",
}


def chosen(item: Ranked, diagnosis: Diagnosis, limits: Mapping[str, float], why: str, promise: str = "") -> str:
    """Why the winner wins, in one sentence with its numbers. why: what the engine says of it. promise: the signal that
    the plan is about, which is told first; the worst of the others beside it."""
    worst = item.predicted.worst(limits)
    name = promise if promise in limits and promise in item.predicted.shown else worst
    text = "; ".join(change.text() for change in item.candidate.changes)
    cost = item.candidate.cost_per_hour
    price = f" for {cost:.2f}/h" if cost > 0 else f", saving {-cost:.2f}/h" if cost < 0 else " at no cost"
    price = f" for {formats.points(item.candidate.loss)} of quality" if item.candidate.loss else price
    brings = [_brings(item.predicted, one, limits) for one in dict.fromkeys((name, worst))]
    refused = item.predicted.refused
    if "admission" in item.candidate.levers and refused is not None:
        price = f", and refuses {refused.value:.0%} of the requests"
    within = f" within about {item.time_to_effect_s:.0f} s" if item.ends else ""
    edge = f"; {item.predicted.edge}" if item.predicted.edge and "itl_p95_ms" in (name, worst) else ""
    return f"{_lead(diagnosis)}{text} brings {' and '.join(brings)}{price}{within}{why}{edge}"


def _brings(predicted: Predicted, name: str, limits: Mapping[str, float]) -> str:
    shown = predicted.told(name)
    return f"{_title(name)} to {ms(shown.value)} ({ms(shown.low)} to {ms(shown.high)}; SLO {ms(limits[name])})"


def _lead(diagnosis: Diagnosis) -> str:
    title = CAUSES[diagnosis.cause].title
    if diagnosis.queue_share is None:
        return f"{title}: "
    return f"{title}, and {diagnosis.queue_share:.0%} of the latency is waiting: "


def price(loss: float, earlier_s: Sequence[float], lease_s: float, below_qps: float | None) -> str:
    """What a smaller variant costs, as far as it can be told. earlier_s: how long earlier switches here lasted."""
    back = f"; back once fewer than {below_qps:.3g} requests/s come" if below_qps else ""
    return f"The price: {formats.points(loss)} for {_typical(earlier_s, lease_s)}{back}."


def _typical(earlier_s: Sequence[float], lease_s: float) -> str:
    """How long what is lent lasts."""
    if earlier_s:
        return f"about {median(earlier_s) / 60:.0f} min (the median of {len(earlier_s)} before)"
    return f"up to {lease_s / 60:.0f} min, then it is looked at again"


def refusal(told: Refusing, earlier_s: Sequence[float], lease_s: float, below_qps: float | None) -> str:
    """What a limit refuses and wins, before and after. earlier_s: how long earlier limits here lasted."""
    share = told.share
    back = f"; back once fewer than {below_qps:.3g} requests/s come" if below_qps else ""
    between = f"{share.low:.0%} to {share.high:.0%}; as it is {told.share_now:.0%}"
    in_time = f"{told.in_time_per_s:.3g}/s, as it is {told.in_time_now_per_s:.3g}/s"
    lasts = _typical(earlier_s, lease_s)
    return f"Refused: {share.value:.0%} of the requests ({between}) for {lasts}{back}. Answered in time: {in_time}."


def wins_little(with_it_per_s: float, as_it_is_per_s: float) -> str:
    """Why requests are not refused: answers in time per second with the limit, and without it."""
    return (
        f"a limit would refuse requests and win too little: {with_it_per_s:.3g}/s would be answered in time, as it is "
        f"{as_it_is_per_s:.3g}/s"
    )


def refuses(text: str, share: float | None) -> str:
    """Why nothing more is done while a limit that was lowered refuses requests. text: the change; share: 0..1."""
    told = "requests" if share is None else f"{share:.0%} of the requests"
    return (
        f"hold: {text} was lent and refuses {told}, so that the others are answered in time; nothing within bounds "
        "would answer more of them, and the limit goes back by itself once the load has fallen"
    )


def late(winner: Ranked) -> str:
    """Why an option is taken although the queue that stands takes long to drain."""
    return (
        f"; the queue that stands drains in about {winner.predicted.drain_s / 60:.0f} minutes then, nothing is "
        "quicker, and left alone it grows"
    )


def hardly(winner: Ranked) -> str:
    """Why an option is taken that does not carry the load by the middle of what is known."""
    return (
        f"; not sure ({winner.predicted.meets:.0%}: by what is known the load would be {winner.predicted.load:.0%} of "
        "its capacity), but nothing within bounds is likelier, and left alone the queue grows"
    )


def disagreement(levers: tuple[str, ...], playbook: tuple[str, ...], why: str) -> str:
    """One sentence where the rule of thumb would have pulled another lever; "" where they agree."""
    if not playbook or levers == playbook:
        return ""
    rule = _RULE_OF_THUMB.get(playbook[0], playbook[0])
    return f"The rule of thumb says {rule}; the measured batch times say otherwise{why}."


def exploring(item: Ranked, diagnosis: Diagnosis, limits: Mapping[str, float], unseen: str) -> str:
    """Why an option is tried of which nobody knows whether it is enough. unseen: what the engine says of that."""
    text = "; ".join(change.text() for change in item.candidate.changes)
    limit = ms(limits[item.predicted.worst(limits)])
    return (
        f"{_lead(diagnosis)}{text} is tried: {unseen}, costs nothing and can be undone; it carries the load with "
        f"{item.predicted.carries:.0%}, and holding would not meet {limit}"
    )


def drains(stay: Predicted) -> str:
    """Why nothing is done while a queue empties."""
    return f"hold: the queue drains by itself in about {stay.drain_s:.0f} s at the present load"


def few(stay: Predicted, requests: float, limits: Mapping[str, float]) -> str:
    """Why nothing is done yet where the objective was broken by a handful of requests. requests: in a rate window."""
    name = stay.worst(limits)
    return (
        f"hold: the present setting is predicted to do ({ms(stay.shown[name].value)} of {ms(limits[name])}), and "
        f"{requests:.0f} requests are few enough for luck; it is looked at again soon"
    )


def changed(stay: Predicted, limits: Mapping[str, float]) -> str:
    """Why no second change is made soon after the first, which is predicted to do by what was measured under it."""
    name = stay.worst(limits)
    return (
        f"hold: what was changed is predicted to do ({_title(name)} {ms(stay.shown[name].value)}, SLO "
        f"{ms(limits[name])}; {stay.meets:.0%}); it is looked at again soon, before anything else is changed"
    )


def does(stay: Predicted, limits: Mapping[str, float]) -> str:
    """Why nothing is done where the objective is broken, the present setting should keep it, and no option does better:
    what broke it is not in what is seen now."""
    name = stay.worst(limits)
    return (
        f"hold: the present setting is predicted to do ({_title(name)} {ms(stay.shown[name].value)}, SLO "
        f"{ms(limits[name])}; {stay.meets:.0%}), and no option is likelier to; it is looked at again soon"
    )


def luck(stay: Predicted, limits: Mapping[str, float]) -> str:
    """Why no server is restarted yet although an objective is broken: the present setting is likely to keep it."""
    name = stay.worst(limits)
    shown = stay.shown[name]
    return (
        f"hold: the present setting is predicted to do ({_title(name)} {ms(shown.low)} to {ms(shown.high)}, SLO "
        f"{ms(limits[name])}; {stay.meets:.0%}), and a change restarts servers; it is looked at again soon"
    )


def gone(p95: FloatArray) -> str:
    """Why no server is restarted where the queue that broke the objective is gone. p95: recent values in ms."""
    return (
        f"hold: the queue is gone and P95 falls (from {ms(float(p95.max()))} to {ms(float(p95[-1]))}), and a change "
        "restarts servers; it is looked at again soon"
    )


def no_gain(option: Predicted, stay: Predicted, limits: Mapping[str, float], *, lower: bool) -> str:
    """Why an option is passed over: it shows what is there already, or less for no better chance (lower)."""
    name = option.worst(limits)
    if lower:
        kept = f"({option.meets:.0%}) than the present setting ({stay.meets:.0%})"
        return f"it would restart servers, and is hardly likelier to keep {ms(limits[name])} {kept}"
    return f"it would show {_title(name)} {ms(option.shown[name].value)}, and so does the present setting"


def uncured(diagnosis: Diagnosis, symptom: str = "") -> str:
    """Why a cause that no lever cures gets no change: it is over, nothing was wrong where a person asked (symptom:
    by_hand), or a person has to look."""
    evidence = "; ".join(diagnosis.evidence)
    if diagnosis.cause == "healthy":
        how = "what is promised is kept" if symptom == "by_hand" else "it recovered by itself"
        return f"hold: {how}: {evidence}; no change is needed"
    if diagnosis.cause == "fresh_release":
        return f"hold: {evidence}"
    return f"hold: {evidence}: no lever cures that"


def unpredictable(diagnosis: Diagnosis, signal: str) -> str:
    """Why nothing is proposed where no option's effect can be predicted."""
    evidence = "; ".join(diagnosis.evidence)
    return (
        f"{CAUSES[diagnosis.cause].title} ({evidence}), and what a change would do to {_title(signal)} cannot be "
        "predicted yet: nothing is changed on a guess. The model learns from calm traffic; `slotune check --live` "
        "names the signals that are missing"
    )


def nothing(diagnosis: Diagnosis, ranked: list[Ranked], limits: Mapping[str, float]) -> str:
    """Why nothing is done although the SLO is broken, and what a person can do about it.

    That a bound has to be raised is said only where every option is as good as sure to fail for want of capacity: what
    may still turn out to do, once more is known, is tried then, and nobody was told otherwise.
    """
    title = CAUSES[diagnosis.cause].title
    if not ranked:
        return f"hold: {title}, and no lever can be moved"
    free = [item for item in ranked if not item.barred]
    likeliest = max(free, key=lambda item: item.predicted.meets, default=None)
    if likeliest is not None and likeliest.predicted.meets >= th.LEAST_CARRIES:
        return f"hold: {title}, and {_not_yet(likeliest, limits)}"
    closest = min(ranked, key=lambda item: item.predicted.ratio(limits))
    name = closest.predicted.worst(limits)
    limit, shown = ms(limits[name]), closest.predicted.shown[name]
    text = " and ".join(change.text() for change in closest.candidate.changes)
    if closest.barred:
        return f"hold: {title}; {closest.barred}, and nothing else within bounds meets {limit}"
    said = (
        f"hold: {title}, and nothing within bounds meets {limit}: the best option ({text}) would bring {_title(name)} "
        f"to {ms(shown.value)} at {closest.predicted.load:.0%} load"
    )
    if closest.predicted.load < th.FULL:
        return f"{said}, so that more of it would not help either: what a request takes by itself has to come down"
    return f"{said}; raise a bound or shed load"


def _not_yet(item: Ranked, limits: Mapping[str, float]) -> str:
    """Why the likeliest option is not taken now: it may do, and too little speaks for it."""
    name = item.predicted.worst(limits)
    shown, text = item.predicted.shown[name], " and ".join(change.text() for change in item.candidate.changes)
    return (
        f"nothing within bounds is likely enough to meet {ms(limits[name])} by what is known now: the likeliest "
        f"({text}) would with {item.predicted.meets:.0%} ({_title(name)} {ms(shown.low)} to {ms(shown.high)}); "
        "it is looked at again while this lasts"
    )


def passed_over(item: Ranked, winner: Ranked | None, settings: PlanningSettings, limits: Mapping[str, float]) -> str:
    """One sentence on why an option was not chosen."""
    predicted, name = item.predicted, item.predicted.worst(limits)
    shown, limit, slo = predicted.shown[name], settings.headroom * limits[name], limits[name]
    if item.barred:
        return item.barred
    if item.ends and not item.drains:
        return f"the queue that stands would take about {predicted.drain_s / 60:.0f} minutes to drain"
    if not item.drains:
        return f"the load would be {predicted.load:.0%} of its capacity, so the queue would not drain"
    if predicted.ratio(limits) > settings.headroom:
        over = f"its predicted {_title(name)} of {ms(shown.value)} is over {ms(limit)}"
        return f"{over} (the SLO of {ms(slo)} with headroom)"
    if item.success < settings.confidence:
        chance = f"it meets the SLO with a probability of {predicted.meets:.0%} only"
        if item.posterior.weight < 1:
            return f"{chance}, and {item.posterior.text()} here"
        return f"{chance} ({settings.confidence:.0%} is asked for)"
    if item.too_wide(limits):
        unseen = "such batches were never seen here" if predicted.unknown else "its gain is not measured yet"
        return f"{unseen}, so {_title(name)} may end at {ms(shown.high)}"
    return "not chosen" if winner is None else _against(item, winner, name)


def _against(item: Ranked, winner: Ranked, name: str) -> str:
    mine, other = item.candidate, winner.candidate
    if mine.loss > other.loss:
        less = f"the chosen option {formats.points(other.loss)}" if other.loss else "the chosen option none"
        return f"it would do as well, but costs {formats.points(mine.loss)} of quality, {less}"
    if item.guessed and not winner.guessed:
        return "it would do, but its gain was never measured here, and the chosen option rests on measurements"
    extra = mine.cost_per_hour - other.cost_per_hour
    if extra > th.FREE:
        return f"it would do as well, but costs {extra:.2f}/h more"
    if len(mine.changes) > len(other.changes):
        return "it would do as well, but one change is enough"
    if winner.success - item.success >= 0.01:
        return f"it meets the SLO with {item.predicted.meets:.1%}, the chosen option with {winner.predicted.meets:.1%}"
    later = item.time_to_effect_s - winner.time_to_effect_s
    if later > th.EFFECT_STEP_S / 2:
        return f"it would do as well, but takes {later:.0f} s longer to show"
    if mine.risk > other.risk:
        return "it would do as well, but is harder to undo"
    load, best_load = item.predicted.load, winner.predicted.load
    if load - best_load >= 0.005:
        return (
            f"it would do as well today, but leaves less room: {load:.0%} of its capacity is used, {best_load:.0%} "
            "with the chosen option"
        )
    value, best = item.predicted.shown[name].value, winner.predicted.shown[name].value
    if value > 1.02 * best:
        return f"its predicted {_title(name)} is {ms(value)}, the chosen option's {ms(best)}"
    return f"it gains nothing over the chosen option: {_title(name)} of {ms(value)} at the same cost, for a larger step"
