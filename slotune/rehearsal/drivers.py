"""What a history says of a service that no setting changes: the load, how fast it computes, what it loses.

Pure. The load is what was answered and what joined the queue; the time of a batch is the line that the latency engine
learns from the whole history, times how slow each moment was against it. Rates are over a window that ends at their
time, so each is taken for the middle of its window: a rehearsal knows the whole history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, MetricWindow, Service
from tuning.planning import latency_model as lm
from tuning.planning import thresholds as th
from tuning.planning.latency_model import LatencyModel
from tuning.planning.speed import points
from tuning.planning.whatif import Lane, simulate, split_cv2

DESIRED, INT8 = "desired_replicas", "int8"
"""Columns that a recording may have beside signals: replicas asked for, and whether INT8 is served (0 or 1)."""
_NEEDED = ("qps", "p95_ms", "batch_ms")
_DESIRED_WITHIN_S = 3600.0
"""Without the number asked for, a replica that is missing for longer than this is not missed any more."""
_OVERLOAD_DEPTH, _OVERLOAD_BUSY = 0.85, 0.95
"""Errors at this share of the longest queue seen, on a server this busy, are requests that the queue refused."""
_SLOW_RANGE = (0.1, 20.0)
_ONE_PACE, _NEAR = 0.8, 0.12
"""One pace explains a history where this share of its points is as near to it (logarithm) as that."""
_NEIGHBOURS, _OUTLIER = 9, 4.0
_KAPPAS = np.linspace(0.0, 1.0, 41)
_CALM_LOAD, _CALM_POINTS = 0.7, 12
_LEAN = 0.5
"""Of shapes that explain as much the flatter one: most models gain by batching."""


@dataclass(frozen=True)
class Knobs:
    """One setting. batch: rows at most in a batch. desired: replicas asked for."""

    batch: int
    timeout_ms: float
    desired: int
    int8: bool = False


@dataclass(frozen=True)
class Drivers:
    """One service's history as causes, an entry per grid point for the step that ends there; all of shape (n,).

    rate: requests per second that came. cv2: squared variation of their gaps. failed: share that failed whatever the
    setting. slow: batch time over the learned line. ready: replicas that ran. desired: that were asked for. batch,
    timeout_ms, int8: the setting. waiting: requests in the queues at the step's end. known: whether load and speed were
    recorded there (elsewhere the last known values stand).
    model: the line, for `int8_first` or FP32. overhead_ms: latency outside queue and batch. queue_limit: requests that
    may wait at one replica (None: no refusal was seen).
    """

    step_s: float
    rate: FloatArray
    cv2: FloatArray
    failed: FloatArray
    slow: FloatArray
    ready: FloatArray
    desired: FloatArray
    batch: FloatArray
    timeout_ms: FloatArray
    int8: FloatArray
    waiting: FloatArray
    known: FloatArray
    model: LatencyModel
    spread: float
    overhead_ms: float
    queue_limit: int | None

    def knobs(self, index: int) -> Knobs:
        """The recorded setting at a grid point."""
        return Knobs(
            int(self.batch[index]), float(self.timeout_ms[index]), int(self.desired[index]), self.int8[index] > 0
        )


def missing(window: MetricWindow) -> tuple[str, ...]:
    """The signals without which no service can be modelled and that this history does not have."""
    return tuple(name for name in _NEEDED if not _has(window, name))


def drivers(window: MetricWindow, service: Service, rate_window_s: float) -> Drivers:
    """The causes behind a history that has everything of `missing`. rate_window_s: of the rates in it."""
    points_, step_s = window.span.points, window.span.step_s
    shift = max(0, round(rate_window_s / 2 / step_s))
    batch = _held(window, "batch_size", max(1.0, float(np.nanmax(_rows(window), initial=1.0))))
    ready = np.maximum(_held(window, "replicas", 1.0), 0.0)
    desired = np.maximum(_desired(window, ready, step_s), 1.0)
    int8 = _held(window, INT8, 0.0)
    model = _line(window, rate_window_s)
    rows = np.clip(_rows(window), 1.0, None)
    with np.errstate(invalid="ignore", divide="ignore"):
        slow = window.values["batch_ms"] / _predicted(model, rows)
    waiting = _waiting(window)
    failed, limit = _refusals(window, waiting, ready, max(1, round(rate_window_s / step_s)))
    came = _came(window, waiting, step_s, rate_window_s)
    known = np.isfinite(came) & np.isfinite(slow)
    found = Drivers(
        step_s=step_s,
        rate=np.maximum(_filled(_earlier(came, shift), 0.0), 0.0),
        cv2=np.clip(_filled(_smooth(_of(window, "arrival_cv2", points_), 9), 1.0), *th.CV2_RANGE),
        failed=np.clip(_filled(_earlier(failed, shift), 0.0), 0.0, 1.0),
        slow=np.clip(_filled(_earlier(slow, shift), 1.0), *_SLOW_RANGE),
        ready=ready,
        desired=desired,
        batch=np.maximum(batch, 1.0),
        timeout_ms=np.maximum(_held(window, "batch_timeout_ms", 0.0), 0.0),
        int8=int8,
        waiting=np.maximum(_filled(waiting, 0.0), 0.0),
        known=known.astype(np.float64),
        model=model,
        spread=_spread(window),
        overhead_ms=0.0,
        queue_limit=limit,
    )
    return replace(found, overhead_ms=_overhead_ms(window, found))


def _has(window: MetricWindow, name: str) -> bool:
    return name in window.values and bool(np.isfinite(window.values[name]).any())


def _of(window: MetricWindow, name: str, size: int) -> FloatArray:
    return window.values[name] if name in window.values else np.full(size, np.nan)


def _rows(window: MetricWindow) -> FloatArray:
    """Rows of a batch; 1 where they are not recorded."""
    found = _of(window, "rows_per_batch", window.span.points)
    return found if np.isfinite(found).any() else np.ones(window.span.points)


def _held(window: MetricWindow, name: str, default: float) -> FloatArray:
    """A gauge with its gaps filled by what stood before (the first number before it stood at all)."""
    return _filled(_of(window, name, window.span.points), default)


def _filled(values: FloatArray, default: float) -> FloatArray:
    good = np.flatnonzero(np.isfinite(values))
    if not good.size:
        return np.full(values.size, default)
    place = np.clip(np.searchsorted(good, np.arange(values.size), side="right") - 1, 0, None)
    return np.asarray(values[good[place]], dtype=np.float64)


def _earlier(values: FloatArray, shift: int) -> FloatArray:
    """What is seen `shift` points later: a rate's window ends at its time."""
    return np.concatenate([values[shift:], np.full(shift, np.nan)]) if shift else values


def _smooth(values: FloatArray, width: int) -> FloatArray:
    """Running median over `width` points, gaps left out; the ends by what is there."""
    padded = np.concatenate([np.full(width // 2, np.nan), values, np.full(width // 2, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    found = np.full(values.size, np.nan)
    some = np.isfinite(windows).any(axis=1)
    found[some] = np.nanmedian(windows[some], axis=1)
    return found


def _desired(window: MetricWindow, ready: FloatArray, step_s: float) -> FloatArray:
    """As recorded; else the most that ran within the last hour."""
    if _has(window, DESIRED):
        return _held(window, DESIRED, 1.0)
    width = max(1, round(_DESIRED_WITHIN_S / step_s))
    padded = np.concatenate([np.full(width - 1, ready[0]), ready])
    return np.asarray(_running_max(padded, width), dtype=np.float64)


def _running_max(values: FloatArray, width: int) -> FloatArray:
    """The largest of every `width` neighbours, by doubling."""
    found, have = values, 1
    while have < width:
        more = min(have, width - have)
        found, have = np.maximum(found[:-more], found[more:]), have + more
    return found


def _line(window: MetricWindow, rate_window_s: float) -> LatencyModel:
    """The line of the whole history, from a point per rate window as the engine learns it, picked from all of it.

    A history may hold slow hours, another version, a slow end: what is learned is how batch times depend on their rows,
    at the pace of the moment. Where one pace explains nearly all points the others are left out; else each point is
    taken at the pace of its neighbours.
    """
    seen = points(window, math.inf, rate_window_s)
    most = int(4 * th.POINTS_MAX)
    if not seen:
        rows, took = _rows(window), window.values["batch_ms"]
        good = np.flatnonzero(np.isfinite(took) & (took > 0))
        return LatencyModel().add(float(np.nanmedian(rows)), float(np.median(took[good])), 0.0)
    rows, took = np.array([p[1] for p in seen]), np.array([p[2] for p in seen])
    share, near = _one_pace(rows, took)
    if share < _ONE_PACE:
        pace = took / _shape(_kappa_of_neighbours(rows, took), rows)
        local = _smooth(pace, _NEIGHBOURS)
        took, near = took / local * float(np.median(pace)), np.ones(rows.size, dtype=bool)
    chosen = np.flatnonzero(near)
    chosen = chosen[np.unique(np.linspace(0, chosen.size - 1, min(most, chosen.size)).round().astype(int))]
    # Mixed (golden ratio), so that the order in which loads came is no trend.
    mixed = chosen[np.argsort(np.arange(chosen.size) * 0.618034 % 1.0)]
    return lm.learn(LatencyModel(), [(k + 1.0, float(rows[i]), float(took[i])) for k, i in enumerate(mixed)])


def _shape(kappa: float, rows: FloatArray) -> FloatArray:
    """s(b) / s(1) of a line (see tuning.planning.latency_model)."""
    return np.asarray((1 - kappa) + kappa * rows, dtype=np.float64)


def _one_pace(rows: FloatArray, took: FloatArray) -> tuple[float, NDArray[np.bool_]]:
    """The share of points that one line explains to _NEAR, and which: of all shapes the best."""
    best = -1.0, np.ones(rows.size, dtype=bool)
    for kappa in _KAPPAS:
        pace = np.log(took / _shape(kappa, rows))
        near = np.abs(pace - np.median(pace)) <= _NEAR
        if near.mean() > best[0]:
            best = float(near.mean()), near
    return best


def _kappa_of_neighbours(rows: FloatArray, took: FloatArray) -> float:
    """The shape that explains best how batch times change from one point to the next, where their pace hardly does;
    a change of pace is an outlier that counts up to a bound."""
    moved = np.diff(np.log(took))
    losses = []
    for kappa in _KAPPAS:
        left = moved - np.diff(np.log(_shape(kappa, rows)))
        losses.append(float(np.minimum((left / (2 * th.BATCH_NOISE)) ** 2, _OUTLIER).sum()) + _LEAN * kappa)
    return float(_KAPPAS[int(np.argmin(losses))])


def _predicted(model: LatencyModel, rows: FloatArray) -> FloatArray:
    curve = model.curve()
    return np.asarray(curve.alpha_ms + curve.beta_ms * rows, dtype=np.float64)


def _waiting(window: MetricWindow) -> FloatArray:
    """Requests in the queues: as counted, else by Little's law from their mean wait."""
    if _has(window, "queue_depth"):
        return window.values["queue_depth"]
    if _has(window, "queue_ms"):
        return np.asarray(window.values["queue_ms"] / 1e3 * window.values["qps"], dtype=np.float64)
    return np.full(window.span.points, np.nan)


def _came(window: MetricWindow, waiting: FloatArray, step_s: float, rate_window_s: float) -> FloatArray:
    """Answered and what joined the queue, over the same window: exact where the queue is counted."""
    width = max(1, round(rate_window_s / step_s))
    growth = np.zeros(waiting.size)
    growth[width:] = (waiting[width:] - waiting[:-width]) / (width * step_s)
    return np.asarray(window.values["qps"] + np.where(np.isfinite(growth), growth, 0.0), dtype=np.float64)


def _refusals(
    window: MetricWindow, waiting: FloatArray, ready: FloatArray, width: int
) -> tuple[FloatArray, int | None]:
    """Errors that no setting cures, and the limit of a replica's queue where full queues refused requests.

    A gauge of the queue is a sample, and the share of errors is of a whole window (`width` points): a queue was full
    where it was within a window of that time. What fails there beyond the usual is what the queue refused.
    """
    errors = _of(window, "error_rate", window.span.points)
    each = waiting / np.maximum(ready, 1.0)
    most = float(np.nanmax(each)) if np.isfinite(each).any() else 0.0
    busy = _of(window, "busy", window.span.points)
    around = np.concatenate([np.zeros(width), np.nan_to_num(each), np.zeros(width)])
    full = (_running_max(around, 2 * width + 1) >= _OVERLOAD_DEPTH * most) & ~(busy < _OVERLOAD_BUSY)
    full &= (errors > 0) & (most >= 1.0)
    if not full.any():
        return errors, None
    rest = errors[~full & np.isfinite(errors)]
    usual = float(np.median(rest)) if rest.size else 0.0
    return np.where(full, np.minimum(errors, usual), errors), max(1, math.ceil(most))


def _spread(window: MetricWindow) -> float:
    """Coefficient of variation of single batches of one size, in its usual range."""
    found = _of(window, "batch_cv2", window.span.points)
    known = found[np.isfinite(found)]
    cv = math.sqrt(max(0.0, float(np.median(known)))) if known.size else 0.1
    return float(np.clip(cv, *th.SPREAD_RANGE))


def _overhead_ms(window: MetricWindow, found: Drivers) -> float:
    """Latency outside queue and batch: what the measured mean has beyond the modelled one, at calm moments.

    The mean less the mean wait and the mean batch would be more: a request is likelier to be in a large batch.
    """
    if not _has(window, "mean_ms"):
        return 0.0
    measured, curve = window.values["mean_ms"], found.model.curve()
    took_s = (curve.alpha_ms + curve.beta_ms * found.batch) * found.slow / 1e3
    load = found.rate * took_s / (found.batch * np.maximum(found.ready, 1.0))
    calm = np.flatnonzero((load > 0.02) & (load < _CALM_LOAD) & (found.known > 0) & np.isfinite(measured))
    if calm.size < _CALM_POINTS:
        return 0.0
    chosen = calm[np.linspace(0, calm.size - 1, _CALM_POINTS).round().astype(int)]
    lanes = [
        Lane(
            qps=float(found.rate[i] / max(found.ready[i], 1.0)), cv2=split_cv2(float(found.cv2[i]), found.ready[i]),
            batch=int(found.batch[i]), timeout_s=float(found.timeout_ms[i]) / 1e3, spread=found.spread,
            alpha_s=curve.alpha_ms * found.slow[i] / 1e3, beta_s=curve.beta_ms * found.slow[i] / 1e3,
        )
        for i in chosen
    ]  # fmt: skip
    modelled = [one.mean_ms for one in simulate(lanes, batches=1500, seed=1, requests=6000)]
    share, plus_ms = th.OVERHEAD_MAX
    most = share * float(np.nanmedian(window.values["batch_ms"])) + plus_ms
    return float(np.clip(np.median(measured[chosen] - np.array(modelled)), 0.0, most))
