"""The what-if: latency of a batching server under any setting, by event simulation of the batch queue.

A replica holds its requests in one FIFO queue. When it is free and requests wait, it starts a batch as soon as the
queue holds `batch` rows or the oldest has waited `timeout_s`; the batch takes (alpha + beta * rows) times a lognormal
factor of coefficient of variation `spread`. This is the queue of Triton's dynamic batcher, TorchServe, Ray Serve's
`@serve.batch` and of our demo server. Requests are spread over replicas at random, so one replica of `replicas` sees
the rate / replicas and, for a renewal stream of squared variation cv2, 1 + (cv2 - 1) / replicas (thinning of renewal
processes: Whitt, "Approximating a point process by a renewal process", 1982).

The loop runs over batches, never over requests, and over all settings ("lanes") at once: one numpy step starts the
next batch of every lane. Lanes share one unit-rate stream of arrivals, so that settings are compared on equal luck.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray
from tuning.planning import thresholds as th
from tuning.planning.latency_model import normal_quantiles
from tuning.planning.phases import Phases

_FAR = 1e7
_CV2_GRID = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 9.0, 14.0, 20.0)


@dataclass(frozen=True)
class Lane:
    """One replica under one setting. qps: arrivals at this replica. Times in seconds. waiting_max: requests that may
    wait; more are refused (inf: none are). phases: in which alpha and beta are multiplied (None: they stand)."""

    qps: float
    cv2: float
    batch: int
    timeout_s: float
    alpha_s: float
    beta_s: float
    spread: float = 0.1
    stream: int = 0
    backlog: float = 0.0
    horizon_s: float = 120.0
    waiting_max: float = math.inf
    phases: Phases | None = None

    @property
    def capacity(self) -> float:
        """Requests per second with every batch full, on average over phases."""
        return self.batch / max(self.full_s, 1e-9)

    @property
    def full_s(self) -> float:
        """Seconds of a full batch; over phases, of a server that never rests."""
        return (self.alpha_s + self.beta_s * self.batch) * (self.phases.sustained if self.phases else 1.0)

    def within(self, factor: float, horizon_s: float) -> Lane:
        """The lane in one phase, in which batches take `factor` times as long and a queue grows for `horizon_s`."""
        alpha_s, beta_s = factor * self.alpha_s, factor * self.beta_s
        return replace(self, alpha_s=alpha_s, beta_s=beta_s, horizon_s=horizon_s, backlog=0.0, phases=None)

    @property
    def load(self) -> float:
        """Arrivals over capacity; 1 and more grows without end."""
        return self.qps / self.capacity


@dataclass(frozen=True)
class Forecasted:
    """What a lane would show. Latencies in ms (queue, batch wait and service); shares 0..1.

    noise: relative standard deviation of the P95 of one minute's window around p95_ms. sample_ms: sorted sample of the
    latencies of what is answered. refused: share of the requests that are not taken in.
    """

    p50_ms: float
    p95_ms: float
    mean_ms: float
    queue_ms: float
    busy: float
    noise: float
    sample_ms: FloatArray
    refused: float = 0.0


def arrivals(count: int, cv2: float, seed: int) -> FloatArray:
    """Unit-rate renewal arrivals, shape (count,): gamma gaps up to cv2 1, balanced hyperexponential gaps above.

    The two-phase hyperexponential with balanced means (Whitt 1982): p = (1 + sqrt((c-1)/(c+1))) / 2, rates 2p, 2(1-p).
    """
    rng = np.random.default_rng(seed)
    if cv2 <= 1.0:
        gaps = rng.standard_exponential(count) if cv2 == 1.0 else rng.gamma(1 / cv2, cv2, count)
    else:
        p = 0.5 * (1 + math.sqrt((cv2 - 1) / (cv2 + 1)))
        rate = np.where(rng.random(count) < p, 2 * p, 2 * (1 - p))
        gaps = rng.standard_exponential(count) / rate
    return np.cumsum(gaps, dtype=np.float64)


def split_cv2(cv2: float, replicas: float) -> float:
    """Squared variation at one of `replicas` when each request picks its replica at random."""
    return 1.0 + (cv2 - 1.0) / max(replicas, 1.0)


def simulate(lanes: list[Lane], *, batches: int, seed: int, requests: int = 20_000) -> list[Forecasted]:
    """Every lane over `batches` batches (or `requests` requests, whichever ends first); overloaded lanes by `fluid`.

    Deterministic for a seed. `stream` picks another stretch of the arrivals, so that draws of one setting differ.
    Phases that are too long to be gone through several times are looked at one by one.
    """
    apart = [_apart(lane, batches, requests) for lane in lanes]
    if any(apart):
        flat = [part for lane, parts in zip(lanes, apart, strict=True) for part in (parts or [lane])]
        found = iter(simulate(flat, batches=batches, seed=seed, requests=requests))
        return [_phased(parts, [next(found) for _ in parts]) if parts else next(found) for parts in apart]
    answers: list[Forecasted | None] = [fluid(lane) if lane.load >= th.STABLE else None for lane in lanes]
    index = [i for i, answer in enumerate(answers) if answer is None]
    if index:
        for i, answer in zip(index, _run([lanes[i] for i in index], batches, seed, requests), strict=True):
            answers[i] = _bounded(lanes[i], answer)
    return [answer for answer in answers if answer is not None]


def _apart(lane: Lane, batches: int, requests: int) -> list[Lane]:
    """The slow and the fast phase of a lane that carries its load, where the run holds too few periods; else []."""
    phases = lane.phases
    if phases is None or lane.load >= th.STABLE:
        return []
    # A batch takes what came during the one before: rows = qps (alpha + beta rows).
    spare = 1 - lane.qps * lane.beta_s * phases.sustained
    rows = lane.qps * max(lane.alpha_s * phases.sustained, lane.timeout_s) / spare if spare > 0 else lane.batch
    seconds = min(requests, batches * float(np.clip(rows, 1, lane.batch))) / lane.qps
    if seconds >= th.PERIODS_SEEN * phases.period_s:
        return []
    slow_s = phases.share * phases.period_s
    return [lane.within(phases.slow, slow_s), lane.within(phases.fast, phases.period_s - slow_s)]


def _phased(parts: list[Lane], found: list[Forecasted]) -> Forecasted:
    """Slow and fast phases seen as one service. Where the queue grows in a slow phase, what came late in it is answered
    in the next one, whose first requests wait for it to drain (the fluid limit)."""
    (slow, fast), (late, soon) = parts, found
    share = slow.horizon_s / (slow.horizon_s + fast.horizon_s)
    excess, spare = slow.qps - slow.capacity, fast.capacity - fast.qps
    if excess <= 0 or spare <= 0:
        return mix([(share, late), (1 - share, soon)])
    came_s = np.linspace(0.0, slow.horizon_s, 101)
    ahead = np.minimum(excess * came_s, slow.waiting_max)
    left_s = slow.horizon_s - came_s
    answered = np.minimum(
        ahead / slow.capacity, left_s + np.maximum(0.0, ahead - slow.capacity * left_s) / fast.capacity
    )
    drains = min(1.0, float(ahead[-1]) / spare / fast.horizon_s)
    waits = queued(fast, np.linspace(0.0, ahead[-1] / fast.capacity, 101))
    rest = 1 - share
    return mix([(share, queued(slow, answered)), (rest * drains, waits), (rest * (1 - drains), soon)])


def fluid(lane: Lane) -> Forecasted:
    """An overloaded lane at its horizon: the fluid limit, W(t) = (backlog + (qps - capacity) t) / capacity.

    The requests answered in the last minute before the horizon waited between W(h - 60) and W(h), unless the queue has
    reached its limit by then.
    """
    if lane.backlog + max(0.0, lane.qps - lane.capacity) * lane.horizon_s > lane.waiting_max:
        return refusing(lane)
    full_s = lane.full_s
    end = (lane.backlog + max(0.0, lane.qps - lane.capacity) * lane.horizon_s) / lane.capacity
    start = end * max(0.0, 1 - 60.0 / lane.horizon_s) if lane.horizon_s > 0 else end
    # Just under saturation the fluid says 0; heavy traffic says about one spread of the queue over the horizon.
    noise_s = math.sqrt(lane.horizon_s * full_s * (lane.cv2 / lane.batch + lane.spread**2))
    waits = np.linspace(start, end, 101) + noise_s + 1.5 * full_s
    sample = 1e3 * waits
    p50, p95 = (float(np.quantile(sample, q)) for q in (0.5, 0.95))
    mean = float(sample.mean())
    return Forecasted(p50, p95, mean, mean - 1e3 * full_s, 1.0, 0.2, sample)


def refusing(lane: Lane) -> Forecasted:
    """An overloaded lane whose queue is full: as each batch starts, its places fill again at the rate of arrivals.

    The one that takes place p waits for the rest of the batch under way and for the (p - 1) // batch before its own.
    What is refused is what exceeds the capacity. The scatter of the batch times adds up along the queue.
    """
    full_s, batch = lane.full_s, float(lane.batch)
    room = min(batch, lane.waiting_max)
    part = (np.arange(101) + 0.5) / 101
    place = np.maximum(1.0, np.ceil(lane.waiting_max - room + part * room))
    ahead = (place - 1) // batch
    rest_s = full_s * (1 - part * min(1.0, 1 / max(lane.load, 1e-9)))
    # In an order of its own, so that luck goes with no place in the queue.
    scatter = np.random.default_rng(lane.stream).permutation(normal_quantiles(part))
    luck = np.exp(lane.spread / np.sqrt(ahead + 2) * scatter)
    sample = np.sort(1e3 * (rest_s + (ahead + 1) * full_s) * luck)
    p50, p95 = (float(np.quantile(sample, q)) for q in (0.5, 0.95))
    mean, refused = float(sample.mean()), max(0.0, 1 - 1 / max(lane.load, 1e-9))
    noise = max(th.REFUSING_NOISE, lane.spread / math.sqrt(60.0 / full_s))
    return Forecasted(p50, p95, mean, mean - 1e3 * full_s, 1.0, noise, sample, refused)


def _bounded(lane: Lane, found: Forecasted) -> Forecasted:
    """A lane that is not overloaded, whose queue is full now and then: what would wait beyond its limit is refused."""
    if not math.isfinite(lane.waiting_max):
        return found
    full_s = (lane.alpha_s + lane.beta_s * lane.batch) * (lane.phases.slow if lane.phases else 1.0)
    longest_ms = 1e3 * (2 + math.ceil(lane.waiting_max / lane.batch)) * full_s
    kept = found.sample_ms[found.sample_ms <= longest_ms]
    if kept.size == found.sample_ms.size or not kept.size:
        return found
    p50, p95 = (float(np.quantile(kept, q)) for q in (0.5, 0.95))
    refused = 1 - kept.size / found.sample_ms.size
    mean = float(kept.mean())
    return Forecasted(p50, p95, mean, min(mean, found.queue_ms), found.busy, found.noise, kept, refused)


def queued(lane: Lane, waits_s: FloatArray) -> Forecasted:
    """A lane whose requests wait so long (seconds, shape (k,)) for a queue that is there already."""
    full_s = lane.full_s
    sample = np.sort(1e3 * (waits_s + 1.5 * full_s))
    p50, p95 = (float(np.quantile(sample, q)) for q in (0.5, 0.95))
    mean = float(sample.mean())
    return Forecasted(p50, p95, mean, mean - 1e3 * full_s, 1.0, 0.2, sample)


def _run(lanes: list[Lane], batches: int, seed: int, requests: int) -> list[Forecasted]:
    count = len(lanes)
    classes = np.array([int(np.argmin([abs(math.log(g / max(a.cv2, 0.05))) for g in _CV2_GRID])) for a in lanes])
    kinds, group = np.unique(classes, return_inverse=True)
    streams = int(max(lane.stream for lane in lanes)) + 1
    width = requests + 2 + max(lane.batch for lane in lanes)
    flat = np.concatenate(
        [
            arrivals(width, _CV2_GRID[kind], seed + 7919 * stream) + _FAR * (g * streams + stream)
            for g, kind in enumerate(kinds)
            for stream in range(streams)
        ]
    )
    row = group * streams + np.array([lane.stream for lane in lanes])
    first, base = row * width, row * _FAR
    rate = np.array([lane.qps for lane in lanes])
    limit = np.array([lane.batch for lane in lanes])
    timeout = np.array([lane.timeout_s for lane in lanes]) * rate
    alpha = np.array([lane.alpha_s for lane in lanes]) * rate
    beta = np.array([lane.beta_s for lane in lanes]) * rate
    factors = _factors(np.array([lane.spread for lane in lanes]), batches, seed)
    slowed = _Slowed.of(lanes, rate)
    # Time runs in each lane's own unit (mean gap between arrivals), so that one stream serves every rate.
    begin = np.empty((batches, count))
    finish = np.empty((batches, count))
    taken = np.zeros((batches, count), dtype=np.int64)
    position, free, alive = first.copy(), base.astype(np.float64), np.arange(count)
    stop = first + requests
    for step in range(batches):
        i = position[alive]
        start = np.maximum(free[alive], np.minimum(flat[i] + timeout[alive], flat[i + limit[alive] - 1]))
        rows = np.minimum(np.searchsorted(flat, start, side="right") - i, limit[alive])
        np.maximum(rows, 1, out=rows)
        took = (alpha[alive] + beta[alive] * rows) * factors[step, alive]
        end = start + (took if slowed is None else took * slowed.at(start - base[alive], alive))
        begin[step, alive], finish[step, alive], taken[step, alive] = start, end, rows
        free[alive] = end
        position[alive] = i + rows
        going = position[alive] + limit[alive] < stop[alive]
        if not going.all():
            alive = alive[going]
            if not alive.size:
                break
    return [_summary(lanes[k], flat[first[k] : stop[k]], begin[:, k], finish[:, k], taken[:, k]) for k in range(count)]


@dataclass(frozen=True)
class _Slowed:
    """Phases of all lanes, shape (lanes,) each, in the lanes' own unit of time."""

    period: FloatArray
    slow_for: FloatArray
    fast: FloatArray
    ratio: FloatArray
    begins: FloatArray

    @classmethod
    def of(cls, lanes: list[Lane], rate: FloatArray) -> _Slowed | None:
        if all(lane.phases is None for lane in lanes):
            return None
        phases = [lane.phases or Phases(0.0, 1.0, 1.0) for lane in lanes]
        period = np.array([p.period_s for p in phases]) * rate
        slow_for = np.array([p.share for p in phases]) * period
        # Draws begin at different places of their periods (Kronecker sequence).
        begins = period * (np.array([lane.stream for lane in lanes]) * 5**0.5 % 1.0)
        fast, ratio = (np.array([getattr(p, name) for p in phases]) for name in ("fast", "ratio"))
        return cls(period, slow_for, fast, ratio, begins)

    def at(self, start: FloatArray, lanes: NDArray[np.int64]) -> FloatArray:
        """Factor on a batch that starts then, for some of the lanes."""
        place = (start + self.begins[lanes]) % self.period[lanes]
        return np.asarray(self.fast[lanes] * np.where(place < self.slow_for[lanes], self.ratio[lanes], 1.0))


def _factors(spread: FloatArray, batches: int, seed: int) -> FloatArray:
    """Lognormal factors of mean 1, shape (batches, lanes), the same luck for every lane."""
    sigma = np.sqrt(np.log1p(spread**2))
    z = np.random.default_rng(seed + 1).standard_normal(batches)
    return np.asarray(np.exp(np.outer(z, sigma) - sigma**2 / 2), dtype=np.float64)


def _summary(
    lane: Lane, stream: FloatArray, begin: FloatArray, finish: FloatArray, taken: NDArray[np.int64]
) -> Forecasted:
    done = int(np.count_nonzero(taken))
    counts = taken[:done].astype(np.int64)
    skip = done // 10
    came = stream[int(counts[:skip].sum()) : int(counts.sum())]
    counts = counts[skip:]
    latency = np.repeat(finish[skip:done], counts) - came
    waited = np.repeat(begin[skip:done], counts) - came
    to_ms = 1e3 / lane.qps
    served = np.sort(latency) * to_ms
    p50, p95 = (float(served[min(int(q * served.size), served.size - 1)]) for q in (0.5, 0.95))
    span = float(finish[done - 1] - begin[skip])
    busy = float((finish[skip:done] - begin[skip:done]).sum()) / span if span > 0 else 0.0
    return Forecasted(
        p50,
        p95,
        float(served.mean()),
        float(waited.mean()) * to_ms,
        min(1.0, busy),
        _window_noise(latency, lane.qps),
        served[:: max(1, served.size // 400)],
    )


def _window_noise(latency: FloatArray, qps: float) -> float:
    """Relative standard deviation of one minute's P95, from the P95s of six stretches of the run."""
    pieces = np.array_split(latency, 6)
    p95s = np.array([np.partition(piece, int(0.95 * piece.size))[int(0.95 * piece.size)] for piece in pieces])
    scale = math.sqrt(pieces[0].size / max(60.0 * qps, 1.0))
    return float(np.clip(p95s.std() / max(p95s.mean(), 1e-9) * scale, 0.0, 0.5))


def mix(parts: list[tuple[float, Forecasted]]) -> Forecasted:
    """Several lanes seen as one service, each with its share of the requests (a slow replica among sound ones)."""
    if len(parts) == 1:
        return parts[0][1]
    values = np.concatenate([part.sample_ms for _, part in parts])
    answered = [(share * (1 - part.refused), part.sample_ms.size) for share, part in parts]
    weights = np.concatenate([np.full(size, share / size) for share, size in answered])
    order = np.argsort(values)
    values, cumulative = values[order], np.cumsum(weights[order])
    cumulative /= cumulative[-1]
    last = values.size - 1
    p50, p95 = (float(values[min(int(np.searchsorted(cumulative, q)), last)]) for q in (0.5, 0.95))

    def mean(name: str) -> float:
        return float(sum(share * getattr(part, name) for share, part in parts))

    return Forecasted(
        p50,
        p95,
        mean("mean_ms"),
        mean("queue_ms"),
        mean("busy"),
        max(part.noise for _, part in parts),
        values,
        mean("refused"),
    )
