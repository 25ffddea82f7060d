"""P95 of candidates with what is not known: draws of the model, the load and the speed-up, each simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, Lever
from tuning.model import Interval, Observation
from tuning.planning import latency_model as lm
from tuning.planning import whatif
from tuning.planning.latency_model import normal_quantiles
from tuning.planning.options import Candidate
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation
from tuning.planning.whatif import Forecasted, Lane

_Z90 = 1.645
_DRAWS = 16
_LEVELS = np.asarray((np.arange(_DRAWS) + 0.5) / _DRAWS)
# The same quantiles in three orders (Kronecker sequences), so that load, doubt and speed-up vary independently of each
# other and of the curve's own order.
_Z_LOAD, _Z_DOUBT, _Z_GAIN = (
    normal_quantiles(_LEVELS)[np.argsort(np.arange(_DRAWS) * root % 1.0)] for root in (2**0.5, 3**0.5, 7**0.5)
)
_FULL = 0.9
_SURPRISE = 0.4
"""Log scatter of what may come on top of all that is known: the next wave of load, a neighbour on the machine."""
_SLOW_REPLICA = 1.3
_COMES_AND_GOES = 0.2
_QUEUE_TIME_MAX_S = 600.0
UNMEASURED_SD = 0.3
"""Log scatter of the INT8 gain from which it counts as a guess."""


@dataclass(frozen=True)
class Predicted:
    """What a candidate would show. p95_ms: median of the draws with its 90 % interval. meets: probability of the SLO.

    carries: probability that full batches can answer the load at all, over the whole posterior of the line. room: the
    same with a tenth to spare and a surprise (load, neighbour) of 40 % on top.
    load: utilisation by the median draw. drain_s: how long the present queue takes to empty, inf when it never does.
    p50_ms, p99_ms, throughput, busy: of the median draw.
    """

    p95_ms: Interval
    meets: float
    carries: float
    room: float
    load: float
    drain_s: float
    p50_ms: float
    p99_ms: float
    throughput: float
    busy: float


@dataclass(frozen=True)
class Knowledge:
    """What the ledger adds: bias and scatter of earlier predictions (log), and the INT8 gain (median, log scatter)."""

    bias: float = 0.0
    scatter: float = 0.1
    speedup: float = 2.5
    speedup_sd: float = 0.4


def predict(
    candidates: list[Candidate],
    observation: Observation,
    situation: Situation,
    knowledge: Knowledge,
    settings: PlanningSettings,
) -> list[Predicted]:
    """One prediction per candidate, all simulated together. Needs `situation.identified`."""
    curves = situation.model.draws(_DRAWS)
    lanes: list[Lane] = []
    plan: list[list[list[tuple[float, int]]]] = []
    for candidate in candidates:
        plan.append([])
        for draw in range(_DRAWS):
            parts = _lanes(candidate, situation, knowledge, curves[draw], draw, settings)
            plan[-1].append([(share, len(lanes) + k) for k, (share, _) in enumerate(parts)])
            lanes.extend(lane for _, lane in parts)
    runs = whatif.simulate(
        lanes, batches=settings.simulated_batches, seed=settings.seed, requests=4 * settings.simulated_batches
    )
    slo = observation.service.slo.p95_ms
    answers = []
    for candidate, draws in zip(candidates, plan, strict=True):
        mixed = [whatif.mix([(share, runs[k]) for share, k in parts]) for parts in draws]
        loads = [_load([lanes[k] for _, k in parts], len(phases_of(situation))) for parts in draws]
        capacity = [sum(lanes[k].capacity * candidate.replicas * share for share, k in parts) for parts in draws]
        answers.append(_summary(candidate, mixed, loads, capacity, situation, knowledge, slo))
    return answers


def _load(lanes: list[Lane], phases: int) -> float:
    """Utilisation: of the busiest kind of replica, and over the phases of one, since phases share their queue."""
    if phases == 1:
        return max(lane.load for lane in lanes)
    return lanes[0].qps / (sum(lane.capacity for lane in lanes) / len(lanes))


def _lanes(
    candidate: Candidate,
    situation: Situation,
    knowledge: Knowledge,
    curve: lm.Curve,
    draw: int,
    settings: PlanningSettings,
) -> list[tuple[float, Lane]]:
    """The replicas of one draw as (share of the requests, lane): sound ones, and slow ones where some are slow."""
    load = situation.arrivals.qps if situation.arrivals is not None else Interval(value=0.0, low=0.0, high=0.0)
    z = float(_Z_LOAD[draw])
    edge = load.high if z > 0 else load.low
    qps = load.value * (max(edge, 1e-9) / max(load.value, 1e-9)) ** (abs(z) / _Z90)
    doubt = math.hypot(situation.model.doubt(candidate.batch), situation.slow_sd)
    factor = math.exp(doubt * _Z_DOUBT[draw])
    if candidate.faster:
        factor /= knowledge.speedup * math.exp(knowledge.speedup_sd * _Z_GAIN[draw])
    each = qps / candidate.replicas
    rows = situation.rows_per_request
    batch = max(1, int(candidate.batch // rows))

    phases = phases_of(situation)
    settled_s = candidate.delay_s + settings.rate_window_s + settings.verify_window_s

    def lane(slow: float) -> Lane:
        return Lane(
            qps=each,
            cv2=whatif.split_cv2(situation.cv2, candidate.replicas),
            batch=batch,
            timeout_s=candidate.timeout_ms / 1e3,
            alpha_s=curve.alpha_ms * factor * slow / 1e3,
            beta_s=curve.beta_ms * rows * factor * slow / 1e3,
            spread=spread_of(situation),
            stream=draw,
            # A phase in which the queue grows ends before it shows in the means of a rate window.
            backlog=situation.backlog / candidate.replicas if len(phases) == 1 else 0.0,
            horizon_s=settled_s if len(phases) == 1 else settings.rate_window_s / 2,
        )

    slow = [ratio for ratio in situation.replica_slow if ratio > _SLOW_REPLICA]
    if not slow or len(slow) >= candidate.replicas:
        return [(1.0 / len(phases), lane(phase)) for phase in phases]
    share = len(slow) / candidate.replicas
    return [(1 - share, lane(1.0)), (share, lane(float(np.mean(slow))))]


def phases_of(situation: Situation) -> tuple[float, ...]:
    """Factors on the mean batch time in phases of equal length: (1,), or (slow, fast) where a neighbour comes and goes.

    With phases r times as slow as the others, 1 / (1 + r) of the batches fall into the slow ones, so that the mean of
    the batch times is 2 r / (1 + r) and their squared variation (r - 1)^2 / (4 r), which gives r.
    """
    cv = situation.batch_cv or 0.0
    if cv < _COMES_AND_GOES or cv < situation.model.spread:
        return (1.0,)
    half = 1 + 2 * cv * cv
    ratio = half + math.sqrt(half * half - 1)
    return ((1 + ratio) / 2, (1 + ratio) / (2 * ratio))


def spread_of(situation: Situation) -> float:
    """Coefficient of variation of single batch times: what was learned, and what comes and goes on top."""
    if len(phases_of(situation)) > 1:
        return float(np.clip(situation.model.spread, 0.02, 1.0))
    return float(np.clip(math.hypot(situation.model.spread, situation.batch_cv or 0.0), 0.02, 1.0))


def _summary(
    candidate: Candidate,
    mixed: list[Forecasted],
    loads: list[float],
    capacity: list[float],
    situation: Situation,
    knowledge: Knowledge,
    slo_ms: float,
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
        p95_ms=Interval(value=math.exp(middle), low=math.exp(low), high=math.exp(high)),
        meets=meets,
        carries=_carries(candidate, situation, knowledge, 1.0, 0.01),
        room=_carries(candidate, situation, knowledge, _FULL, _SURPRISE),
        load=load,
        drain_s=_drain_s(candidate, float(np.median(capacity)), situation),
        p50_ms=run.p50_ms + extra,
        p99_ms=run.p99_ms + extra,
        throughput=run.throughput * candidate.replicas,
        busy=run.busy,
    )


def _carries(
    candidate: Candidate, situation: Situation, knowledge: Knowledge, limit: float, surprise: float
) -> float:
    """P(load < limit) with every batch full: the grid of the line times lognormal doubts of the load, line and gain.

    Finer than the draws: of options that do well in most draws it tells which has the most room for the others.
    """
    if situation.arrivals is None:
        return 0.0
    rate = situation.arrivals.qps
    full = max(1.0, candidate.batch // situation.rows_per_request * situation.rows_per_request)
    weight, batch_ms = situation.model.at(full)
    gain, gain_sd = (knowledge.speedup, knowledge.speedup_sd) if candidate.faster else (1.0, 0.0)
    load = rate.value * situation.rows_per_request * batch_ms / 1e3 / gain / (full * candidate.replicas)
    load_sd = math.log(max(rate.high, 1e-9) / max(rate.value, 1e-9)) / _Z90
    sd = math.hypot(load_sd, situation.model.doubt(full), situation.slow_sd, gain_sd, surprise)
    return float(sum(w * _phi(math.log(limit / max(x, 1e-9)) / sd) for w, x in zip(weight, load, strict=True)))


def _drain_s(candidate: Candidate, capacity: float, situation: Situation) -> float:
    """How long the queue takes to empty once the change is in effect; inf when it never does, or in ten minutes.

    Each replica has its own queue, and new replicas begin with none: the old ones keep what they have.
    """
    arrivals = situation.arrivals.qps.value if situation.arrivals is not None else 0.0
    old = max(1, min(situation.now.replicas or 1, candidate.replicas))
    waiting = situation.backlog + max(0.0, arrivals - capacity_now(situation)) * candidate.delay_s
    spare = (capacity - arrivals) / candidate.replicas
    drain = waiting / old / spare if spare > 0 else math.inf
    return drain if drain < _QUEUE_TIME_MAX_S else math.inf


def _interval(logs: FloatArray, noise: float) -> tuple[float, float]:
    """90 % interval of a mixture of normals of sd `noise` around the draws, by its quantiles on a grid."""
    grid = np.linspace(logs.min() - 4 * noise, logs.max() + 4 * noise, 201)
    below = np.mean([[_phi((x - value) / noise) for x in grid] for value in logs], axis=0)
    return float(np.interp(0.05, below, grid)), float(np.interp(0.95, below, grid))


def _phi(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))


def capacity_now(situation: Situation) -> float:
    """Requests per second that the present setting answers when every batch is full."""
    now = situation.now
    batch = max(1, now.batch_size or 1)
    return max(1, now.replicas or 1) * batch / situation.rows_per_request / (situation.model.curve().at(batch) / 1e3)


def int8_gain(lever: Lever | None, measured: float | None, learned: float | None) -> tuple[float, float]:
    """(median, log scatter) of the INT8 speed-up: learned from batches, measured by the gate, else a cautious prior.

    Measured gains run from 1.4 (depthwise convolutions on a CPU) over 3 to 4 (ResNet) to 11 (wide layers): the prior
    is in the lower third. The gate refuses less than its own minimum, so a gain below that never goes live.
    """
    if learned is not None:
        return learned, 0.1
    if measured is not None:
        return measured, 0.15
    floor = lever.options.get("min_speedup", 1.2) if lever is not None else 1.2
    return max(2.5, 1.2 * float(floor)) if isinstance(floor, (int, float)) else 2.5, 0.4
