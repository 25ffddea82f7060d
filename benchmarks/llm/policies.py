"""What others do about it, as published, on what a server exports; and nobody, and somebody who knows everything."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.llm.scenarios import END_S, JUDGED_S, LOOK_S, OBJECTIVES, ONSET_S, STRETCH_S, Scenario
from benchmarks.llm.source import WorldSource
from benchmarks.llm.world import World
from benchmarks.simulated import START_S
from detection.model import Service, Span

RATE_WINDOW_S, STEP_S = 30.0, 5.0
_NOBODY = Service.model_validate({"name": "x", "serving": "vllm", "slo": {"p95_ms": 1.0}})


@dataclass
class Action:
    """One change of a setting. predicted: by objective (value, low, high). settled_s: until the loop looked at it,
    where it waited longer than `effect_s` because a queue still drained."""

    at_s: float
    lever: str
    text: str
    effect_s: float
    undo: bool = False
    predicted: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    settled_s: float = 0.0


@dataclass
class Run:
    world: World
    actions: list[Action] = field(default_factory=list)
    cause: str = ""
    planned_s: float | None = None
    reasons: list[str] = field(default_factory=list)


class Eyes:
    """The newest values of the exported signals."""

    def __init__(self, world: World) -> None:
        self.world, self.source = world, WorldSource(world, RATE_WINDOW_S)

    def now(self, *signals: str) -> list[float]:
        end = START_S + self.world.now_s
        found = self.source.read([_NOBODY], signals, Span(end, end, STEP_S))["x"].values
        return [float(found[name][-1]) for name in signals]


def scale(run: Run, scenario: Scenario, count: int) -> None:
    """Ask for replicas within the bounds; nothing where that is what there is."""
    count = max(scenario.replicas, min(scenario.replicas_max, count))
    world = run.world
    if count == world.desired:
        return
    text = f"replicas {world.desired} -> {count}"
    world.set_replicas(count)
    run.actions.append(Action(world.now_s, "replicas", text, world.profile.start_s + RATE_WINDOW_S))


def nothing(scenario: Scenario, world: World) -> Run:
    world.advance(END_S)
    return Run(world)


def _autoscaled(
    scenario: Scenario, world: World, every_s: float, wanted: Callable[[Eyes, World], float], up: Callable[[int], int]
) -> Run:
    """An HPA around a recommendation: up at once as far as `up` allows, down by the highest of 300 s."""
    run, eyes = Run(world), Eyes(world)
    recommended: list[tuple[float, int]] = []
    while world.now_s < END_S:
        world.advance(min(END_S, world.now_s + every_s))
        value = wanted(eyes, world)
        if not math.isfinite(value):
            continue
        count = max(1, math.ceil(value))
        recommended = [r for r in (*recommended, (world.now_s, count)) if r[0] > world.now_s - 300.0]
        floor = max(r[1] for r in recommended)
        if count > world.desired:
            scale(run, scenario, min(count, up(world.desired)))
        elif floor < world.desired:
            scale(run, scenario, floor)
    return run


def hpa(scenario: Scenario, world: World) -> Run:
    """HPA on vllm:num_requests_waiting with an average of 5 a pod (the guides of vLLM's production stack and GKE say 3
    to 5 to begin with), sync 15 s, tolerance 0.1, at most max(100 %, 4 pods) more per 15 s."""

    def wanted(eyes: Eyes, world: World) -> float:
        (waiting,) = eyes.now("queue_depth")
        ratio = waiting / max(1, world.desired) / 5.0
        return float(world.desired) if abs(ratio - 1) <= 0.1 else waiting / 5.0

    return _autoscaled(scenario, world, 15.0, wanted, lambda n: max(2 * n, n + 4))


def keda(scenario: Scenario, world: World) -> Run:
    """KEDA with two Prometheus triggers, waiting requests (5 a replica) and KV cache use (70 %), polled every 30 s; the
    larger recommendation counts."""

    def wanted(eyes: Eyes, world: World) -> float:
        waiting, usage, ready = eyes.now("queue_depth", "kv_usage", "replicas")
        return max(waiting / 5.0, ready * usage / 0.7)

    return _autoscaled(scenario, world, 30.0, wanted, lambda n: max(2 * n, n + 4))


def wva(scenario: Scenario, world: World) -> Run:
    """The saturation policy of llm-d's workload variant autoscaler with its defaults: a replica is saturated from 80 %
    of the cache or 5 waiting; one more where the others have less than 10 % or 3 to spare on average; one fewer where
    what remains would still have that; none while one is starting. Every 60 s."""
    run, eyes = Run(world), Eyes(world)
    while world.now_s < END_S:
        world.advance(min(END_S, world.now_s + 60.0))
        usage, waiting, ready = eyes.now("kv_usage", "queue_depth", "replicas")
        if not math.isfinite(usage) or ready < world.desired - scenario.faults().lost(world.now_s):
            continue
        each = waiting / max(1.0, ready)
        if usage >= 0.8 or each >= 5 or 0.8 - usage < 0.1 or 5 - each < 3:
            scale(run, scenario, world.desired + 1)
        elif ready > 1:
            grown = ready / (ready - 1)
            if 0.8 - usage * grown >= 0.1 and 5 - each * grown >= 3:
                scale(run, scenario, world.desired - 1)
    return run


def dynamo(scenario: Scenario, world: World) -> Run:
    """The formulas of Dynamo's SLA planner on a perfect profile of the server (it profiles before it serves), every
    180 s as by default: prefill replicas = prompt tokens per s x min(1, correction) over prefill throughput, decode
    replicas = answer tokens per s over the throughput of the largest concurrency whose ITL keeps the objective over its
    own correction factor. One pool serves both here, so that the two are added before they are rounded up."""
    run, eyes, profile = Run(world), Eyes(world), world.profile
    while world.now_s < END_S:
        world.advance(min(END_S, world.now_s + 180.0))
        rate, prompt, output, hits, itl, ttft, running = eyes.now(
            "arrivals_per_s", "prompt_tokens", "output_tokens", "prefix_hit_rate", "itl_ms", "ttft_ms", "running"
        )
        if not all(math.isfinite(v) for v in (rate, prompt, output, itl, ttft, running)):
            continue
        prompt *= 1 - (hits if math.isfinite(hits) else 0.0)
        context = prompt + output / 2
        expected = 1e3 * profile.iteration_s(max(1, round(running)), 0, 0.0, running * context)
        correction = itl / expected
        prefill_ms = 1e3 * profile.iteration_s(0, round(prompt), 0.0, 0.0)
        needed = rate * prefill_ms / 1e3 * min(1.0, ttft / prefill_ms)
        most = min(world.limits[0], int(profile.kv_tokens / max(context, 1.0)))
        counts = np.arange(1, max(2, most + 1))
        times = np.array([1e3 * profile.iteration_s(int(n), 0, 0.0, n * context) for n in counts])
        good = counts[times <= scenario.limits["itl_p95_ms"] / max(correction, 1e-6)]
        n = int(good[-1]) if good.size else 1
        needed += rate * output / (1e3 * n / times[n - 1])
        scale(run, scenario, math.ceil(needed))
    return run


def cured(scenario: Scenario, world: World) -> bool:
    """Both objectives in the last minutes before it is judged: overall, and in nine of ten stretches; few errors."""
    start = JUDGED_S - LOOK_S
    part = world.seconds[int(start) : int(JUDGED_S)]
    failed = sum(s.errors for s in part) / max(1, sum(s.came for s in part))
    for signal in OBJECTIVES:
        limit = scenario.limits[signal]
        stretches = [world.p95_ms(signal, t, t + STRETCH_S) for t in np.arange(start, JUDGED_S - 1, STRETCH_S)]
        known = [value <= limit for value in stretches if math.isfinite(value)]
        if not known or np.mean(known) < 0.9 or not world.p95_ms(signal, start, JUDGED_S) <= limit:
            return False
    return failed <= 0.01


def violation_min(scenario: Scenario, world: World, until_s: float = END_S) -> float:
    """Minutes after the onset in which an objective was broken; a stretch in which nothing was answered counts."""
    starts = np.arange(ONSET_S, until_s - STRETCH_S + 1, STRETCH_S)
    over = [
        any(not world.p95_ms(signal, t, t + STRETCH_S) <= scenario.limits[signal] for signal in OBJECTIVES)
        for t in starts
    ]
    return sum(over) * STRETCH_S / 60.0


def oracle(scenario: Scenario, world: World, at_s: float) -> tuple[Run, bool]:
    """Every option tried offline at the time at which slotune planned; the cheapest that cures is made. (run, curable)

    Of those that cost the same, three at most are tried to the end, and the one with the fewest minutes is made.
    """
    world.advance(at_s)
    best: tuple[tuple[float, float], Run] | None = None
    cures = 0
    for sequences, tokens, replicas in _choices(scenario, world):
        price = replicas - world.desired
        if best is not None and (price > best[0][0] or cures >= 3):
            break
        run = Run(world.twin())
        changed = (sequences, tokens) != world.limits or replicas != world.desired
        if (sequences, tokens) != world.limits:
            run.world.set_limits(sequences, tokens)
        if replicas != world.desired:
            run.world.set_replicas(replicas)
        if changed:
            run.actions.append(
                Action(at_s, "oracle", f"{sequences} sequences, {tokens} tokens, {replicas} replicas", 0)
            )
        run.world.advance(END_S)
        if cured(scenario, run.world):
            cures += 1
            key = (float(price), violation_min(scenario, run.world) - (0.0 if changed else 1e9))
            if best is None or key < best[0]:
                best = (key, run)
            if not changed:
                break
    if best is not None:
        return best[1], True
    return nothing(scenario, world.twin()), False


def _choices(scenario: Scenario, world: World) -> list[tuple[int, int, int]]:
    """Nothing first, then limits alone, then replicas alone and with the limits that are furthest apart."""
    (now, tokens), replicas = world.limits, world.desired
    wanted = (now // 8, now // 4, now // 2, 2 * now, 4 * now, scenario.sequences_max)
    counts = sorted({n for n in wanted if 1 <= n <= scenario.sequences_max and n != now})
    budgets = [b for b in (512, 2048, 8192) if b != tokens and b >= now]
    found = [(now, tokens, replicas), *((n, tokens, replicas) for n in counts), *((now, b, replicas) for b in budgets)]
    for count in range(replicas + 1, scenario.replicas_max + 1):
        found.append((now, tokens, count))
        found += [(n, tokens, count) for n in (now // 4, scenario.sequences_max) if n in counts]
        found += [(now, b, count) for b in budgets[:1]]
    return found


POLICIES: dict[str, Callable[[Scenario, World], Run]] = {
    "dynamo": dynamo,
    "hpa": hpa,
    "keda": keda,
    "nothing": nothing,
    "wva": wva,
}
"""Published policies, and doing nothing; slotune and the oracle have files and needs of their own."""
