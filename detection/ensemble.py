"""The votes of the single-series detectors and the features of the joint ones, as matrices over services and time.

One piece of code for everything: learning calibrates on it, a sweep judges its last column, a backtest judges many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detection import weekly
from detection.baselines import POOLED
from detection.features import features
from detection.methods import Band, Joint, View
from detection.panel import Floats, Panel, signal_of
from detection.series import Arrays, last_hour, learn_series
from detection.settings import DetectionSettings

WARN_VOTES, ACT_VOTES = 2, 3


@dataclass(frozen=True)
class Votes:
    """Vote scores of series over judged columns, shape (series, C); 1 is the nominal threshold.

    warn, act: the 2nd and 3rd largest score of detectors that agree on the direction, capped by the effect floor.
    """

    warn: Floats
    act: Floats


def view_of(panel: Panel, stats: Arrays, first: int) -> View:
    """The panel's series as rows, without the habits of their week."""
    x, habit = _rows(panel, stats)
    return View(x, panel.times, panel.step_s, stats, first, habit=habit)


def _rows(panel: Panel, stats: Arrays) -> tuple[Floats, weekly.Habit | None]:
    x = panel.compressed().reshape(len(panel.services) * len(panel.signals), -1)
    habit = weekly.habit_of(x, panel.times, stats)
    return (x if habit is None else habit.out_of(x)), habit


def log_rows(signals: Sequence[str], services: int) -> NDArray[np.bool_]:
    """Which rows of a (services * signals) matrix are on the log1p scale."""
    return np.tile(np.array([signal_of(name).log for name in signals], dtype=bool), services)


def _sides(signals: Sequence[str], services: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which rows may go wrong upwards, and which downwards. Context signals ("none") in neither."""
    worse = [signal_of(name).worse for name in signals]
    up = np.tile(np.array([w in ("up", "both") for w in worse], dtype=bool), services)
    down = np.tile(np.array([w in ("down", "both") for w in worse], dtype=bool), services)
    return up, down


def votes(view: View, signals: Sequence[str], bands: Sequence[Band], settings: DetectionSettings) -> Votes:
    """The k-th largest scores of the band detectors, on the worse side(s) of each signal."""
    services = view.x.shape[0] // len(signals)
    up, down = _sides(signals, services)
    signed = [_signed(method, view) for method in bands]
    cap = effect(view, signals, settings)
    shape = view.now.shape
    warn, act = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for side, rows in ((1.0, up), (-1.0, down)):
        if rows.any() and signed:
            second, third = _agreed([np.float32(side) * part[rows] for part in signed])
            warn[rows] = np.fmax(warn[rows], second)
            act[rows] = np.fmax(act[rows], third)
    unknown = ~np.isfinite(view.now)
    warn, act = np.minimum(warn, cap), np.minimum(act, cap)
    warn[unknown] = np.nan
    act[unknown] = np.nan
    return Votes(warn, act)


def _signed(method: Band, view: View) -> Floats:
    center, half = method.band(view)
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        out: Floats = (view.now - center) / half
    return out


def _agreed(scores: Sequence[Floats]) -> tuple[Floats, Floats]:
    """The WARN_VOTES-th and the ACT_VOTES-th largest of the scores, not below 0; the smallest where there are fewer."""
    top = [np.full(scores[0].shape, -np.inf, np.float32) for _ in range(min(ACT_VOTES, len(scores)))]
    for part in scores:
        rest = np.where(np.isfinite(part), part, -np.inf)
        for k, held in enumerate(top):
            top[k], rest = np.maximum(held, rest), np.minimum(held, rest)
    return np.maximum(top[min(WARN_VOTES, len(top)) - 1], 0), np.maximum(top[-1], 0)


def effect(view: View, signals: Sequence[str], settings: DetectionSettings) -> Floats:
    """Size of the change against the expected value, in units of the smallest that is news; shape of view.now."""
    return np.abs(change(view, signals, settings))


def change(view: View, signals: Sequence[str], settings: DetectionSettings) -> Floats:
    """Change against the expected value with its sign, in units of the smallest that is news; shape of view.now."""
    services = view.x.shape[0] // len(signals)
    log = log_rows(signals, services)[:, None]
    floor = np.tile(np.array([signal_of(name).floor for name in signals], np.float32), services)[:, None]
    center, now = view.clock[0], view.now
    if view.habit is not None:
        habit = view.habit.at(slice(None), slice(view.first, None))
        center, now = habit.into(center), habit.into(now)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.where(log, np.expm1(center), center)
        seen = np.where(log, np.expm1(now), now)
        news = np.maximum(np.maximum(settings.min_effect * np.abs(expected), floor), view.stats["news"][:, None])
        out: Floats = ((seen - expected) / np.maximum(news, 1e-12)).astype(np.float32)
    return out


def learn_panel(panel: Panel, week: Floats | None = None, defined: Collection[str] = ()) -> View:
    """Statistics of each series of a panel (see detection.series), plus `news`: a floor where nothing ever moved.

    week: weekly.week_table of its series, from which the habits of the week are learned and taken out. defined: signals
    beyond the table that somebody defined, and whose scale is known.
    """
    habits = weekly.learn_week(week) if week is not None else {}
    x, habit = _rows(panel, habits)
    hour = last_hour(x, panel.step_s)
    stats = learn_series(x, panel.times, panel.step_s, log_rows(panel.signals, len(panel.services)), hour)
    known = [signal_of(name).unit != "" or name in defined for name in panel.signals] * len(panel.services)
    # a series of unknown unit that never moved says nothing about its scale: one unit is no news
    still = (stats["q99"] - stats["q01"]) <= 1e-6 * np.maximum(1.0, np.abs(stats["q50"]))
    stats["news"] = np.where(still & ~np.array(known, dtype=bool), np.float32(1.001), np.float32(0)).astype(np.float32)
    stats |= habits
    stats["hour_scale"] = weekly.hour_scale(x, panel.times, panel.step_s, stats)
    return View(x, panel.times, panel.step_s, stats, 0, hour, habit)


def joint_features(view: View, services: int, first: int) -> Floats:
    """Features of services over the columns from `first` on: (services, C, 2 * signals)."""
    x = view.x.reshape(services, -1, view.x.shape[1])
    return features(x, view.times, view.step_s, view.stats, first, view.whole_hour)


def part_of(name: str, method: Joint, arrays: Mapping[str, Floats]) -> dict[str, Floats]:
    """The arrays of one joint detector among those of a group, without their prefix."""
    prefix = joint_prefix(name, method)
    return {key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)}


def joint_prefix(name: str, method: Joint) -> str:
    """Where a group keeps the arrays of a joint detector."""
    return f"{POOLED}{name}/" if method.pooled else f"{name}/"


def contributions(method: Joint, row: Floats, part: Arrays, signals: Sequence[str]) -> dict[str, float]:
    """Share of each signal in one service's joint score, strongest first, summing to 1. row: (features,)."""
    weight = method.weights(row, part, len(signals))
    total = float(weight.sum())
    shares = {name: float(w) / total for name, w in zip(signals, weight, strict=True)} if total > 0 else {}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
