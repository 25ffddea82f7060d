"""Whether a release is to blame: what moved when the version changed, tested against chance and cleared of the load.

A release is suspected where other hands brought it in before the trouble began, nothing was released since, and its
version still serves. It is blamed for what moved then and not before: the time of a batch at equal rows, or at equal
load, the share of failed requests, the share of right answers. More load makes batches larger and longer, and a queue
refuses: neither says anything about a version, so both are compared only where the load cannot explain them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, Incident, MetricWindow
from detection.signals import title
from tuning.formats import ms
from tuning.model import Interval, Observation, Release
from tuning.planning import latency_model as lm
from tuning.planning import thresholds as th
from tuning.planning.latency_model import LatencyModel
from tuning.planning.settings import PlanningSettings
from tuning.verification.autocorrelation import Level, Side, shift
from tuning.verification.settings import VerificationSettings

_NOISE = VerificationSettings()
"""The noise that verdicts assume at least, and how much autocorrelation they expect."""
_WORK = (
    ("rows_per_batch", "batch_ms", "a batch of {at:.3g} rows"),
    ("running", "itl_ms", "a token, with {at:.3g} requests running,"),
)
"""(how much is computed at once, how long that takes, and how people call it)."""
_QUALITY = ("accuracy", "agreement")
BoolArray = NDArray[np.bool_]


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


@dataclass(frozen=True)
class _Sides:
    """The window before and after a release; onset: the stretch within which what it moved begins (epoch seconds)."""

    whole: MetricWindow
    before: MetricWindow
    after: MetricWindow
    onset: tuple[float, float]
    rate_window_s: float


def suspect(incident: Incident, observation: Observation) -> Release | None:
    """The release that may be to blame: the newest one, by other hands, from before the trouble, and still in force."""
    if not observation.releases:
        return None
    newest = observation.releases[-1]
    late_s = th.RELEASE_SEEN_STEPS * observation.window.span.step_s
    if newest.hands != "others" or newest.at_s > hurts_since(incident) + late_s:
        return None
    shown = observation.settings.get("release")
    if shown is not None and shown.values.get("version") != newest.new:
        return None
    return newest


def hurts_since(incident: Incident) -> float:
    """When what hurts began: what is only unusual (the traffic) may have begun before."""
    hurting = [a.since_s for a in incident.anomalies if a.tier == "act"]
    return min(hurting, default=incident.opened_at_s)


def blamed(
    incident: Incident, observation: Observation, settings: PlanningSettings, *, saturated: bool
) -> Blamed | None:
    """The release to blame with what moved, None where none is. saturated: requests wait, or the service never rests.

    Pure. Without points on both sides of the release nothing is blamed.
    """
    release = suspect(incident, observation)
    if release is None:
        return None
    sides = _sides(release, observation, settings)
    if sides is None:
        return None
    load = _load(sides)
    slow = _service_time(release, sides, load)
    found = [slow, _errors(release, sides, observation, load, saturated=saturated, slower=slow is not None)]
    found += [_quality(release, sides, observation, signal) for signal in _QUALITY]
    moved = tuple(one for one in found if one is not None)
    return Blamed(release, moved, _came_in(release, incident)) if moved else None


def _came_in(release: Release, incident: Incident) -> str:
    """Who brought it in, and when, beside the onset."""
    at = datetime.fromtimestamp(release.at_s, UTC).strftime("%H:%M:%S")
    before_s = hurts_since(incident) - release.at_s
    when = f"{before_s:.0f} s before this began" if before_s >= 1 else "as this began"
    note = f" ({release.note})" if release.note else ""
    return f"version {release.new}{note} replaced version {release.old} at {at} UTC by other hands, {when}"


def _sides(release: Release, observation: Observation, settings: PlanningSettings) -> _Sides | None:
    window, step_s = observation.window, observation.window.span.step_s
    earlier = [one.whole_s or one.at_s for one in observation.releases if one.at_s < release.at_s]
    since_s = max([release.at_s - th.RELEASE_BEFORE_S, *(s + settings.rate_window_s for s in earlier)])
    until_s = release.at_s - step_s
    before = window.between(since_s, until_s)
    if before.span.points < th.RELEASE_POINTS and observation.history is not None:
        before = observation.history.between(max(since_s, release.at_s - th.BASELINE_HISTORY_S), until_s)
    whole_s = min(release.whole_s or release.at_s, release.at_s + th.RELEASE_ROLLOUT_S)
    settled_s = min(whole_s + settings.rate_window_s, window.span.end_s - th.SETTLED_STEPS * step_s)
    after = window.between(settled_s, window.span.end_s)
    if min(before.span.points, after.span.points) < th.LEVEL_POINTS or after.span.start_s < release.at_s:
        return None
    slack_s = th.RELEASE_SEEN_STEPS * step_s
    window_s = settings.rate_window_s
    return _Sides(window, before, after, (release.at_s - slack_s, whole_s + 2 * window_s + slack_s), window_s)


# The load -------------------------------------------------------------------------------------------------------------


def _load(sides: _Sides) -> float | None:
    """Requests that come per second and replica, after over before; None where it cannot be told.

    What comes is what is answered plus the growth of the queue. Without the queue's length a service that is as busy as
    it can be hides what comes.
    """
    old, new = (_came(side) for side in (sides.before, sides.after))
    if not old or new is None:
        return None
    replicas = [_median(side.values.get("replicas")) for side in (sides.before, sides.after)]
    share = replicas[0] / replicas[1] if replicas[0] and replicas[1] else 1.0
    return new / old * share


def _came(side: MetricWindow) -> float | None:
    rate, depth = _median(side.values.get("qps")), side.values.get("queue_depth")
    if rate is None or depth is None:
        return rate
    known = np.flatnonzero(np.isfinite(depth))
    if known.size < 2:
        return rate
    grown = float(depth[known[-1]] - depth[known[0]]) / (float(known[-1] - known[0]) * side.span.step_s)
    return rate + max(0.0, grown)


def _equal(load: float | None) -> bool:
    """No more load than before, as far as noise goes: less of it slows nothing down."""
    return load is not None and math.log(max(load, 1e-9)) <= th.MOVED


# What moved -----------------------------------------------------------------------------------------------------------


def _service_time(release: Release, sides: _Sides, load: float | None) -> Moved | None:
    for rows, time, words in _WORK:
        if {rows, time} <= set(sides.before.values) and {rows, time} <= set(sides.after.values):
            told, found = _at_equal_rows(release, sides, rows, time, words)
            return found if told else _at_equal_load(release, sides, load, time)
    alone = next((name for name in ("batch_ms", "mean_ms", "p50_ms", "p95_ms") if _both(sides, name)), None)
    return _at_equal_load(release, sides, load, alone) if alone is not None else None


def _both(sides: _Sides, name: str) -> bool:
    return all(name in side.values and np.isfinite(side.values[name]).any() for side in (sides.before, sides.after))


def _at_equal_rows(
    release: Release, sides: _Sides, rows: str, time: str, words: str
) -> tuple[bool, Moved | None]:
    """Both versions' lines, compared at the number of rows at which they are best known together; and whether that
    tells: the load may have made batches of sizes that one of them never computed."""
    both = (sides.before, sides.after)
    lines = [_line(side, rows, time, sides.rate_window_s) for side in both]
    seen = [_median(side.values[rows]) for side in both]
    if not all(line.known for line in lines) or seen[0] is None or seen[1] is None:
        return False, None
    sizes = np.unique(np.maximum(1.0, np.linspace(min(seen[0], seen[1]), max(seen[0], seen[1]), th.RELEASE_SIZES)))
    doubts = [sum(_doubt(line, float(at)) for line in lines) for at in sizes]
    at, doubt = float(sizes[int(np.argmin(doubts))]), float(min(doubts))
    level = _shift(*(_log_ratio(side, line, rows, time) for side, line in zip(both, lines, strict=True)))
    if level is None or math.sqrt(doubt) > th.RELEASE_DOUBT:
        return False, None
    old, new = (line.predict(at)[0] for line in lines)
    level = level.shifted(math.log(new / old), doubt)
    if not _slower(level) or not _begins(sides, _log_ratio(sides.whole, lines[0], rows, time)):
        return True, None
    told, slower = _interval(level)
    return True, Moved(
        "service_time",
        f"{words.format(at=at)} takes {ms(new)} with version {release.new} and took {ms(old)} with version "
        f"{release.old}: {told}, at the same size, so that the load does not explain it",
        slower,
    )


def _at_equal_load(release: Release, sides: _Sides, load: float | None, time: str) -> Moved | None:
    """Where sizes cannot be compared: no more is asked for than before, so nothing else makes it take longer."""
    if not _equal(load) or not _same_limit(sides):
        return None
    before, after = (_logs(side.values[time]) for side in (sides.before, sides.after))
    level = _shift(before, after)
    if level is None or not _slower(level) or not _begins(sides, _logs(sides.whole.values[time])):
        return None
    old, new = math.exp(float(np.nanmean(before))), math.exp(float(np.nanmean(after)))
    told, slower = _interval(level)
    return Moved(
        "service_time",
        f"the {title(time)} is {ms(new)} with version {release.new} and was {ms(old)} with version {release.old}: "
        f"{told}, while no more is asked for than before",
        slower,
    )


def _same_limit(sides: _Sides) -> bool:
    """A larger batch limit makes batches longer by itself."""
    limits = [_median(side.values.get("batch_size")) for side in (sides.before, sides.after)]
    return limits[0] is None or limits[1] is None or limits[1] <= limits[0]


def _errors(
    release: Release, sides: _Sides, observation: Observation, load: float | None, *, saturated: bool, slower: bool
) -> Moved | None:
    """More failed requests. A full queue refuses, whatever the version: only what a slower version filled counts."""
    if not _both(sides, "error_rate") or (saturated and not slower and not _equal(load)):
        return None
    old, new = (float(np.nanmean(side.values["error_rate"])) for side in (sides.before, sides.after))
    allowed = max(observation.service.slo.error_rate, th.RELEASE_ERRORS)
    noise = [_share_noise(side, "error_rate", sides.rate_window_s) for side in (sides.before, sides.after)]
    shares = [side.values["error_rate"] for side in (sides.before, sides.after)]
    level = _shift(*shares, floor=th.SHARE_NOISE, noise=noise)
    if new <= allowed or level is None or level.below(th.RELEASE_ERRORS) > 1 - th.RELEASE_SURE:
        return None
    if not _begins(sides, sides.whole.values["error_rate"], least=th.RELEASE_ERRORS):
        return None
    low, high = level.interval(_NOISE.interval_level)
    return Moved(
        "errors",
        f"{new:.1%} of requests fail with version {release.new} and {old:.1%} did with version {release.old} "
        f"({100 * level.mean:+.1f} points, {100 * low:.1f} to {100 * high:.1f})",
    )


def _quality(release: Release, sides: _Sides, observation: Observation, signal: str) -> Moved | None:
    if not _both(sides, signal):
        return None
    old, new = (float(np.nanmean(side.values[signal])) for side in (sides.before, sides.after))
    least = observation.service.slo.accuracy_drop
    noise = [_share_noise(side, signal, sides.rate_window_s) for side in (sides.before, sides.after)]
    shares = [side.values[signal] for side in (sides.before, sides.after)]
    level = _shift(*shares, floor=th.SHARE_NOISE, noise=noise)
    if level is None or 1 - level.below(-least) > 1 - th.RELEASE_SURE:
        return None
    if not _begins(sides, -sides.whole.values[signal], least=least):
        return None
    low, high = level.interval(_NOISE.interval_level)
    return Moved(
        signal,
        f"{signal} is {new:.2%} with version {release.new} and was {old:.2%} with version {release.old} "
        f"({100 * level.mean:+.2f} points, {100 * low:.2f} to {100 * high:.2f})",
    )


# Statistics -----------------------------------------------------------------------------------------------------------


def _line(side: MetricWindow, rows: str, time: str, rate_window_s: float) -> LatencyModel:
    """The line of one side; rates over one window are no independent measurements, so one a window counts."""
    times, sizes, lengths = side.span.times(), side.values[rows], side.values[time]
    good = np.flatnonzero(np.isfinite(sizes) & np.isfinite(lengths) & (lengths > 0) & (sizes > 0))
    stride = max(1, round(rate_window_s / side.span.step_s))
    kept = good[::-1][::stride][::-1] if good.size >= stride * th.LEVEL_POINTS else good
    return lm.learn(LatencyModel(), [(float(times[i]), max(float(sizes[i]), 1e-3), float(lengths[i])) for i in kept])


def _doubt(line: LatencyModel, at: float) -> float:
    """Relative variance of a line at a size."""
    mean, sd = line.predict(at)
    return (sd / mean) ** 2


def _log_ratio(side: MetricWindow, line: LatencyModel, rows: str, time: str) -> FloatArray:
    """Logarithm of what was measured over what the line says at the same size, NaN for gaps."""
    sizes, lengths = side.values[rows], side.values[time]
    expected = np.array([line.predict(float(n))[0] if np.isfinite(n) and n > 0 else np.nan for n in sizes])
    return _logs(lengths / expected)


def _logs(values: FloatArray) -> FloatArray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan), dtype=np.float64)


def _shift(
    before: FloatArray, after: FloatArray, *, floor: float | None = None, noise: Sequence[float] = (0.0, 0.0)
) -> Level | None:
    sides = Side(before, noise[0]), Side(after, noise[1])
    if min(side.finite for side in sides) < th.LEVEL_POINTS:
        return None
    return shift(
        *sides,
        history=None,
        prior=_NOISE.phi_prior,
        noise_floor=_NOISE.noise_floor if floor is None else floor,
    )[0]


def _slower(level: Level) -> bool:
    return level.below(math.log(th.RELEASE_SLOWER)) <= 1 - th.RELEASE_SURE


def _interval(level: Level) -> tuple[str, Interval]:
    low, high = (math.exp(end) for end in level.interval(_NOISE.interval_level))
    found = Interval(value=math.exp(level.mean), low=low, high=high, level=_NOISE.interval_level)
    return f"{found.value:.1f} times as long ({low:.1f} to {high:.1f})", found


def _share_noise(side: MetricWindow, signal: str, rate_window_s: float) -> float:
    """Variance of one point of a share that was counted over a rate window's requests."""
    share, rate = float(np.nanmean(side.values[signal])), _median(side.values.get("qps"))
    requests = (rate or 0.0) * rate_window_s
    return share * (1 - share) / requests if requests > 0 else 0.0


def _begins(sides: _Sides, values: FloatArray, least: float = math.log(th.RELEASE_SLOWER)) -> bool:
    """Whether what moved up began with the release: not before it, and not much later by something else.

    A brief excursion long before says nothing: it is the last stretch, which lasts until now, that is placed.
    """
    times, known = sides.whole.span.times(), np.isfinite(values)
    calm = values[known & (times < sides.onset[0])]
    if calm.size < th.LEVEL_POINTS:
        return True  # what was before it is known from the history alone, which cannot place it
    middle = float(np.median(calm))
    spread = 1.4826 * float(np.median(np.abs(calm - middle)))  # of a normal scatter, by its median deviation
    high = values[known] > middle + max(th.RELEASE_SCATTER * spread, least / 2)
    began_s = _lasting_start(times[known], high)
    return began_s is not None and sides.onset[0] <= began_s <= sides.onset[1]


def _lasting_start(times: FloatArray, high: BoolArray) -> float | None:
    """When the stretch began that lasts until the end, with most of its points high; None where the end is not."""
    if not high[-th.LEVEL_POINTS :].any():
        return None
    share = np.cumsum(high[::-1].astype(float)) / np.arange(1, high.size + 1)
    lasting = np.flatnonzero((share >= th.RELEASE_LASTING) & high[::-1])
    return float(times[high.size - 1 - lasting[-1]]) if lasting.size else None


def _median(values: FloatArray | None) -> float | None:
    if values is None:
        return None
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None
