"""From an observation to the numbers that the what-if needs: load, burstiness, speed, capacity, backlog, baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from detection.model import FloatArray, Incident, MetricWindow
from tuning.model import Interval, Observation
from tuning.planning import latency_model as lm
from tuning.planning.forecast import Forecast, forecast, trend_start
from tuning.planning.latency_model import LatencyModel
from tuning.planning.reading import Reading, first, number, read_now
from tuning.planning.settings import PlanningSettings


@dataclass(frozen=True)
class Baseline:
    """The service before the incident: medians; None where it is not known."""

    qps: float | None = None
    batch_ms: float | None = None
    rows_per_batch: float | None = None
    queue_ms: float | None = None
    p95_ms: float | None = None
    replicas: float | None = None
    batch_size: float | None = None
    busy: float | None = None
    batch_cv: float | None = None
    points: int = 0


@dataclass(frozen=True)
class Situation:
    """Everything derived. Rates per second, times in ms; `model` is the line as it runs NOW (slowdown included).

    arrivals: the rate at which requests come, which under saturation is more than what is answered. slow: the present
    service time over the learned one (1: as learned; None: no line was learned before). slow_sd: its relative standard
    error. batch_cv: variation of batch times that comes and goes, on top of the model's spread. replica_slow:
    relative batch time of each replica, () where not exported. rows_per_request: rows that one
    request brings. learned: the models to be kept. overhead_ms: latency outside queue and batch.
    """

    now: Reading
    base: Baseline
    model: LatencyModel
    learned: Mapping[str, LatencyModel]
    model_key: str
    arrivals: Forecast | None
    cv2: float
    slow: float | None = None
    slow_sd: float = 0.0
    batch_cv: float | None = None
    replica_slow: tuple[float, ...] = ()
    backlog: float = 0.0
    overhead_ms: float = 0.0
    rows_per_request: float = 1.0
    version: str = ""
    precision: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def identified(self) -> bool:
        """Whether a what-if is possible at all: a load and a service time."""
        return self.model.known and self.arrivals is not None and self.arrivals.qps.value > 0


def assess(
    incident: Incident | None, observation: Observation, settings: PlanningSettings, changed_s: float = -math.inf
) -> Situation:
    """Derive the situation: the line from what came before the incident, its slowness from what came after.

    changed_s: when a lever of this service was last moved; what is older says nothing about the present setting.
    """
    window = observation.window
    onset = incident.opened_at_s if incident is not None else observation.at_s + 1.0
    fresh = max(onset, changed_s)
    now = read_now(narrowed(observation, fresh, settings), settings)
    version, precision = _served(observation)
    name = lm.key(version, precision)
    learned = lm.load(observation.latency_model)
    calm = _points(observation.history, onset - settings.rate_window_s, settings.rate_window_s)
    calm += _points(window, onset - settings.rate_window_s, settings.rate_window_s)
    kept = lm.learn(learned.get(name, LatencyModel()), sorted(calm))
    after = _points(window, math.inf, settings.rate_window_s / 3, since_s=_settled(window, fresh, settings))
    slow, slow_sd, model = _slowdown(kept, after, observation, now)
    if kept.known:
        learned = {**learned, name: kept}
    elif model.known:
        learned = {**learned, name: model}
    spread = first(spread_of_stats(observation.batch_stats), _calm_spread(observation, onset, settings))
    if spread is not None:
        model = replace(model, spread=spread)
        learned = {**learned, name: replace(learned.get(name, model), spread=spread)}
    per_request = _rows_per_request(now)
    return Situation(
        now=now,
        base=_baseline(observation, onset, kept, settings),
        model=model,
        learned=learned,
        model_key=name,
        arrivals=_arrivals(observation, fresh, now, settings),
        cv2=_cv2(observation, now),
        slow=slow,
        slow_sd=slow_sd,
        batch_cv=_on_top(now, spread, _variation(window, _settled(window, fresh, settings), kept)),
        replica_slow=_replica_slow(observation, fresh, settings),
        backlog=_backlog(now, observation.window),
        overhead_ms=_overhead(now, observation, onset, settings),
        rows_per_request=per_request,
        version=version,
        precision=precision,
    )


def narrowed(observation: Observation, onset: float, settings: PlanningSettings) -> Observation:
    """The observation cut to what lies after the onset (with the rate window gone by, where that leaves 3 points)."""
    window = observation.window
    start = _settled(window, onset, settings)
    if start <= window.span.start_s:
        return observation
    cut = window.between(start, window.span.end_s)
    return Observation(
        service=observation.service,
        window=cut,
        at_s=observation.at_s,
        settings=observation.settings,
        unreadable=observation.unreadable,
    )


def _settled(window: MetricWindow, onset: float, settings: PlanningSettings) -> float:
    """From when on the signals show only what is after the onset; the last 3 points at least."""
    last_three = window.span.end_s - 2 * window.span.step_s
    return min(onset + settings.rate_window_s, last_three)


def _points(
    window: MetricWindow | None, until_s: float, stride_s: float, since_s: float = -math.inf
) -> list[tuple[float, float, float]]:
    """(time, rows, batch_ms) of a window, one per `stride_s`: rates over one window are no independent measurements."""
    if window is None or "batch_ms" not in window.values:
        return []
    times, batch_ms = window.span.times(), window.values["batch_ms"]
    rows = window.values.get("rows_per_batch")
    if rows is None:
        sizes = window.values.get("batch_size")
        # A limit of one row is the only one that tells the rows without counting them.
        rows = np.where(sizes == 1, 1.0, np.nan) if sizes is not None else np.full(batch_ms.shape, np.nan)
    good = np.isfinite(rows) & np.isfinite(batch_ms) & (batch_ms > 0) & (rows >= 1) & (times < until_s)
    good &= times >= since_s - 1e-9
    stride = max(1, round(stride_s / window.span.step_s))
    index = np.flatnonzero(good)[::-1][::stride][::-1]
    return [(float(times[i]), float(rows[i]), float(batch_ms[i])) for i in index]


def _slowdown(
    kept: LatencyModel, after: list[tuple[float, float, float]], observation: Observation, now: Reading
) -> tuple[float | None, float, LatencyModel]:
    """How slow the service is now against the learned line, and the line as it is now."""
    if not kept.known:
        shape = _from_stats(observation)
        model = shape if shape.known else lm.learn(LatencyModel(), after)
        if not model.known and now.batch_ms and now.batch_size == 1:
            model = model.add(1.0, now.batch_ms, observation.at_s)
        return None, 0.0, model
    if not after:
        return None, 0.0, kept
    ratios = np.array([batch_ms / kept.predict(rows)[0] for _, rows, batch_ms in after])
    slow = float(np.median(ratios))
    rows = float(np.median([r for _, r, _ in after]))
    mean, sd = kept.predict(rows)
    error = math.hypot(sd / mean, float(ratios.std()) / math.sqrt(max(1, ratios.size)))
    if abs(slow - 1) <= max(0.1, 2 * error):
        return slow, error, lm.learn(kept, after)
    return slow, error, kept.scaled(slow)


def _from_stats(observation: Observation) -> LatencyModel:
    """A line from per-batch-size statistics (rows, batches, seconds): each size is a point, weighted by its batches."""
    model = LatencyModel()
    stats = [entry for entry in observation.batch_stats if entry[1] > 0 and entry[0] >= 1 and entry[2] > 0]
    total = sum(entry[1] for entry in stats)
    for entry in sorted(stats):
        weight = float(np.clip(20.0 * entry[1] / total, 0.3, 20.0))
        model = model.add(entry[0], 1e3 * entry[2] / entry[1], observation.at_s, weight)
    return model


def spread_of_stats(stats: Sequence[tuple[float, ...]]) -> float | None:
    """Coefficient of variation of single batches of one size, pooled over sizes; None without the sums of squares."""
    squares = [entry for entry in stats if len(entry) > 3 and entry[1] >= 5]
    if not squares:
        return None
    within = sum(max(0.0, entry[3] - entry[2] ** 2 / entry[1]) for entry in squares)
    level = sum(entry[2] ** 2 / entry[1] for entry in squares)
    return float(np.clip(math.sqrt(within / level), 0.02, 0.8)) if level > 0 else None


def _served(observation: Observation) -> tuple[str, str]:
    setting = observation.settings.get("precision")
    if setting is None:
        return "", ""
    return str(setting.values.get("version", "")), str(setting.values.get("precision", ""))


def _baseline(
    observation: Observation, onset: float, kept: LatencyModel, settings: PlanningSettings
) -> Baseline:
    """Medians before the onset: of the look-back where it reaches back 3 points, else of the history."""
    before = observation.window.between(observation.window.span.start_s, onset - settings.rate_window_s)
    source = before if before.span.points >= 3 and before.values else None
    if source is None and observation.history is not None:
        source = observation.history.between(onset - 6 * 3600.0, onset - settings.rate_window_s)
    if source is None or source.span.points < 3:
        return Baseline()

    def level(signal: str) -> float | None:
        values = source.values.get(signal)
        finite = values[np.isfinite(values)] if values is not None else np.empty(0)
        return float(np.median(finite)) if finite.size else None

    names = ("qps", "batch_ms", "rows_per_batch", "queue_ms", "p95_ms", "replicas", "batch_size", "busy")
    return Baseline(
        **{name: level(name) for name in names},
        batch_cv=_variation(source, -math.inf, kept),
        points=source.span.points,
    )


def _variation(window: MetricWindow, since_s: float, kept: LatencyModel) -> float | None:
    """Coefficient of variation of the batch time against what the line says for its rows; None below 6 points."""
    points = _points(window, math.inf, window.span.step_s, since_s)
    if len(points) < 6:
        return None
    values = np.array([ms / (kept.predict(rows)[0] if kept.known else 1.0) for _, rows, ms in points])
    return float(values.std() / values.mean())


def _calm_spread(observation: Observation, onset: float, settings: PlanningSettings) -> float | None:
    """Coefficient of variation of single batches of one size before the onset; None where it is not exported."""
    until = onset - settings.rate_window_s
    for window in (observation.window, observation.history):
        if window is None or "batch_cv2" not in window.values:
            continue
        values = window.values["batch_cv2"][window.span.times() < until]
        known = values[np.isfinite(values)]
        if known.size >= 3:
            return float(np.clip(math.sqrt(max(0.0, float(np.median(known)))), 0.02, 0.8))
    return None


def _on_top(now: Reading, spread: float | None, variation: float | None) -> float | None:
    """What varies now and did not before: from the variation within batch sizes where exported, else of the means.

    A neighbour that comes and goes faster than the rate window is invisible in means.
    """
    if now.batch_cv2 is None or spread is None:
        return variation
    return max(math.sqrt(max(0.0, now.batch_cv2 - spread**2)), variation or 0.0)


def _tail(window: MetricWindow, signal: str, since_s: float) -> tuple[FloatArray, FloatArray]:
    values = window.values.get(signal)
    if values is None:
        return np.empty(0), np.empty(0)
    times = window.span.times()
    good = np.isfinite(values) & (times >= since_s - 1e-9)
    return times[good], values[good]


def _arrivals(
    observation: Observation, onset: float, now: Reading, settings: PlanningSettings
) -> Forecast | None:
    """The rate of arrivals at the time when a change would be looked at.

    Answered requests are not arrivals while a queue grows: the growth of the queue is added (queue_depth), or, where
    only the waiting time w is exported, arrivals = answered / (1 - dw/dt), the fluid relation of an overloaded queue.
    """
    since = _settled(observation.window, onset, settings)
    times, qps = _tail(observation.window, "qps", since)
    if not qps.size:
        return None
    earlier, before = _tail(observation.window, "qps", -math.inf)
    if (start := trend_start(earlier, before)) is not None:
        times, qps = _tail(observation.window, "qps", min(start, since))
    growth = np.zeros_like(qps)
    if now.busy is None or now.busy > 0.85:
        growth = _growth(observation.window, times, qps, since, settings.rate_window_s, (now.busy or 0.0) > 0.95)
    horizon_s = settings.verify_window_s + 2 * settings.rate_window_s
    return forecast(times, np.maximum(qps + growth, 0.0), horizon_s, observation.history)


def _growth(
    window: MetricWindow, times: FloatArray, qps: FloatArray, since: float, rate_window_s: float, saturated: bool
) -> FloatArray:
    """Requests per second that join the queue (or leave it: below 0) without being answered, at each of `times`.

    Over the same window as the rate, arrivals = answered + growth exactly. A saturated server answers at a constant
    rate, so there a shorter window is as exact and shows sooner that a burst is over.
    """
    depth_t, depth = _tail(window, "queue_depth", -math.inf)
    if depth.size >= 3:
        span = max(2 * window.span.step_s, rate_window_s / 3) if saturated else rate_window_s
        before = np.interp(times - span, depth_t, depth)
        return np.asarray((np.interp(times, depth_t, depth) - before) / span, dtype=np.float64)
    wait_t, wait = _tail(window, "queue_ms", since)
    if wait.size < 3:
        return np.zeros_like(qps)
    slope = float(np.clip(np.polyfit(wait_t - wait_t[0], wait / 1e3, 1)[0], 0.0, 0.9))
    if slope * (wait_t[-1] - wait_t[0]) < 0.2 * float(wait.max()) / 1e3:
        return np.zeros_like(qps)
    return np.asarray(qps * slope / (1 - slope), dtype=np.float64)


def draining_arrivals(window: MetricWindow, capacity: float) -> Interval | None:
    """The rate of arrivals while a queue falls: capacity less the fall, by the last three counts; None while it does
    not fall by more than three standard errors of two Poisson streams.

    After a burst this is known long before the mean over a rate window is.
    """
    depth = window.values.get("queue_depth", np.empty(0))[-3:]
    if depth.size < 3 or not (np.isfinite(depth).all() and depth[0] > depth[1] > depth[2]):
        return None
    seconds = 2 * window.span.step_s
    fall, error = float(depth[0] - depth[2]) / seconds, math.sqrt(2 * capacity / seconds)
    if fall <= 3 * error:
        return None
    rate = max(capacity - fall, 0.02 * capacity)
    return Interval(value=rate, low=max(rate - 1.645 * error, 0.01 * capacity), high=rate + 1.645 * error)


def _cv2(observation: Observation, now: Reading) -> float:
    """Burstiness now; where not exported, that of the history, else 1 (independent users)."""
    value = first(now.arrival_cv2, observation.history.last("arrival_cv2") if observation.history else None, 1.0)
    return float(np.clip(value or 1.0, 0.2, 20.0))


def _backlog(now: Reading, window: MetricWindow) -> float:
    """Requests waiting: counted where exported (the newest count: a growing queue has no level), else by Little's law
    from the mean wait."""
    newest = window.last("queue_depth", 4 * window.span.step_s)
    if newest is not None or now.queue_depth is not None:
        return max(0.0, first(newest, now.queue_depth) or 0.0)
    return max(0.0, (now.queue_ms or 0.0) / 1e3 * (now.qps or 0.0))


def _overhead(now: Reading, observation: Observation, onset: float, settings: PlanningSettings) -> float:
    """Latency outside queue and batch (parsing, network) in ms: the rest of the mean, before the incident if known."""
    before = observation.window.between(observation.window.span.start_s, onset - settings.rate_window_s)
    rest = []
    for window in (before, observation.window):
        if not {"mean_ms", "queue_ms", "batch_ms"} <= set(window.values):
            continue
        values = window.values["mean_ms"] - window.values["queue_ms"] - window.values["batch_ms"]
        finite = values[np.isfinite(values)]
        if finite.size:
            rest.append(float(np.median(finite)))
    limit = 0.5 * (now.batch_ms or 0.0) + 5.0
    return float(np.clip(rest[0], 0.0, limit)) if rest else 0.0


def _rows_per_request(now: Reading) -> float:
    """Rows that one request brings: rows computed per second over requests answered per second, 1 unless well above."""
    if not (now.busy and now.batch_ms and now.rows_per_batch and now.qps and now.replicas):
        return 1.0
    rows_per_s = now.replicas * now.busy / (now.batch_ms / 1e3) * now.rows_per_batch
    ratio = rows_per_s / now.qps
    return float(round(ratio)) if ratio > 1.7 else 1.0


def _replica_slow(observation: Observation, onset: float, settings: PlanningSettings) -> tuple[float, ...]:
    """Batch time of each replica over the median replica's, rows allowed for; sorted, slowest last."""
    speeds = []
    for window in observation.replicas.values():
        points = _points(window, math.inf, settings.rate_window_s / 3, _settled(window, onset, settings))
        if points:
            speeds.append((float(np.median([p[1] for p in points])), float(np.median([p[2] for p in points]))))
    if len(speeds) < 2:
        return _replica_slow_by_p95(observation, onset, settings)
    # A replica with fuller batches takes longer without being slower: half of the time is taken to go with the rows.
    per = [ms / (0.5 + 0.5 * rows / max(1.0, float(np.median([r for r, _ in speeds])))) for rows, ms in speeds]
    middle = float(np.median(sorted(per)[: max(1, (len(per) + 1) // 2)]))
    return tuple(sorted(value / middle for value in per))


def _replica_slow_by_p95(observation: Observation, onset: float, settings: PlanningSettings) -> tuple[float, ...]:
    """The same where only latencies are exported per replica: P95 over the median replica's, damped by its root.

    A queue makes a slow replica's P95 grow out of all proportion, so the root is a guess on the low side.
    """
    tails = []
    for window in observation.replicas.values():
        _, values = _tail(window, "p95_ms", _settled(window, onset, settings))
        if values.size:
            tails.append(float(np.median(values)))
    if len(tails) < 2:
        return ()
    middle = float(np.median(sorted(tails)[: max(1, (len(tails) + 1) // 2)]))
    return tuple(sorted(min(5.0, math.sqrt(value / middle)) for value in tails)) if middle > 0 else ()


def current(situation: Situation, observation: Observation) -> tuple[int, float, int]:
    """(batch limit, batch timeout in ms, replicas) as they are; 1, 0 and 1 where nothing tells."""
    now = situation.now
    replicas = now.replicas or round(number(observation.settings.get("replicas"), "min_replicas") or 1)
    return max(1, now.batch_size or 1), max(0.0, now.batch_timeout_ms or 0.0), max(1, replicas)
