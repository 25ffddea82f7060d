"""Scores that agree become one anomaly per service, signal and replica; a returning score lets go with hysteresis."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from detection.model import Anomaly, Score, Tier, Value, make_id
from detection.settings import DetectionSettings


class DetectionState(Value):
    """What one sweep hands to the next: the anomalies that still stand, by key. Losing it costs onsets, not alarms."""

    open: dict[str, Anomaly] = {}


def merge(
    scores: Sequence[Score], at_s: float, settings: DetectionSettings, state: DetectionState
) -> tuple[list[Anomaly], DetectionState]:
    """Anomalies at at_s. A statistical one stays for keep_firing_for_s after its last vote; rules keep their own."""
    voted: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        if score.tier is not None and score.score is not None:
            voted[_key(score)].append(score)
    current = {key: _anomaly(key, group, at_s, state.open.get(key)) for key, group in voted.items()}
    for key, anomaly in state.open.items():
        kept = _kept(anomaly, at_s, settings) if key not in current else None
        if kept is not None:
            current[key] = kept
    return list(current.values()), DetectionState(open=current)


def _key(score: Score) -> str:
    # what a detector calls by a name of its own stands beside the signal's other anomalies
    family = f"{score.symptom}|" if score.symptom else ""
    return f"{family}{score.service}|{score.signal}|{score.replica or ''}"


def _kept(anomaly: Anomaly, at_s: float, settings: DetectionSettings) -> Anomaly | None:
    """An anomaly that nobody voted for this time: as it was for a while, then as a joint warning, then gone."""
    if "rule" in anomaly.kinds:
        # where a rule has let go by its own clock, it is over
        return None
    age_s = at_s - anomaly.at_s
    if 0 <= age_s < settings.keep_firing_for_s:
        return anomaly
    if "joint" in anomaly.kinds and 0 <= age_s < settings.joint_keep_firing_for_s:
        return anomaly.model_copy(update={"tier": "warn"})
    return None


def _anomaly(key: str, group: Sequence[Score], at_s: float, before: Anomaly | None) -> Anomaly:
    # a rule speaks first: its threshold is the promise
    ranked = sorted(group, key=lambda s: (s.tier != "act", s.kind != "rule", -(s.score or 0.0)))
    lead = ranked[0]
    tier: Tier = "act" if lead.tier == "act" else "warn"
    since = [s.contributions["since_s"] for s in group if "since_s" in s.contributions] or [at_s]
    since_s = min([*since, before.since_s] if before is not None else since)
    seen = 1 if before is None else before.seen + 1
    shares = next((_shares(s.contributions) for s in ranked if _shares(s.contributions)), {})
    band = next((s for s in ranked if s.expected_high is not None or s.expected_low is not None), lead)
    reasons = dict.fromkeys(s.reason for s in ranked if s.reason)
    return Anomaly(
        id=make_id("anomaly", key, since_s),
        service=lead.service,
        signal=lead.signal or "all",
        tier=tier,
        since_s=since_s,
        at_s=at_s,
        observed=band.observed,
        expected_low=band.expected_low,
        expected_high=band.expected_high,
        score=max(s.score or 0.0 for s in group),
        detectors=tuple(dict.fromkeys(name for s in ranked for name in _names(s))),
        contributions=shares,
        replica=lead.replica,
        reason="; ".join(reasons),
        kinds=tuple(dict.fromkeys(s.kind for s in ranked)),
        symptom=lead.symptom,
        evidence=_evidence(ranked, tier, at_s - since_s, seen),
        seen=seen,
        beyond_s=max(at_s if s.beyond_s is None else s.beyond_s for s in group if s.tier == tier),
    )


def _evidence(ranked: Sequence[Score], tier: Tier, age_s: float, seen: int) -> dict[str, float]:
    """What is known of the series and of the anomaly; {} where a rule speaks: its threshold needs no second opinion."""
    known = next((score.evidence for score in ranked if score.evidence), {})
    if not known or any(score.kind == "rule" for score in ranked):
        return {}
    top = max(score.score or 0.0 for score in ranked)
    told = {"tier_act": float(tier == "act"), "seen": float(seen), "age_s": round(age_s, 1), "top": float(f"{top:.4g}")}
    return {**known, **told}


def _names(score: Score) -> tuple[str, ...]:
    named = tuple(name.removeprefix("vote:") for name in score.contributions if name.startswith("vote:"))
    return named or (score.detector,)


def _shares(contributions: Mapping[str, float]) -> dict[str, float]:
    return {k: v for k, v in contributions.items() if k != "since_s" and not k.startswith("vote:")}
