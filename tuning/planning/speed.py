"""How fast the service computes: points of the line, slowness against it, and what varies, per service and replica."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detection.model import MetricWindow
from tuning.model import Observation
from tuning.planning import latency_model as lm
from tuning.planning import thresholds as th
from tuning.planning.forecast import line, trend_start
from tuning.planning.latency_model import LatencyModel
from tuning.planning.phases import Phases, Seen, posterior
from tuning.planning.reading import Reading, settled, tail
from tuning.planning.settings import PlanningSettings

Point = tuple[float, float, float]
"""(time in epoch seconds, rows per batch, batch time in ms)."""


def points(window: MetricWindow | None, until_s: float, stride_s: float, since_s: float = -math.inf) -> list[Point]:
    """The points of a window, oldest first, one per `stride_s`: rates over one window are not independent."""
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


def slowdown(
    kept: LatencyModel, after: Sequence[Point], observation: Observation, now: Reading
) -> tuple[float | None, float, LatencyModel]:
    """How slow the service is now against the learned line (None: no line), its relative error, and the line now."""
    if not kept.known:
        shape = line_of_stats(observation)
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
    if abs(slow - 1) <= max(th.SLOW_NOISE, 2 * error):
        return slow, error, lm.learn(kept, after)
    return slow, error, kept.scaled(slow)


@dataclass(frozen=True)
class Slowing:
    """A slowness that grows along a line. since_s: when it began. now: batch time at the window's end over the learned
    one. growth_per_s: of the present batch time, 0 once that has stopped. seen_s: for how long it was seen to grow.
    """

    since_s: float
    now: float
    growth_per_s: float
    seen_s: float


def slowing(window: MetricWindow, kept: LatencyModel, rate_window_s: float) -> Slowing | None:
    """Whether each batch takes longer and longer, over everything seen; None where it does not.

    A slowness that grows breaks the SLO long after it began, so what is seen since the onset does not show it, and
    what was before the onset is not calm. Longer batches alone are no slowness: the rise must exceed what the line
    does not know of them.
    """
    seen = points(window, math.inf, window.span.step_s)
    if not kept.known or len(seen) < th.TREND_POINTS:
        return None
    times = np.array([at_s for at_s, _, _ in seen])
    ratios = np.array([batch_ms / kept.predict(rows)[0] for _, rows, batch_ms in seen])
    start = trend_start(times, ratios, [k * rate_window_s for k in th.SLOWING_WINDOWS], rate_window_s)
    if start is None:
        return None
    rising = times >= start
    slope, _, end = line(times[rising], ratios[rising])
    mean, sd = kept.predict(seen[-1][1])
    seen_s = float(times[-1] - start)
    if slope * seen_s < th.SLOWING_ERRORS * end * sd / mean:
        return None
    late = times >= times[-1] - max(seen_s * th.SLOWING_LATE, th.SLOWING_WINDOWS[-1] * rate_window_s / 2)
    recent = line(times[late], ratios[late])[0] if late.sum() >= th.TREND_POINTS else slope
    if recent <= slope * th.SLOWING_LATE:
        return Slowing(start, float(np.median(ratios[late])), 0.0, seen_s)
    # A mean over a window is as old as the middle of it, and what grows has grown on since.
    now = end + slope * rate_window_s / 2
    return Slowing(start, now, slope / now, seen_s)


def phase_s(window: MetricWindow, since_s: float, kept: LatencyModel, top: float | None, rate_window_s: float) -> float:
    """How long slow and fast phases last each (seconds), where batch times come and go. top: their variation.

    Phases shorter than the rate window show in the variation of single batches and hardly in the means over a window;
    longer ones are counted by the means' changes from low to high.
    """
    shown = variation(window, since_s, kept)
    if not top or shown is None:
        return th.PHASE_UNKNOWN_S
    share = min(1.0, shown / top / th.PHASE_MEANS)
    short = rate_window_s * max(th.PHASE_MIN, share)
    if share < 1.0:
        return short
    seen = points(window, math.inf, window.span.step_s, since_s)
    ratios = np.array([ms / (kept.predict(rows)[0] if kept.known else 1.0) for _, rows, ms in seen])
    far = (ratios - ratios.mean()) / ratios.std()
    marked = [
        (at_s, value > 0) for (at_s, _, _), value in zip(seen, far, strict=True) if abs(value) > th.PHASE_CROSSING
    ]
    changes = [at_s for (at_s, high), (_, was) in zip(marked[1:], marked, strict=False) if high != was]
    if len(changes) < 2:
        return short
    return float(np.clip((changes[-1] - changes[0]) / (len(changes) - 1), short, th.PHASE_MAX_S))


def phases(
    observation: Observation, onset: float, kept: LatencyModel, now: Reading, spread: float, settings: PlanningSettings
) -> tuple[Phases, ...]:
    """What explains batch times that come and go since the onset, from each replica's means where they are exported; ()
    where nothing was seen since. Needs `kept.known`."""
    windows = [observation.replicas[name] for name in sorted(observation.replicas)] or [observation.window]
    series = []
    for window in windows[: th.PHASE_REPLICAS]:
        since_s = min(onset, window.span.end_s - th.SETTLED_STEPS * window.span.step_s)
        seen = points(window, math.inf, settings.rate_window_s * th.PHASE_STRIDE, since_s)[-th.PHASE_POINTS :]
        if len(seen) >= 2:
            series.append(np.array([(at_s, ms / kept.predict(rows)[0]) for at_s, rows, ms in seen]).T)
    if not series and observation.replicas:
        return phases(replace(observation, replicas={}), onset, kept, now, spread, settings)
    each_s = (now.batch_ms or 0.0) / 1e3
    busy = now.busy if now.busy is not None else th.PHASE_BUSY
    batches = max(1.0, settings.rate_window_s * busy / each_s) if each_s > 0 else 1.0
    noise = math.hypot(th.PHASE_NOISE, spread / math.sqrt(batches))
    cv2 = None if now.batch_cv2 is None else (1 + now.batch_cv2) / (1 + spread**2) - 1
    sizes = now.batch_size != 1 and (now.fill is None or now.fill < settings.batch_full)
    return posterior(Seen(series, settings.rate_window_s, onset, noise, cv2, busy, sizes), th.DRAWS)


def line_of_stats(observation: Observation) -> LatencyModel:
    """A line from per-batch-size statistics (rows, batches, seconds): each size is a point, weighted by its batches."""
    model = LatencyModel()
    stats = [entry for entry in observation.batch_stats if entry[1] > 0 and entry[0] >= 1 and entry[2] > 0]
    total = sum(entry[1] for entry in stats)
    least, most = th.STATS_WEIGHT
    for entry in sorted(stats):
        weight = float(np.clip(most * entry[1] / total, least, most))
        model = model.add(entry[0], 1e3 * entry[2] / entry[1], observation.at_s, weight)
    return model


def spread_of_stats(stats: Sequence[tuple[float, ...]]) -> float | None:
    """Coefficient of variation of single batches of one size, pooled over sizes; None without the sums of squares."""
    squares = [entry for entry in stats if len(entry) > 3 and entry[1] >= th.STATS_BATCHES]
    if not squares:
        return None
    within = sum(max(0.0, entry[3] - entry[2] ** 2 / entry[1]) for entry in squares)
    level = sum(entry[2] ** 2 / entry[1] for entry in squares)
    return float(np.clip(math.sqrt(within / level), *th.SPREAD_RANGE)) if level > 0 else None


def variation(window: MetricWindow, since_s: float, kept: LatencyModel) -> float | None:
    """Coefficient of variation of the batch time against what the line says for its rows; None below 6 points."""
    seen = points(window, math.inf, window.span.step_s, since_s)
    if len(seen) < th.VARIATION_POINTS:
        return None
    values = np.array([ms / (kept.predict(rows)[0] if kept.known else 1.0) for _, rows, ms in seen])
    return float(values.std() / values.mean())


def calm_spread(observation: Observation, onset: float, settings: PlanningSettings) -> float | None:
    """Coefficient of variation of single batches of one size before the onset; None where it is not exported."""
    until = onset - settings.rate_window_s
    for window in (observation.window, observation.history):
        if window is None or "batch_cv2" not in window.values:
            continue
        values = window.values["batch_cv2"][window.span.times() < until]
        known = values[np.isfinite(values)]
        if known.size >= th.LEVEL_POINTS:
            return float(np.clip(math.sqrt(max(0.0, float(np.median(known)))), *th.SPREAD_RANGE))
    return None


def on_top(now: Reading, spread: float | None, seen: float | None) -> float | None:
    """What varies now and did not before: from the variation within batch sizes where exported, else of the means.

    A neighbour that comes and goes faster than the rate window is invisible in means.
    """
    if now.batch_cv2 is None or spread is None:
        return seen
    return max(math.sqrt(max(0.0, now.batch_cv2 - spread**2)), seen or 0.0)


def overhead_ms(now: Reading, observation: Observation, onset: float, settings: PlanningSettings) -> float:
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
    share, plus_ms = th.OVERHEAD_MAX
    return float(np.clip(rest[0], 0.0, share * (now.batch_ms or 0.0) + plus_ms)) if rest else 0.0


def rows_per_request(now: Reading) -> float:
    """Rows that one request brings: rows computed per second over requests answered per second, 1 unless well above."""
    if not (now.busy and now.batch_ms and now.rows_per_batch and now.qps and now.replicas):
        return 1.0
    rows_per_s = now.replicas * now.busy / (now.batch_ms / 1e3) * now.rows_per_batch
    ratio = rows_per_s / now.qps
    return float(round(ratio)) if ratio > th.MANY_ROWS else 1.0


def replica_pace(
    observation: Observation, onset: float, settings: PlanningSettings, kept: LatencyModel
) -> dict[str, float]:
    """Batch time of each replica over the median replica's, rows allowed for; {} below two replicas.

    A replica with fuller batches takes longer without being slower: by the learned line where there is one.
    """
    speeds = _replica_points(observation, onset, settings)
    if len(speeds) < 2:
        return _by_p95(observation, onset, settings)
    if kept.known:
        per = {name: ms / kept.predict(rows)[0] for name, (rows, ms) in speeds.items()}
    else:
        share, middle_rows = th.REPLICA_ROWS, max(1.0, float(np.median([rows for rows, _ in speeds.values()])))
        per = {name: ms / (1 - share + share * rows / middle_rows) for name, (rows, ms) in speeds.items()}
    middle = _middle(list(per.values()))
    return {name: value / middle for name, value in per.items()}


def slow_replicas(
    observation: Observation, pace: Mapping[str, float], onset: float, settings: PlanningSettings
) -> tuple[float, float] | None:
    """(rows per batch, batch time in ms) of the replicas that are slow, as measured; None where none is."""
    speeds = _replica_points(observation, onset, settings)
    slow = [speeds[name] for name, ratio in pace.items() if ratio > th.DILUTED_REPLICA and name in speeds]
    if not slow:
        return None
    return float(np.mean([rows for rows, _ in slow])), float(np.mean([batch_ms for _, batch_ms in slow]))


def _replica_points(
    observation: Observation, onset: float, settings: PlanningSettings
) -> dict[str, tuple[float, float]]:
    """Median rows per batch and batch time (ms) of each replica since the onset."""
    speeds: dict[str, tuple[float, float]] = {}
    for name, window in observation.replicas.items():
        seen = points(window, math.inf, settings.rate_window_s / 3, settled(window, onset, settings))
        if seen:
            speeds[name] = float(np.median([p[1] for p in seen])), float(np.median([p[2] for p in seen]))
    return speeds


def _by_p95(observation: Observation, onset: float, settings: PlanningSettings) -> dict[str, float]:
    """The same where only latencies are exported per replica: P95 over the median replica's, damped by its root.

    A queue makes a slow replica's P95 grow out of all proportion, so the root is a guess on the low side.
    """
    tails: dict[str, float] = {}
    for name, window in observation.replicas.items():
        _, values = tail(window, "p95_ms", settled(window, onset, settings))
        if values.size:
            tails[name] = float(np.median(values))
    middle = _middle(list(tails.values())) if len(tails) > 1 else 0.0
    if middle <= 0:
        return {}
    return {name: min(th.REPLICA_TAIL_MAX, math.sqrt(value / middle)) for name, value in tails.items()}


def sound_points(observation: Observation, pace: Mapping[str, float], stride_s: float, since_s: float) -> list[Point]:
    """The points of the replicas that are not slow, where some are: what the service's own mean no longer shows."""
    sound = [name for name, slow in pace.items() if slow <= th.DILUTED_REPLICA]
    if not sound or len(sound) == len(pace):
        return []
    return sorted(point for name in sound for point in points(observation.replicas[name], math.inf, stride_s, since_s))


def _middle(values: Sequence[float]) -> float:
    """The median of the faster half: with two replicas the faster one, so that a slow one is never its own measure."""
    return float(np.median(sorted(values)[: max(1, (len(values) + 1) // 2)]))
