"""Whether a release is to blame: what moved when the version changed, tested against chance and cleared of the load.

A release is suspected where other hands brought it in before the trouble began, nothing was released since, and its
version still serves. It is blamed for what moved then and not before: the time of a batch at equal rows, or at equal
load, the share of failed requests, the share of right answers. More load makes batches larger and longer, and a queue
refuses: neither says anything about a version, so both are compared only where the load cannot explain them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from detection.model import Incident
from detection.signals import title
from tuning.formats import ms
from tuning.model import Interval, Observation, Release
from tuning.planning import latency_model as lm
from tuning.planning import release_sides as rs
from tuning.planning import release_statistics as st
from tuning.planning import thresholds as th
from tuning.planning.latency_model import LatencyModel
from tuning.planning.release_sides import Sides
from tuning.planning.settings import PlanningSettings

_WORK = (
    ("rows_per_batch", "batch_ms", "a batch of {at:.3g} rows"),
    ("running", "itl_ms", "a token, with {at:.3g} requests running,"),
)
"""(how much is computed at once, how long that takes, and how people call it)."""
_QUALITY = ("accuracy", "agreement")


@dataclass(frozen=True)
class Moved:
    """What moved with a release. what: "service_time", "errors" or the signal of the answers' quality."""

    what: str
    sentence: str
    slower: Interval | None = None


@dataclass(frozen=True)
class Blamed:
    """A release that is to blame, and why; `moved` is never empty. came: who brought it in, and when."""

    release: Release
    moved: tuple[Moved, ...]
    came: str

    @property
    def slower(self) -> Interval | None:
        return next((moved.slower for moved in self.moved if moved.slower is not None), None)


def suspect(incident: Incident, observation: Observation, settings: PlanningSettings) -> Release | None:
    """The release that may be to blame: the newest one, by other hands, from before the trouble, and still in force.

    Requests wait while a version is loaded, so that P95 may be broken a little before the new one is seen to answer;
    what it moved itself is placed more strictly (`release_sides.begins`).
    """
    if not observation.releases:
        return None
    newest = observation.releases[-1]
    late_s = max(th.RELEASE_SEEN_STEPS * observation.window.span.step_s, settings.rate_window_s)
    if newest.hands != "others" or newest.at_s > hurts_since(incident, observation) + late_s:
        return None
    shown = observation.settings.get("release")
    if shown is not None and shown.values.get("version") != newest.new:
        return None
    return newest


def fresh(incident: Incident, observation: Observation, settings: PlanningSettings) -> str:
    """What is told of a suspect that cannot be judged yet, "" where none is: a change in between would be made for the
    wrong reason, and would hide what the release did. It lasts a rate window and a few points."""
    release = suspect(incident, observation, settings)
    left_s = rs.told_s(release, observation, settings) - observation.at_s if release is not None else 0.0
    if release is None or left_s <= 0:
        return ""
    return (
        f"version {release.new} replaced version {release.old} {observation.at_s - release.at_s:.0f} s ago by other "
        f"hands, and whether it is to blame shows in {left_s:.0f} s: it is looked at again then"
    )


def hurts_since(incident: Incident, observation: Observation) -> float:
    """When what hurts began: what is only unusual (the traffic) may have begun before, and an incident that is still
    open may be of a trouble that had passed when this one began."""
    hurting = [a.since_s for a in incident.anomalies if a.tier == "act"]
    told_s = min(hurting, default=incident.opened_at_s)
    broken_s = rs.broken_since(observation)
    return told_s if broken_s is None else max(told_s, broken_s)


def blamed(
    incident: Incident, observation: Observation, settings: PlanningSettings, *, overloaded: bool
) -> Blamed | None:
    """The release to blame with what moved, None where none is. overloaded: more is asked for than is answered.

    Pure. Without points on both sides of the release nothing is blamed.
    """
    release = suspect(incident, observation, settings)
    if release is None:
        return None
    sides = rs.sides_of(release, observation, settings)
    if sides is None:
        return None
    load = rs.load(sides, overloaded=overloaded)
    slow = _service_time(release, sides, load, _learned(release, observation))
    found = [slow, _errors(release, sides, observation, load, overloaded=overloaded, slower=slow is not None)]
    found += [_quality(release, sides, observation, signal) for signal in _QUALITY]
    moved = tuple(one for one in found if one is not None)
    return Blamed(release, moved, _came_in(release, incident, observation)) if moved else None


def _learned(release: Release, observation: Observation) -> LatencyModel:
    """The line that was learned in calm hours, of the old version where it has one of its own."""
    known = lm.load(observation.latency_model)
    own = [model for key, model in known.items() if key.startswith(f"{release.old}/")]
    any_version = [model for key, model in known.items() if key.startswith("?/")]
    return next(iter((*own, *any_version)), LatencyModel())


def _came_in(release: Release, incident: Incident, observation: Observation) -> str:
    """Who brought it in, and when, beside the onset."""
    at = datetime.fromtimestamp(release.at_s, UTC).strftime("%H:%M:%S")
    before_s = hurts_since(incident, observation) - release.at_s
    when = f"{before_s:.0f} s before this began" if before_s >= 1 else "as this began"
    note = f" ({release.note})" if release.note else ""
    return f"version {release.new}{note} replaced version {release.old} at {at} UTC by other hands, {when}"


# What moved -----------------------------------------------------------------------------------------------------------


def _service_time(
    release: Release, sides: Sides, load: float | None, learned: LatencyModel
) -> Moved | None:
    for rows, time, words in _WORK:
        if {rows, time} <= set(sides.before.values) and {rows, time} <= set(sides.after.values):
            line = st.line(sides.before, rows, time, sides.rate_window_s)
            if time == "batch_ms":
                line = st.with_slope(line, learned)
            told, found = _at_equal_size(release, sides, line, rows, time, words)
            if not told:
                found = _at_equal_load(release, sides, load, time, line)
                found = found or (_by_row(release, sides, rows, time, line) if time == "batch_ms" else None)
            return found
    alone = next((name for name in ("batch_ms", "mean_ms", "p50_ms", "p95_ms") if _both(sides, name)), None)
    return _at_equal_load(release, sides, load, alone, LatencyModel()) if alone is not None else None


def _both(sides: Sides, name: str) -> bool:
    return all(name in side.values and np.isfinite(side.values[name]).any() for side in (sides.before, sides.after))


def _at_equal_size(
    release: Release, sides: Sides, line: LatencyModel, rows: str, time: str, words: str
) -> tuple[bool, Moved | None]:
    """The new version's times against the old one's line at the sizes of now; and whether that tells: the load may have
    made batches of sizes whose time with the old version is a guess."""
    at = rs.median(sides.after.values[rows])
    if not line.known or at is None or math.sqrt(st.doubt(line, at)) > th.RELEASE_DOUBT:
        return False, None
    level = st.shift(*(st.log_ratio(side, line, rows, time) for side in (sides.before, sides.after)))
    if level is None:
        return False, None
    level = level.shifted(0.0, st.doubt(line, at))
    if not st.slower(level) or not rs.begins(sides, st.log_ratio(sides.whole, line, rows, time)):
        return True, None
    slower = st.interval(level)
    new = rs.median(sides.after.values[time]) or 0.0
    return True, Moved(
        "service_time",
        f"{words.format(at=at)} takes {ms(new)} with version {release.new} and took {ms(new / slower.value)} with "
        f"version {release.old}: {st.times(slower)}, at the same size, so that the load does not explain it",
        slower,
    )


def _at_equal_load(
    release: Release, sides: Sides, load: float | None, time: str, line: LatencyModel
) -> Moved | None:
    """Where sizes cannot be compared: no more is asked for than before, so nothing else makes it take longer."""
    if not rs.equal(load) or not rs.same_limit(sides):
        return None
    before, after = (st.logs(side.values[time]) for side in (sides.before, sides.after))
    level = st.shift(before, after)
    if level is None or not st.slower(level) or not rs.begins(sides, st.logs(sides.whole.values[time])):
        return None
    old, new = math.exp(float(np.nanmean(before))), math.exp(float(np.nanmean(after)))
    slower = _of_one_size(sides, line, new) if time == "batch_ms" else None
    slower = slower or st.interval(level)
    size = " for a batch of one size" if time == "batch_ms" else ""
    return Moved(
        "service_time",
        f"the {title(time)} is {ms(new)} with version {release.new} and was {ms(old)} with version {release.old}, "
        f"while no more is asked for than before: {st.times(slower)}{size}",
        slower,
    )


def _by_row(release: Release, sides: Sides, rows: str, time: str, line: LatencyModel) -> Moved | None:
    """Where neither sizes nor loads can be compared: a larger batch takes no longer than its rows in batches of the old
    size would, one after another. Where each row takes longer in larger batches than it did in smaller ones, more load
    does not explain that; by how much it understates the version."""
    sizes = [rs.median(side.values[rows]) for side in (sides.before, sides.after)]
    if not sizes[0] or sizes[1] is None or sizes[1] < sizes[0] or not rs.same_limit(sides):
        return None
    each = [st.logs(side.values[time] / side.values[rows]) for side in (sides.before, sides.after, sides.whole)]
    level = st.shift(each[0], each[1])
    if level is None or not st.slower(level) or not rs.begins(sides, each[2]):
        return None
    old, new = (rs.median(side.values[time]) or 0.0 for side in (sides.before, sides.after))
    least = st.interval(level)
    guess = _of_one_size(sides, line, new)
    most = max(new / old, least.high)
    value = min(max(guess.value, least.value), most) if guess is not None else math.sqrt(least.value * most)
    return Moved(
        "service_time",
        f"a batch of {sizes[1]:.3g} rows takes {ms(new)} with version {release.new}, and one of {sizes[0]:.3g} rows "
        f"took {ms(old)} with version {release.old}: each row takes {least.value:.1f} times as long "
        f"({least.low:.1f} to {least.high:.1f}), and larger batches make no row longer",
        Interval(value=value, low=least.low, high=most, level=st.NOISE.interval_level),
    )


def _of_one_size(sides: Sides, line: LatencyModel, new_ms: float) -> Interval | None:
    """How many times as long a batch of the new size takes, where the old version never computed one: what a row adds
    to a batch is known as far as its line tells, which may be little."""
    rows = rs.median(sides.after.values.get("rows_per_batch"))
    if rows is None or not line.known:
        return None
    weight, old_ms = line.at(max(1.0, rows))
    order = np.argsort(new_ms / old_ms)
    low, middle, high = np.interp(th.RELEASE_QUANTILES, np.cumsum(weight[order]), (new_ms / old_ms)[order])
    return Interval(value=float(middle), low=float(low), high=float(high), level=st.NOISE.interval_level)


def _errors(
    release: Release, sides: Sides, observation: Observation, load: float | None, *, overloaded: bool, slower: bool
) -> Moved | None:
    """More failed requests. A full queue refuses, whatever the version: only what a slower version filled counts."""
    refuses = overloaded and not slower and not rs.equal(load) and not rs.could_carry(sides)
    if not _both(sides, "error_rate") or refuses:
        return None
    found = st.share_rise(sides, "error_rate")
    allowed = max(observation.service.slo.error_rate, th.RELEASE_ERRORS)
    if found is None or found.new <= allowed or not found.beyond(th.RELEASE_ERRORS):
        return None
    if not rs.begins(sides, sides.whole.values["error_rate"], th.RELEASE_ERRORS, found.counted):
        return None
    return Moved(
        "errors",
        f"{found.new:.1%} of requests fail with version {release.new} and {found.old:.1%} did with version "
        f"{release.old} ({found.text()} points)",
    )


def _quality(release: Release, sides: Sides, observation: Observation, signal: str) -> Moved | None:
    if not _both(sides, signal):
        return None
    found, least = st.share_rise(sides, signal), observation.service.slo.accuracy_drop
    if found is None or not found.beyond(-least):
        return None
    if not rs.begins(sides, -sides.whole.values[signal], least, found.counted):
        return None
    return Moved(
        signal,
        f"{signal} is {found.new:.2%} with version {release.new} and was {found.old:.2%} with version {release.old} "
        f"({found.text()} points)",
    )
