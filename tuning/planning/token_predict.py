"""Percentiles of a language model's service under candidates, with what is not known: draws, each simulated."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray
from tuning.formats import ms
from tuning.model import Interval, Observation
from tuning.planning import thresholds as th
from tuning.planning import token_flow as tf
from tuning.planning import token_percentiles as pc
from tuning.planning import token_queue as tq
from tuning.planning import variants as va
from tuning.planning.latency_model import normal_quantiles
from tuning.planning.ports import Candidate, Knowledge, Predicted, limits_of
from tuning.planning.predict import int8_gain
from tuning.planning.settings import PlanningSettings
from tuning.planning.token_flow import Lengths
from tuning.planning.token_queue import Limits, Requests, StepTime
from tuning.planning.tokens import TokenSituation
from tuning.planning.whatif import arrivals as unit_arrivals
from tuning.planning.whatif import split_cv2

OBJECTIVES = ("p95_ms", "ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms")
_TAIL = 0.05
_LEVELS = np.asarray((np.arange(th.TOKEN_DRAWS) + 0.5) / th.TOKEN_DRAWS)
_Z = [
    normal_quantiles(_LEVELS)[np.argsort(np.arange(th.TOKEN_DRAWS) * root % 1.0)]
    for root in (2**0.5, 3**0.5, 7**0.5, 11**0.5, 13**0.5, 17**0.5)
]


@dataclass(frozen=True)
class Flow:
    """What one draw of one candidate comes to: one replica's arrivals and its engine. answered: requests per
    second that a replica was seen to answer from a queue (inf: not seen)."""

    qps: float
    cv2: float
    step: StepTime
    limits: Limits
    size: Lengths
    stream: int
    answered: float = math.inf

    @property
    def sequences(self) -> float:
        """Sequences that run when the queue never empties: the seats, the cache's room, or what the prompts' budget
        feeds (then each iteration's prompt tokens keep pace with the sequences that end)."""
        fed = self.limits.max_num_batched_tokens * self.size.output / (self.size.output + self.size.computed)
        holds = self.limits.kv_tokens / (self.size.context + self.limits.block_tokens / 2)
        return max(1.0, min(self.limits.max_num_seqs, fed, holds))

    @property
    def overfills(self) -> bool:
        """Whether sequences in every seat would outgrow the cache by the time that they end."""
        return self.limits.max_num_seqs * (self.size.prompt + self.size.output) > self.limits.kv_tokens

    @property
    def capacity(self) -> float:
        """Requests per second when the queue never empties: n / (out (a + b n) + n c p), the rate(n) of llm-d's queue
        analyser with the prompts' time spread over those that run."""
        n, step = self.sequences, self.step
        alone = step.base_ms + n * (step.sequence_ms + step.kv_ms * self.size.context)
        return 1e3 * n / (self.size.output * alone + n * step.prefill_ms * self.size.computed)

    @property
    def running(self) -> float:
        """Sequences under way on average: n = q out y(n), solved, at most what can run."""
        per_ms = self.qps * self.size.output / 1e3
        step = self.step
        prompts = step.prefill_ms * self.qps * self.size.computed / 1e3
        each = per_ms * (step.sequence_ms + step.kv_ms * self.size.context)
        room = 1 - prompts - each
        return min(self.sequences, per_ms * step.base_ms / room) if room > 0.02 else self.sequences


@dataclass(frozen=True)
class Shown:
    """What a draw would show, ms; shares 0..1. exported: the same as a histogram of the service reads it, at several
    levels of one look's luck, where its edges are known. noise: by objective, log scatter of one look around it.
    prompts: share of the gaps between tokens in which somebody's prompt is read; levels: mean gap of the others, and of
    those (ms)."""

    p95: dict[str, float]
    exported: dict[str, tuple[float, ...]]
    noise: dict[str, float]
    busy: float
    preemptions_per_s: float
    tokens_per_s: float
    capacity: float
    prompts: float
    levels: tuple[float, float]


def predict(
    candidates: Sequence[Candidate],
    observation: Observation,
    situation: TokenSituation,
    knowledge: Knowledge,
    settings: PlanningSettings,
) -> list[Predicted]:
    """One prediction per candidate, on the same arrivals and lengths. Needs `situation.identified`."""
    steps = situation.steps.draws(th.TOKEN_DRAWS)
    return [_predict(candidate, steps, observation, situation, knowledge, settings) for candidate in candidates]


def _predict(
    candidate: Candidate,
    steps: Sequence[StepTime],
    observation: Observation,
    situation: TokenSituation,
    knowledge: Knowledge,
    settings: PlanningSettings,
) -> Predicted:
    gain, gain_sd = _gain(candidate, observation, situation, knowledge)
    flows = [_flow(candidate, situation, step, draw, gain, gain_sd) for draw, step in enumerate(steps)]
    seen = situation.answered if gain == 1.0 else None
    flows = [replace(flow, answered=_answered(seen, situation, draw)) for draw, flow in enumerate(flows)]
    settled_s = candidate.delay_s + settings.rate_window_s + settings.verify_window_s
    waiting = situation.backlog / int(candidate.setting["replicas"])
    looked = functools.partial(
        look,
        waiting=waiting,
        settled_s=settled_s,
        settings=settings,
        overhead_ms=situation.steps.overhead_ms,
        edges_ms=observation.service.edges_ms,
    )
    shown = [looked(flow) for flow in flows]
    slow = [ratio for ratio in situation.replica_slow if ratio > th.DILUTED_REPLICA]
    if slow and len(slow) < int(candidate.setting["replicas"]):
        late = [looked(_slower(flow, max(slow))) for flow in flows]
        share = len(slow) / int(candidate.setting["replicas"])
        shown = [_worse_half(one, other, share) for one, other in zip(shown, late, strict=True)]
    return _summary(candidate, observation, situation, knowledge, settings, flows, shown, (gain, gain_sd))


def _gain(
    candidate: Candidate, observation: Observation, situation: TokenSituation, knowledge: Knowledge
) -> tuple[float, float]:
    if (variant := candidate.setting.get(va.LEVER)) is not None:
        return va.gain(observation, str(variant), lambda _: None) or (1.0, 0.0)
    setting = observation.settings.get("precision")
    served = setting.values.get("precision") if setting is not None else None
    if candidate.setting.get("precision") != "int8" or served == "int8":
        return 1.0, 0.0
    return int8_gain(observation.service.levers.get("precision"), knowledge.measured_gain, None)


def _flow(
    candidate: Candidate, situation: TokenSituation, step: StepTime, draw: int, gain: float, gain_sd: float
) -> Flow:
    size, rate, replicas = situation.size, situation.arrivals, int(candidate.setting["replicas"])
    if size is None or rate is None:
        raise ValueError("lengths or load are not exported: nothing can be predicted")
    z_load, z_doubt, z_gain, z_size, _, z_bursts = (float(z[draw]) for z in _Z)
    edge = rate.qps.high if z_load > 0 else rate.qps.low
    qps = rate.qps.value * (max(edge, 1e-9) / max(rate.qps.value, 1e-9)) ** (abs(z_load) / th.Z90)
    limits = Limits(
        int(candidate.setting["max_num_seqs"]),
        int(candidate.setting["max_num_batched_tokens"]),
        situation.kv_tokens,
        situation.block_tokens,
    )
    longer = math.exp(th.LENGTH_NOISE * z_size)
    size = Lengths(size.prompt * longer, size.prompt_p95 * longer, size.output * longer, size.output_p95 * longer,
                   size.hit_rate)  # fmt: skip
    step = step.scaled(situation.pace / gain)
    # How a prompt's cost grows beyond the lengths that were seen is in no line.
    further = situation.steps.beyond_prompts(size.computed)
    step = replace(step, prefill_ms=step.prefill_ms * math.exp(further * z_doubt))
    cv2 = split_cv2(situation.cv2 * math.exp(situation.cv2_sd * z_bursts), replicas)
    flow = Flow(qps / replicas, cv2, step, limits, size, draw)
    doubt = math.hypot(situation.steps.doubt(flow.running), situation.slow_sd if situation.pace != 1.0 else 0.0)
    return _slower(flow, math.exp(doubt * z_doubt + gain_sd * z_gain))


def _answered(seen: tf.Answered | None, situation: TokenSituation, draw: int) -> float:
    """Requests per second that one replica answers from a queue, as measured; inf where none stands."""
    if seen is None:
        return math.inf
    return seen.per_s / max(1, situation.now.replicas or 1) * math.exp(seen.error * float(_Z[4][draw]))


def _slower(flow: Flow, factor: float) -> Flow:
    return replace(flow, step=flow.step.scaled(factor))


def requests_of(flow: Flow, count: int, seed: int) -> Requests:
    """`count` arrivals after those that are under way when a look begins: as many as run on average, each with a
    length as seen from inside (long ones more often) and a uniform share of it done. Options that differ in limits
    alone meet the same arrivals and lengths."""
    stream = seed + 7919 * flow.stream
    under_way = int(min(flow.running, count))
    at_s = _unit_arrivals(count, flow.cv2, stream) / max(flow.qps, 1e-9)
    before, after = _sized(flow.size, count, stream, inside=True), _sized(flow.size, count, stream, inside=False)
    computed, cached, output = (old[:under_way] + new for old, new in zip(before, after, strict=True))
    shares = _shares(count, stream)[:under_way]
    return Requests(
        at_s=[0.0] * under_way + at_s.tolist(),
        prompt=computed,
        cached=cached,
        output=output,
        running=under_way,
        done=tuple(min(n - 1, int(share * n)) for n, share in zip(output[:under_way], shares, strict=True)),
    )


@functools.lru_cache(maxsize=4 * th.TOKEN_DRAWS)
def _unit_arrivals(count: int, cv2: float, stream: int) -> FloatArray:
    """Arrivals of unit rate, scaled to bring exactly that: what the rate may be is drawn apart."""
    at = unit_arrivals(count, cv2, stream)
    return np.asarray(at * (count / at[-1]), dtype=np.float64)


@functools.lru_cache(maxsize=8 * th.TOKEN_DRAWS)
def _sized(size: Lengths, count: int, stream: int, *, inside: bool) -> tuple[list[int], list[int], list[int]]:
    """(prompt tokens to compute, those found in the prefix cache, answer tokens) of `count` requests; inside: of those
    under way at a moment.

    One from each of `count` equal steps of the distribution, in random order: the mean of a hundred independent draws
    of lengths scatters by a tenth, which near the capacity decides everything, and belongs to `LENGTH_NOISE`.
    """
    rng = np.random.default_rng([stream, int(inside)])
    steps = normal_quantiles((np.arange(count) + 0.5) / count)
    z_prompt, z_output = steps[rng.permutation(count)], steps[rng.permutation(count)]
    if inside:
        z_output = z_output + tf.spread(size.output, size.output_p95)
    whole = tf.drawn(size.prompt, size.prompt_p95, z_prompt)
    computed = [max(1, round(n * (1 - size.hit_rate))) for n in whole]
    return (
        computed,
        [n - c for n, c in zip(whole, computed, strict=True)],
        tf.drawn(size.output, size.output_p95, z_output),
    )


@functools.lru_cache(maxsize=2 * th.TOKEN_DRAWS)
def _shares(count: int, stream: int) -> list[float]:
    return [float(share) for share in np.random.default_rng([stream, 2]).random(count)]


def look(
    flow: Flow,
    waiting: float,
    settled_s: float,
    settings: PlanningSettings,
    overhead_ms: float,
    edges_ms: Mapping[str, Sequence[float]],
) -> Shown:
    """Percentiles of one replica once its queue has emptied; where it never does, of a look that begins at
    `settled_s`, with the queue that has grown by then (the fluid limit).

    waiting: requests in its queue now. edges_ms: of the histograms behind the percentiles, where they are known.
    """
    least, most = th.TOKEN_REQUESTS
    wanted = flow.qps * settings.verify_window_s
    count = int(np.clip(wanted, least, most))
    count = max(30, min(count, int(flow.qps * th.SIMULATED_MAX_S)))
    requests = requests_of(flow, count, settings.seed)
    run = tq.simulate(requests, flow.step, flow.limits)
    first, last_s = requests.running + count // 10, requests.at_s[-1]
    capacity = flow.capacity
    if run.preempted and flow.qps > th.STABLE * capacity:
        capacity = min(capacity, _thrashing(run, last_s, capacity))
    elif waiting >= th.WAITS and flow.overfills:
        capacity = min(capacity, _from_a_queue(flow, settings.seed))
    if waiting >= th.WAITS and flow.overfills and flow.limits.max_num_seqs > flow.sequences:
        # The cache and not the seats says how many run, as it does now: then what is answered now is what will be.
        capacity = min(capacity, flow.answered)
    grown = (waiting + (flow.qps - capacity) * settled_s) / capacity if flow.qps >= th.STABLE * capacity else 0.0
    # In the fluid the look's requests have waited up to what the queue has grown to by its end.
    outside = overhead_ms + 1e3 * max(0.0, grown)
    times = {"ttft_p95_ms": run.ttft_s[first:], "e2e_p95_ms": run.e2e_s[first:]}
    values = {name: 1e3 * found[np.isfinite(found)] + outside for name, found in times.items()}
    gaps, weights, reads = _gaps(run, last_s)
    luck = float(_Z[4][flow.stream])
    itl, below = pc.scattered(gaps, weights)
    # Which gaps lie beyond the percentile depends on how many prompts came, which is known to a Poisson count.
    beyond = _TAIL * math.exp(luck / math.sqrt(max(wanted, 1.0)))
    p95 = {**{name: pc.p95(found) for name, found in values.items()}, "itl_p95_ms": pc.at(itl, below, 1 - beyond)}
    noise = {name: pc.noise(found, wanted) for name, found in values.items()} | {"itl_p95_ms": th.RATE_ERROR}
    exported = {}
    for name, edges in edges_ms.items():
        if name == "itl_p95_ms":
            at = [1 - _TAIL * math.exp(z / math.sqrt(max(wanted, 1.0))) for z in pc.LUCK]
            exported[name] = tuple(pc.exported(itl, below, edges, level) for level in at)
        elif name in values and values[name].size:
            ordered = np.sort(values[name])
            shares = np.arange(1, ordered.size + 1) / ordered.size
            exported[name] = tuple(pc.exported(ordered, shares, edges, level) for level in pc.levels(_TAIL, wanted))
    return Shown(
        p95=p95,
        exported=exported,
        noise=noise,
        busy=min(1.0, run.busy_s / run.ended_s) if run.ended_s > 0 else 0.0,
        preemptions_per_s=sum(at_s <= last_s for at_s in run.preempted) / last_s if last_s > 0 else 0.0,
        tokens_per_s=run.tokens / run.ended_s if run.ended_s > 0 else 0.0,
        capacity=capacity,
        prompts=float(weights[reads].sum() / weights.sum()),
        levels=(_middle(gaps, weights, ~reads), _middle(gaps, weights, reads)),
    )


def _gaps(run: tq.Run, last_s: float) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """(gaps between tokens until `last_s` in ms, how many of each, whether somebody's prompt was read meanwhile)."""
    within = np.array(run.itl_at_s) <= last_s
    if not within.any():
        return np.array([1e-3]), np.ones(1), np.zeros(1, dtype=np.bool_)
    return 1e3 * np.array(run.itl_s)[within], np.array(run.itl_weight)[within], np.array(run.itl_reads)[within]


def _middle(gaps: FloatArray, weights: FloatArray, of: NDArray[np.bool_]) -> float:
    """Mean of some gaps, NaN where there is none."""
    return float(np.average(gaps[of], weights=weights[of])) if of.any() else math.nan


def _thrashing(run: tq.Run, last_s: float, capacity: float) -> float:
    """Answers per second of a replica that computes preempted sequences again."""
    done = sum(at_s <= last_s for at_s in run.finished)
    return max(0.05 * capacity, done / last_s) if last_s > 0 else capacity


def _from_a_queue(flow: Flow, seed: int) -> float:
    """Answers per second of a replica that is never without a queue.

    Where the cache holds fewer sequences than there are seats, a queue fills it to the brim, and sequences throw each
    other out that would have fitted had they come one by one: a load that is carried from an empty server on may never
    be carried from a queue on (a metastable failure: Bronson et al., "Metastable failures in distributed systems",
    HotOS 2021).
    """
    generation = math.ceil(flow.sequences)
    count = int(np.clip(th.QUEUED_GENERATIONS * generation, *th.QUEUED_REQUESTS))
    computed, cached, output = _sized(flow.size, count, seed + 7919 * flow.stream, inside=False)
    run = tq.simulate(Requests([0.0] * count, computed, cached, output), flow.step, flow.limits)
    # The first generation begins together, the last ones have nobody behind them.
    ended = run.finished[min(generation, count // 3) : count - min(generation, count // 3)]
    return (len(ended) - 1) / (ended[-1] - ended[0]) if len(ended) > 1 and ended[-1] > ended[0] else math.inf


def _worse_half(sound: Shown, slow: Shown, share: float) -> Shown:
    """A service of which `share` of the replicas is slow: its 95th percentile lies with the slow ones where they take
    more than a twentieth of the requests, which one replica of fewer than twenty always does."""
    if share < 0.05:
        return sound
    p95 = {name: max(value, slow.p95[name]) for name, value in sound.p95.items()}
    exported = {name: max(found, slow.exported[name]) for name, found in sound.exported.items()}
    return replace(sound, p95=p95, exported=exported, noise=slow.noise, capacity=slow.capacity)


def _summary(
    candidate: Candidate,
    observation: Observation,
    situation: TokenSituation,
    knowledge: Knowledge,
    settings: PlanningSettings,
    flows: list[Flow],
    shown: list[Shown],
    speed: tuple[float, float],
) -> Predicted:
    alias = "ttft_p95_ms" if "first_token" in observation.service.labels.get("metric.duration", "") else "e2e_p95_ms"
    limits = limits_of(observation.service.slo, OBJECTIVES)
    intervals: dict[str, Interval] = {}
    exported: dict[str, Interval] = {}
    met = np.ones(len(shown))
    for name in OBJECTIVES[1:]:
        logs = np.log([one.p95[name] for one in shown]) + knowledge.bias + knowledge.off.get(name, 0.0)
        noise = math.hypot(knowledge.scatter, float(np.median([one.noise[name] for one in shown])))
        intervals[name] = _interval(logs, noise)
        if all(name in one.exported for one in shown):
            read = np.log([v for one in shown for v in one.exported[name]])
            exported[name] = _interval(read + knowledge.bias + knowledge.off.get(name, 0.0), noise)
        asked = [limits[limit] for limit in (name, "p95_ms" if name == alias else name) if limit in limits]
        if asked:
            met = np.minimum(met, [_phi((math.log(min(asked)) - value) / noise) for value in logs])
    intervals["p95_ms"] = intervals[alias]
    exported |= {"p95_ms": exported[alias]} if alias in exported else {}
    gain, gain_sd = speed
    loads = np.array([flow.qps / one.capacity for flow, one in zip(flows, shown, strict=True)])
    sequences = float(np.median([flow.running for flow in flows]))
    return Predicted(
        shown=intervals,
        meets=float(met.mean()),
        carries=_below(loads, 1.0, 0.02),
        room=_below(loads, th.FULL, th.SURPRISE),
        load=_load(candidate, situation, gain, flows, shown),
        drain_s=_drain_s(candidate, situation, flows, shown),
        busy=float(np.median([one.busy for one in shown])),
        unproven=gain_sd >= th.UNMEASURED_SD,
        unknown=situation.steps.is_guess(sequences, flows[0].size.context),
        exported=exported,
        edge=_edge(shown),
    )


def _interval(logs: FloatArray, noise: float) -> Interval:
    low, middle, high = (math.exp(_quantile(logs, noise, level)) for level in (0.05, 0.5, 0.95))
    return Interval(value=middle, low=low, high=high)


def _edge(shown: Sequence[Shown]) -> str:
    """Why the P95 of the time between tokens may come out at either of two levels: about one gap in twenty is a long
    one, and how many are is luck."""
    shares = [one.prompts for one in shown]
    both = np.array([one.levels for one in shown])
    known = both[np.isfinite(both).all(axis=1)]
    if not known.size or min(shares) > th.EDGE_SHARES[1] or max(shares) < th.EDGE_SHARES[0]:
        return ""
    alone, read = (float(value) for value in np.median(known, axis=0))
    if read < th.EDGE_RATIO * alone:
        return ""
    return (
        f"{float(np.median(shares)):.0%} of the gaps between tokens hold somebody's prompt (about {ms(read)}, the "
        f"others {ms(alone)}), so that which of the two their P95 shows is luck"
    )


def _load(candidate: Candidate, situation: TokenSituation, gain: float, flows: list[Flow], shown: list[Shown]) -> float:
    """Arrivals over capacity, the most probable ones; less capacity where sequences preempt each other."""
    if situation.arrivals is None:
        return 0.0
    step = situation.steps.step().scaled(situation.pace / gain)
    kept = float(np.median([one.capacity / flow.capacity for flow, one in zip(flows, shown, strict=True)]))
    each = situation.arrivals.qps.value / int(candidate.setting["replicas"])
    return each / (replace(flows[0], step=step, size=situation.size or flows[0].size).capacity * kept)


def _below(loads: FloatArray, limit: float, scatter: float) -> float:
    return float(np.mean([_phi(math.log(limit / max(load, 1e-9)) / scatter) for load in loads]))


def _drain_s(candidate: Candidate, situation: TokenSituation, flows: list[Flow], shown: list[Shown]) -> float:
    """The transient, apart from the steady state: how long the queue takes to empty once the change is in effect.

    Fluid: what waits now and comes until then, over what is to spare. What waits stays with the replicas it waits for:
    new ones take from them what still comes, as a balancer by least requests does, and no more. inf where the load
    is more than what can be carried.
    """
    replicas = int(candidate.setting["replicas"])
    old = max(1, min(situation.now.replicas or 1, replicas))
    capacity = float(np.median([one.capacity for one in shown]))
    arrives = replicas * float(np.median([flow.qps for flow in flows]))
    waiting = situation.backlog + max(0.0, arrives - capacity_now(situation)) * candidate.delay_s
    spare = min(old * capacity, replicas * capacity - arrives)
    return waiting / spare if spare > 0 else math.inf


def capacity_now(situation: TokenSituation) -> float:
    """Requests per second of all replicas under the present limits when the queue never empties."""
    if situation.size is None or not situation.steps.known:
        return 0.0
    limits = Limits(situation.max_num_seqs or 256, situation.max_num_batched_tokens or 2048, situation.kv_tokens,
                    situation.block_tokens)  # fmt: skip
    flow = Flow(0.0, 1.0, situation.steps.step().scaled(situation.pace), limits, situation.size, 0)
    return max(1, situation.now.replicas or 1) * flow.capacity


def _quantile(logs: FloatArray, noise: float, level: float) -> float:
    """A quantile of a mixture of normals of sd `noise` around the draws, by bisection between the outermost ones."""
    values, shift = logs.tolist(), noise * float(normal_quantiles(np.array(level)))
    low, high = min(values) + shift, max(values) + shift
    for _ in range(12):
        middle = (low + high) / 2
        below = sum(_phi((middle - value) / noise) for value in values) / len(values)
        low, high = (middle, high) if below < level else (low, middle)
    return float((low + high) / 2)


def _phi(z: float) -> float:
    return 0.5 * (1 + math.erf(z / math.sqrt(2)))
