"""What a learned re-ranker changes about a sweep's anomalies: their tier between warn and act, and why. Pure.

Rules are left alone, and so is everything without evidence (absent data, replicas, alerts from outside): a promise that
is broken needs no second opinion, and no label can silence it.
"""

from __future__ import annotations

from collections.abc import Sequence

from detection.model import Anomaly, Tier
from detection.ranker import Judge
from detection.settings import DetectionSettings

_WORDS = {
    "level_warn": "how far two detectors agree that it is out",
    "level_act": "how far three detectors agree that it is out",
    "act_reach": "how near it is to being acted on",
    "strictness": "how strict the service's alarms are",
    "tier_act": "the tier by the detectors alone",
    "top": "the highest score",
    "agreeing": "how many detectors agree",
    "change": "the size of the change",
    "seen": "for how many judgements it has stood",
    "age_s": "how long it has stood",
    "beyond_week": "how far it is beyond the week's range",
    "from_median": "how far it is from the week's median",
    "signals_voting": "how many of the service's signals are odd",
    "past_spread": "how restless the last hour was",
    "past_high": "the highest of the last hour",
    "past_mean": "the level of the last hour",
    "past_odd": "how much of the last hour was odd",
    "past_step": "the step against the value before",
    "habit": "how well the time of day explains it",
    "jumpiness": "how much it jumps anyway",
    "tails": "how far it usually strays",
    "lean": "to which side it usually strays",
    "trust": "how much history is known",
    "days": "for how many days it is known",
    "load": "the load against the usual",
    "hour": "the time of day",
    "weekday": "the day of the week",
}


def ranked(
    anomalies: Sequence[Anomaly], at_s: float, settings: DetectionSettings, judge: Judge | None
) -> list[Anomaly]:
    """The anomalies with what was learned about each; as they are where nothing was learned or learning is off.

    A warning is raised only while it is fresh: what a detector merely keeps standing is no new evidence.
    """
    asked = [i for i, one in enumerate(anomalies) if one.evidence and "rule" not in one.kinds]
    if judge is None or not settings.learning.rerank or not asked:
        return list(anomalies)
    found = list(anomalies)
    chances = judge.probabilities([anomalies[i].evidence for i in asked])
    for i, chance in zip(asked, chances.tolist(), strict=True):
        found[i] = _told(anomalies[i], chance, at_s, settings, judge)
    return found


def _told(anomaly: Anomaly, chance: float, at_s: float, settings: DetectionSettings, judge: Judge) -> Anomaly:
    tier, because = anomaly.tier, judge.because(anomaly.evidence)
    if settings.learning.move_tiers and judge.ranker.used:
        tier = tier_of(anomaly, chance, at_s, settings, judge)
    moved = "" if tier == anomaly.tier else f" (so {'it is acted on' if tier == 'act' else 'it only warns'})"
    mostly = "; mostly " + ", ".join(map(words, because)) if because else ""
    said = f"by the labels so far a real problem with {100 * chance:.0f} %{moved}{mostly}"
    update = {"tier": tier, "probability": round(chance, 4), "because": because, "model": judge.ranker.id}
    return anomaly.model_copy(update={**update, "reason": f"{anomaly.reason}; {said}" if anomaly.reason else said})


def tier_of(anomaly: Anomaly, chance: float, at_s: float, settings: DetectionSettings, judge: Judge) -> Tier:
    """The tier that a probability means. What a detector watches of a series' own (fluctuation) is never raised."""
    if anomaly.tier == "act":
        return "act" if chance >= judge.ranker.keep_at else "warn"
    fresh = 0 <= at_s - anomaly.at_s < max(settings.keep_firing_for_s, 1.0)
    may_rise = fresh and ("vote" in anomaly.kinds or "joint" in anomaly.kinds)
    return "act" if may_rise and chance >= judge.ranker.raise_at else "warn"


def words(name: str) -> str:
    """A piece of evidence as a person reads it."""
    for prefix, said in (("band_", "the detector"), ("joint_", "the detector"), ("own_", "the detector")):
        if name.startswith(prefix):
            return f"{said} {name.removeprefix(prefix).replace('_', ' ')}"
    return _WORDS.get(name, name.replace("_", " "))
