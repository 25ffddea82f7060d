"""P95 of candidates with what is not known: draws of the line, the load and the speed-up, each simulated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from detection.model import FloatArray, Lever, MetricWindow
from tuning.model import Interval, Observation
from tuning.planning import admission as ad
from tuning.planning import latency_model as lm
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning import whatif
from tuning.planning.batching import BatchingSituation
from tuning.planning.latency_model import normal_quantiles
from tuning.planning.phases import Phases
from tuning.planning.ports import Candidate, Knowledge, Predicted
from tuning.planning.settings import PlanningSettings
from tuning.planning.speed import Slowing, points
from tuning.planning.whatif import Forecasted, Lane

_LEVELS = np.asarray((np.arange(th.DRAWS) + 0.5) / th.DRAWS)
# The same quantiles in three orders (Kronecker sequences), so that load, doubt and speed-up vary independently of each
# other and of the curve's own order.
_Z_LOAD, _Z_DOUBT, _Z_GAIN, _Z_LASTS = (
    normal_quantiles(_LEVELS)[np.argsort(np.arange(th.DRAWS) * root % 1.0)]
    for root in (2**0.5, 3**0.5, 7**0.5, 11**0.5)
)


@dataclass(frozen=True)
class Tried:
    """A candidate in the batcher's own terms. gain, gain_sd: speed-up of the batch times (median, log scatter).
    limit: of what is taken in (None: there is none); sheds: the candidate lowers it."""

    batch: int
    timeout_s: float
    replicas: int
    delay_s: float
    gain: float = 1.0
    gain_sd: float = 0.0
    limit: ad.Limit | None = None
    sheds: bool = False

    def waiting_max(self, batch: int) -> float:
        """Requests that may wait at one replica while it computes so many."""
        if self.limit is None or self.limit.counts == "rate":
            return math.inf
        each = self.limit.of_each(self.replicas)
        return max(1.0, each - batch if self.limit.counts == "concurrency" else each)

    def batch_of(self, batch: int) -> int:
        """Requests of a batch: no more are there than are let in. Where few are in at once, half of them wait."""
        if self.limit is None or self.limit.counts == "rate":
            return batch
        each = self.limit.of_each(self.replicas)
        return max(1, min(batch, int(each / 2 if self.limit.counts == "concurrency" else each)))

    def taken_in(self, qps: float) -> float:
        """Of so many requests per second, those that a rate lets in."""
        if self.limit is None or self.limit.counts != "rate":
            return qps
        return min(qps, self.limit.of_each(self.replicas) * self.replicas)


def tried(candidate: Candidate, observation: Observation, situation: BatchingSituation, knowledge: Knowledge) -> Tried:
    """The knobs of a candidate, and what INT8, or another variant, would gain where it is not served yet."""
    faster = candidate.setting.get("precision") == "int8" and situation.precision != "int8"
    gain, gain_sd = 1.0, 0.0
    if faster:
        lever = observation.service.levers.get("precision")
        gain, gain_sd = int8_gain(lever, knowledge.measured_gain, learned_gain(situation))
    if (variant := candidate.setting.get(va.LEVER)) is not None:
        found = va.gain(observation, str(variant), lambda name: batch_time(situation, name))
        gain, gain_sd = found or (gain, gain_sd)
    return Tried(
        batch=int(candidate.setting["batch_size"]),
        timeout_s=float(candidate.setting["batch_timeout_ms"]) / 1e3,
        replicas=int(candidate.setting["replicas"]),
        delay_s=candidate.delay_s,
        gain=gain,
        gain_sd=gain_sd,
        limit=ad.limit_of(observation.service.levers.get(ad.LEVER), candidate.setting),
        sheds=ad.LEVER in candidate.levers,
    )


def predict(
    candidates: Sequence[Candidate],
    observation: Observation,
    situation: BatchingSituation,
    knowledge: Knowledge,
    settings: PlanningSettings,
) -> list[Predicted]:
    """One prediction per candidate, all simulated together. Needs `situation.identified`."""
    curves = situation.model.draws(th.DRAWS)
    lanes: list[Lane] = []
    plan: list[list[list[tuple[float, int]]]] = []
    wanted = [tried(candidate, observation, situation, knowledge) for candidate in candidates]
    for want in wanted:
        plan.append([])
        for draw in range(th.DRAWS):
            parts = _lanes(want, situation, curves[draw], draw, settings)
            plan[-1].append([(share, len(lanes) + k) for k, (share, _) in enumerate(parts)])
            lanes.extend(lane for _, lane in parts)
    runs = whatif.simulate(
        lanes, batches=settings.simulated_batches, seed=settings.seed, requests=4 * settings.simulated_batches
    )
    slo = observation.promise.limit_ms
    full = (situation.now.error_rate or 0.0) > observation.service.slo.error_rate
    answers = []
    for want, draws in zip(wanted, plan, strict=True):
        mixed = [whatif.mix([(share, runs[k]) for share, k in parts]) for parts in draws]
        loads = [max(lanes[k].load for _, k in parts) for parts in draws]
        capacity = [sum(lanes[k].capacity * want.replicas * share for share, k in parts) for parts in draws]
        settled_s = want.delay_s + settings.rate_window_s + settings.verify_window_s
        drain_s = _drain_s(want, float(np.median(capacity)), situation, full=full)
        found = _summary(want, mixed, loads, drain_s, situation, knowledge, slo, settled_s)
        asked = [_asked(want, situation, draw) for draw in range(th.DRAWS)]
        answers.append(replace(found, **_shares_of(want, mixed, asked, slo - situation.overhead_ms)))
    return answers


def _asked(want: Tried, situation: BatchingSituation, draw: int) -> float:
    """Requests per second that come in one draw."""
    nothing = Interval(value=0.0, low=0.0, high=0.0)
    load = situation.arrivals.after(want.delay_s) if situation.arrivals is not None else nothing
    z = float(_Z_LOAD[draw])
    edge = load.high if z > 0 else load.low
    return float(load.value * (max(edge, 1e-9) / max(load.value, 1e-9)) ** (abs(z) / th.Z90))


def _shares_of(want: Tried, mixed: list[Forecasted], asked: list[float], limit_ms: float) -> dict[str, Any]:
    """What is refused, and what is answered within limit_ms per second, over the draws."""
    let_in = [want.taken_in(rate) / rate if rate > 0 else 1.0 for rate in asked]
    answered = [part * (1 - run.refused) for part, run in zip(let_in, mixed, strict=True)]
    low, middle, high = (float(q) for q in np.quantile([1 - part for part in answered], (0.05, 0.5, 0.95)))
    late = [
        rate * part * float((run.sample_ms <= limit_ms).mean())
        for rate, part, run in zip(asked, answered, mixed, strict=True)
    ]
    refused = Interval(value=max(0.0, middle), low=max(0.0, low), high=max(0.0, high))
    return {"refused": refused, "in_time_per_s": float(np.median(late))}


def _lanes(
    want: Tried,
    situation: BatchingSituation,
    curve: lm.Curve,
    draw: int,
    settings: PlanningSettings,
) -> list[tuple[float, Lane]]:
    """The replicas of one draw as (share of the requests, lane): sound ones, and slow ones where some are slow."""
    qps = want.taken_in(_asked(want, situation, draw))
    phases = comes_and_goes(situation, draw)
    # What is not known of the slowness is in the draws of its phases, where it comes and goes.
    doubt = math.hypot(situation.model.doubt(want.batch), 0.0 if phases else situation.slow_sd)
    factor = math.exp(doubt * _Z_DOUBT[draw])
    settled_s = want.delay_s + settings.rate_window_s + settings.verify_window_s
    factor *= grown(situation.slowing, settled_s, float(_Z_LASTS[draw]))
    factor /= want.gain * math.exp(want.gain_sd * _Z_GAIN[draw])
    each = qps / want.replicas
    rows = situation.rows_per_request
    batch = want.batch_of(max(1, int(want.batch // rows)))

    def lane(slow: float) -> Lane:
        return Lane(
            qps=each,
            cv2=whatif.split_cv2(situation.cv2, want.replicas),
            batch=batch,
            timeout_s=want.timeout_s,
            alpha_s=curve.alpha_ms * factor * slow / 1e3,
            beta_s=curve.beta_ms * rows * factor * slow / 1e3,
            spread=spread_of(situation),
            stream=draw,
            backlog=situation.backlog / want.replicas,
            horizon_s=settled_s,
            waiting_max=want.waiting_max(batch),
            phases=phases,
        )

    slow = [ratio for ratio in situation.replica_slow if ratio > th.DILUTED_REPLICA]
    if not slow or len(slow) >= want.replicas:
        return [(1.0, lane(1.0))]
    share = len(slow) / want.replicas
    ratio = float(np.mean(slow))
    if situation.slow_point is not None:
        # How slow a slow replica is was measured at its own rows: whatever this draw's line says of them.
        rows_seen, took_ms = situation.slow_point
        ratio = max(1.0, took_ms / curve.at(rows_seen))
    return [(1 - share, lane(1.0)), (share, lane(ratio))]


def grown(slowing: Slowing | None, horizon_s: float, z: float) -> float:
    """Factor on the batch times after `horizon_s`, where they grow; z: the quantile of how long that goes on.

    Never for much longer than it was seen to.
    """
    if slowing is None:
        return 1.0
    less, more = th.SLOWING_DOUBT
    lasts_s = horizon_s * float((more if z > 0 else less) ** (abs(z) / th.Z90))
    return 1.0 + slowing.growth_per_s * min(lasts_s, th.SLOWING_LASTS * slowing.seen_s)


def slower_by_then(
    situation: BatchingSituation, window: MetricWindow, ahead_s: float, *, same_model: bool
) -> float | None:
    """Factor on the batch times in `window`, `ahead_s` later: measured against the line as it runs now, or forecast
    where another model computes. None where it is no more than noise, or where batch times come and go anyway.
    """
    mixed = bool(situation.replica_slow) and situation.replica_slow[-1] > th.DILUTED_REPLICA
    if mixed or comes_and_goes(situation, 0) is not None:
        return None
    if not same_model:
        factor = grown(situation.slowing, ahead_s, 0.0)
        return factor if factor > 1 + th.SLOW_NOISE else None
    seen = points(window, math.inf, window.span.step_s)
    if len(seen) < th.VARIATION_POINTS:
        return None
    line = [(batch_ms / mean, sd / mean) for _, rows, batch_ms in seen for mean, sd in (situation.model.predict(rows),)]
    factor = float(np.median([ratio for ratio, _ in line]))
    doubt = 2 * float(np.median([error for _, error in line]))
    return factor if factor > 1 + max(th.SLOW_NOISE, doubt) else None


def comes_and_goes(situation: BatchingSituation, draw: int) -> Phases | None:
    """The phases of one draw: of what explains what was seen, where the line of before is known."""
    if situation.phases:
        # In an order of their own, as the other quantiles.
        order = np.argsort(np.arange(len(situation.phases)) * 13**0.5 % 1.0)
        return situation.phases[int(order[draw % order.size])]
    factors = phases_of(situation)
    if len(factors) == 1:
        return None
    slow, fast = factors
    return Phases(0.5, slow / fast, 2 * situation.phase_s, fast)


def phases_of(situation: BatchingSituation) -> tuple[float, ...]:
    """Factors on the mean batch time in phases of equal length: (1,), or (slow, fast) where a neighbour comes and goes.

    Of the time that replicas compute, the share q falls into the slow phases, which are r times as slow; then the
    squared variation of the batch times is q (1 - q) (r - 1)^2 / r, which gives r, and a slow batch takes
    r - q (r - 1) times the mean. While a slow phase carries its load it has half of the batches, so that
    q = r / (1 + r), which is (1 + cv) / 2. A slow phase that does not is half of the time and never rests:
    q = 1 / (2 busy), down to 1/2 where nothing rests.
    """
    cv = situation.variation or 0.0
    if cv < th.COMES_AND_GOES or cv < situation.spread:
        return (1.0,)
    share = _share_of_slow(cv, situation.now.busy)
    half = 1 + cv * cv / (2 * share * (1 - share))
    ratio = half + math.sqrt(half * half - 1)
    slow = ratio - share * (ratio - 1)
    return (slow, slow / ratio)


def _share_of_slow(cv: float, busy: float | None) -> float:
    """Share of the computing that is done in slow phases, 1/2 to 1; cv: coefficient of variation of batch times."""
    if busy is None:
        return 0.5
    return max(0.5, min((1 + cv) / 2, 0.5 / max(busy, 0.5), th.PHASE_SHARE_MAX))


def spread_of(situation: BatchingSituation) -> float:
    """Coefficient of variation of single batch times: what was learned, and what comes and goes on top."""
    if comes_and_goes(situation, 0) is not None:
        return float(np.clip(situation.spread, th.SPREAD_RANGE[0], th.SPREAD_MAX))
    return float(np.clip(math.hypot(situation.spread, situation.variation or 0.0), th.SPREAD_RANGE[0], th.SPREAD_MAX))


def _summary(
    want: Tried,
    mixed: list[Forecasted],
    loads: list[float],
    drain_s: float,
    situation: BatchingSituation,
    knowledge: Knowledge,
    slo_ms: float,
    settled_s: float,
) -> Predicted:
    extra = situation.overhead_ms
    logs = np.log(np.array([run.p95_ms + extra for run in mixed])) + knowledge.bias
    noise = math.hypot(knowledge.scatter, float(np.median([run.noise for run in mixed])))
    middle = float(np.median(logs))
    meets = float(np.mean([_phi((math.log(slo_ms) - value) / noise) for value in logs]))
    low, high = _interval(logs, noise)
    order = np.argsort(logs)
    run = mixed[int(order[len(order) // 2])]
    load = float(np.median(loads))
    return Predicted(
        shown={"p95_ms": Interval(value=math.exp(middle), low=math.exp(low), high=math.exp(high))},
        meets=meets,
        carries=_carries(want, situation, settled_s, 1.0, 0.01),
        room=_carries(want, situation, settled_s, th.FULL, th.SURPRISE),
        load=load,
        drain_s=drain_s,
        busy=run.busy,
        unproven=want.gain_sd >= th.UNMEASURED_SD,
        unknown=want.batch != situation.now.batch_size and situation.model.unknown_beyond(want.batch),
    )


def _carries(want: Tried, situation: BatchingSituation, settled_s: float, limit: float, surprise: float) -> float:
    """P(load < limit) with every batch full: the grid of the line times lognormal doubts of the load, line and gain.

    Finer than the draws: of options that do well in most draws it tells which has the most room for the others.
    """
    if situation.arrivals is None:
        return 0.0
    rate = situation.arrivals.after(want.delay_s)
    full = max(1.0, want.batch // situation.rows_per_request * situation.rows_per_request)
    weight, batch_ms = situation.model.at(full)
    later, much_later = (grown(situation.slowing, settled_s, z) for z in (0.0, th.Z90))
    load = later * rate.value * situation.rows_per_request * batch_ms / 1e3 / want.gain / (full * want.replicas)
    load_sd = math.log(max(rate.high, 1e-9) / max(rate.value, 1e-9)) / th.Z90
    sd = math.hypot(
        load_sd,
        situation.model.doubt(full),
        situation.slow_sd,
        want.gain_sd,
        surprise,
        math.log(much_later / later) / th.Z90,
    )
    found = sum(w * _phi(math.log(limit / max(x, 1e-9)) / sd) for w, x in zip(weight, load, strict=True))
    return min(1.0, float(found))  # the weights of the grid add up to one but for their last bit


def _drain_s(want: Tried, capacity: float, situation: BatchingSituation, *, full: bool) -> float:
    """How long the queue takes to empty once the change is in effect; inf when it never does, or in ten minutes.

    Each replica has its own queue, and new replicas begin with none: the old ones keep what they have. full: requests
    are refused, so that what waits for the change to take effect is what waits now.
    """
    arrivals = situation.arrivals.after(want.delay_s).value if situation.arrivals is not None else 0.0
    old = max(1, min(situation.now.replicas or 1, want.replicas))
    grows = 0.0 if full else max(0.0, arrivals - capacity_now(situation))
    waiting = situation.backlog + grows * want.delay_s
    if want.sheds and want.taken_in(arrivals) >= capacity:
        # Nothing is taken in while more wait than may.
        batch = want.batch_of(max(1, int(want.batch // situation.rows_per_request)))
        left = max(0.0, waiting / old - want.waiting_max(batch))
        return left / (capacity / want.replicas) if math.isfinite(left) and capacity > 0 else math.inf
    arrivals = want.taken_in(arrivals)
    spare = (capacity - arrivals) / want.replicas
    drain = waiting / old / spare if spare > 0 else math.inf
    return drain if drain < th.QUEUE_TIME_MAX_S else math.inf


def _interval(logs: FloatArray, noise: float) -> tuple[float, float]:
    """90 % interval of a mixture of normals of sd `noise` around the draws, by its quantiles on a grid."""
    grid = np.linspace(logs.min() - 4 * noise, logs.max() + 4 * noise, 201)
    below = np.mean([[_phi((x - value) / noise) for x in grid] for value in logs], axis=0)
    return float(np.interp(0.05, below, grid)), float(np.interp(0.95, below, grid))


def _phi(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def capacity_now(situation: BatchingSituation) -> float:
    """Requests per second that the present setting answers when every batch is full."""
    now = situation.now
    batch = max(1, now.batch_size or 1)
    return max(1, now.replicas or 1) * batch / situation.rows_per_request / (situation.model.curve().at(batch) / 1e3)


def int8_gain(lever: Lever | None, measured: float | None, learned: float | None) -> tuple[float, float]:
    """(median, log scatter) of the INT8 speed-up: learned from batches, measured by the gate, else a cautious prior.

    The gate refuses less than its own minimum, so a gain below that never goes live.
    """
    if learned is not None:
        return learned, th.GAIN_LEARNED_SD
    if measured is not None:
        return measured, th.GAIN_MEASURED_SD
    median, scatter = th.GAIN_PRIOR
    floor = lever.options.get("min_speedup") if lever is not None else None
    return max(median, th.GAIN_FLOOR * float(floor)) if isinstance(floor, (int, float)) else median, scatter


def batch_time(situation: BatchingSituation, variant: str) -> float | None:
    """Batch time (ms) at the present batch with a variant, from calm traffic; None where it never served in any."""
    version = va.keyed(situation.version.rpartition("~")[0], variant)
    known = situation.learned.get(lm.key(version, situation.precision))
    return known.predict(float(situation.now.batch_size or 1))[0] if known is not None and known.known else None


def learned_gain(situation: BatchingSituation) -> float | None:
    """FP32 over INT8 batch time at the present batch, where this version was served in INT8 before."""
    int8 = situation.learned.get(lm.key(situation.version, "int8"))
    if int8 is None or not int8.known or situation.precision == "int8":
        return None
    rows = float(situation.now.batch_size or 1)
    kept = situation.learned.get(situation.model_key, situation.model)
    return kept.predict(rows)[0] / int8.predict(rows)[0]
