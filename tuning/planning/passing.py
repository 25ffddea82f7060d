"""Before a change that restarts servers: may what broke the objective be over, or luck, and is the model off? Pure.

A step that is free and undone in seconds may be tried at once. One that restarts the server of a language model costs
its warm caches and what is under way, so it waits for what a sweep or two later is known, and has to bring something
over what is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from detection.model import FloatArray
from tuning.planning import explain
from tuning.planning import thresholds as th
from tuning.planning.ports import Predicted
from tuning.planning.settings import PlanningSettings


def falls(p95: FloatArray) -> bool:
    """Whether recent values of a P95 have left their maximum and go on falling."""
    return p95.size >= 4 and float(p95[-1]) < th.PASSES_P95 * float(p95.max()) and bool(p95[-1] <= p95[-2])


def may_be_luck(p95: FloatArray, limit_ms: float, age_s: float, rate_window_s: float) -> bool:
    """Whether the objective was broken a moment ago, or for a while by no more than the scatter of a P95."""
    level = float(np.median(p95)) if p95.size else math.inf
    narrowly = level <= th.NARROWLY * limit_ms and age_s <= th.NARROWLY_WINDOWS * rate_window_s
    return age_s <= th.LUCK_WINDOWS * rate_window_s or narrowly


def just_changed(opened_at_s: float, changed_s: float, at_s: float, rate_window_s: float) -> bool:
    """Whether a change that was made for this incident is too fresh for another one on top, if by what was measured
    under it the setting does: a second change needs the first to have failed by the model's word as well."""
    return changed_s > opened_at_s and at_s - changed_s <= th.CHANGED_WINDOWS * rate_window_s


def before_a_restart(
    stay: Predicted,
    limits: Mapping[str, float],
    settings: PlanningSettings,
    p95: FloatArray,
    depth: FloatArray,
    luck: bool,
) -> str:
    """Why a restart can wait for another look, "" where it cannot.

    stay: what the present setting is predicted to show. p95, depth: recent values of the broken percentile and of the
    queue. luck: `may_be_luck`.
    """
    if luck and stay.meets >= th.FREE_CHANCE and stay.ratio(limits) <= settings.headroom:
        return explain.luck(stay, limits)
    stood = depth.size > th.LEVEL_POINTS and float(depth.max()) >= th.WAITS
    gone = stood and float(np.median(depth[-th.LEVEL_POINTS :])) < th.WAITS
    return explain.gone(p95) if gone and falls(p95) and stay.meets >= th.LEAST_CHANCE else ""


def off(stay: Predicted, signal: str, now_ms: float | None, limit_ms: float, depth: FloatArray) -> dict[str, float]:
    """By how much (log) the model is off for the present setting, by objective; {} where that cannot be told.

    It can where the objective is broken with no queue to speak of, while the present setting is predicted to keep it:
    what the model lacks (the burstiness of arrivals, which no server of a language model exports) is there under the
    next setting as well.
    """
    shown = stay.told(signal) if signal in stay.shown else None
    queues = depth.size and float(np.median(depth)) > th.WAITS
    if now_ms is None or shown is None or queues or stay.load >= th.FULL or not shown.value < limit_ms < now_ms:
        return {}
    return {signal: min(math.log(now_ms / shown.value), th.OFF_MAX)}


def brings_nothing(option: Predicted, stay: Predicted, limits: Mapping[str, float], *, restarts: bool = False) -> str:
    """Why an option is none: it is predicted to show what the present setting shows, and is no likelier to keep what is
    promised; "" where it brings something. restarts: it takes servers away for a while, so that a lower figure alone,
    with no better chance, is not worth it."""
    if option.meets > stay.meets + th.BRINGS_CHANCE:
        return ""
    lower = option.ratio(limits) <= th.BRINGS * stay.ratio(limits)
    if lower and not restarts:
        return ""
    return explain.no_gain(option, stay, limits, lower=lower)
