"""The way back from a release that is to blame: to the last proven version, or why there is none. Pure.

Shared by the planners. A service without the release lever is held: more batches or replicas would pay, for as long as
that version serves, for what a person ends by bringing the old one back, and would hide that it has to be done.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from detection.model import Incident
from tuning.formats import ms
from tuning.model import Change, Diagnosis, Interval, Observation, Option, Record, Release
from tuning.planning import reading as rd
from tuning.planning import thresholds as th

LEVER = "release"


def way_back(
    incident: Incident, observation: Observation, diagnosis: Diagnosis, past: Sequence[Record]
) -> tuple[Option, tuple[Option, ...]] | None:
    """(what is done about a bad release, what was passed over); None where it is no matter of the release lever."""
    release = diagnosis.release
    if release is None:
        return None
    if LEVER not in observation.service.levers:
        return _hold(release, diagnosis, _by_hand(release)), _passed_over(observation, release)
    if LEVER in rd.tried_levers(incident, past):
        return None
    why_not = _why_not(observation, release)
    if why_not:
        return _hold(release, diagnosis, why_not), _passed_over(observation, release)
    return _reverted(observation, diagnosis, release), _passed_over(observation, release)


def _by_hand(release: Release) -> str:
    """What a person has to do where there is no lever for it."""
    back = f"bring version {release.proven} back" if release.proven else "bring a version back that kept the SLO"
    return f"no lever cures that: {back}, or give the service the lever `release`"


def _why_not(observation: Observation, release: Release) -> str:
    """Why the lever cannot bring the old version back, "" where it can."""
    setting = observation.settings.get(LEVER)
    if setting is None:
        return f"the release lever cannot be read: {observation.unreadable.get(LEVER, 'it does not answer')}"
    if setting.useless:
        return setting.useless
    if setting.others:
        return f"the replicas serve different versions ({setting.note}): a rollout is under way, or one has failed"
    target = release.proven
    if not target:
        return (
            f"no version before {release.new} is known under which the service kept its SLO, and slotune goes back to "
            "no other: bring the right one back by hand"
        )
    if setting.values.get("version") == target:
        return f"version {target} serves already"
    return ""


def _reverted(observation: Observation, diagnosis: Diagnosis, release: Release) -> Option:
    lever, target = observation.service.levers[LEVER], release.proven
    change = Change(lever=LEVER, old={"version": release.new}, new={"version": target})
    predicted = _before(observation, release)
    limit = observation.promise.limit_ms
    brings = f"; P95 was {ms(predicted.value)} with it" if predicted is not None else ""
    return Option(
        changes=(change,),
        predicted_p95_ms=predicted,
        meets_slo=None if predicted is None else predicted.value <= limit,
        cost_per_hour=lever.cost_per_hour,
        effect_delay_s=lever.effect_delay_s,
        risk=th.RELEASE_RISK,
        reason=f"{_blame(release, diagnosis)}: back to version {target}, which kept the SLO of {ms(limit)}{brings}",
    )


def _blame(release: Release, diagnosis: Diagnosis) -> str:
    if diagnosis.slower is not None:
        slower = diagnosis.slower
        return (
            f"version {release.new} takes {slower.value:.1f} times as long as version {release.old} "
            f"({slower.low:.1f} to {slower.high:.1f}) on the same work"
        )
    return diagnosis.evidence[0]


def _before(observation: Observation, release: Release) -> Interval | None:
    """The P95 of the hour before the release: what there is to win, at the load of then. None where nobody knows it."""
    window, signal = observation.window, observation.promise.signal
    before = window.between(release.at_s - th.RELEASE_BEFORE_S, release.at_s - window.span.step_s)
    values = before.values.get(signal)
    known = values[np.isfinite(values)] if values is not None else np.empty(0)
    if known.size < th.LEVEL_POINTS:
        return None
    low, middle, high = (float(np.quantile(known, q)) for q in th.RELEASE_QUANTILES)
    return Interval(value=middle, low=low, high=high)


def _hold(release: Release, diagnosis: Diagnosis, why: str) -> Option:
    return Option(changes=(), reason=f"hold: {_blame(release, diagnosis)}, and {why}")


def _passed_over(observation: Observation, release: Release) -> tuple[Option, ...]:
    """The other levers: each would pay for what the release costs."""
    return tuple(
        Option(
            changes=(),
            feasible=False,
            reason=f"{name}: version {release.new} is what is wrong, and this would only pay for it",
        )
        for name in sorted(observation.service.levers)
        if name != LEVER
    )
