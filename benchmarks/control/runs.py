"""What a policy does to the simulated service, what it sees of it, and when the service counts as cured."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService
from benchmarks.control.source import SimulatedSource
from benchmarks.simulated import START_S
from detection.model import Service, Span

RATE_WINDOW_S = 20.0
STEP_S = 5.0
SWEEP_S = 30.0
INT8_DELAY_S = 120.0
BATCH_DELAY_S = 2.0
FOR_S = 30.0
"""How long P95 must be over the SLO for an incident, in every scenario."""
FAILED = 0.01
"""Share of requests that may fail, in every scenario."""
_NOBODY = {"name": "simulated", "serving": "x", "slo": {"p95_ms": 1.0}}


@dataclass
class Action:
    """One change of the setting. at_s: simulated seconds."""

    at_s: float
    lever: str
    text: str
    effect_s: float
    undo: bool = False
    predicted: tuple[float, float, float] | None = None


@dataclass
class Run:
    """What a policy did. cause: what it named (slotune only). held: it decided, at least once, to do nothing."""

    service: SimulatedService
    actions: list[Action] = field(default_factory=list)
    cause: str = ""
    held: bool = False
    reasons: list[str] = field(default_factory=list)


Policy = Callable[[Scenario, SimulatedService, int], Run]


class Eyes:
    """What a simple policy looks at: the newest values of a few signals."""

    def __init__(self, service: SimulatedService) -> None:
        self.service, self.source = service, SimulatedSource(service, RATE_WINDOW_S)
        self.model = Service.model_validate(_NOBODY)

    def look(self, *signals: str, seconds: float = 0.0) -> dict[str, np.ndarray]:
        end = START_S + self.service.now_s
        span = Span(end - seconds, end, STEP_S)
        return dict(self.source.read([self.model], signals, span)["simulated"].values)


def set_batch(run: Run, batch: int, timeout_ms: float) -> None:
    service = run.service
    text = f"batch_size {service.batch} -> {batch}"
    service.set_batch(batch, timeout_ms, BATCH_DELAY_S)
    run.actions.append(Action(service.now_s, "batch_size", text, RATE_WINDOW_S + BATCH_DELAY_S))


def set_replicas(run: Run, count: int) -> None:
    service = run.service
    text = f"replicas {service.desired} -> {count}"
    service.set_replicas(count)
    run.actions.append(Action(service.now_s, "replicas", text, RATE_WINDOW_S + service.profile.start_s))


def set_int8(run: Run) -> None:
    run.service.set_int8(True, INT8_DELAY_S)
    run.actions.append(Action(run.service.now_s, "precision", "precision fp32 -> int8", RATE_WINDOW_S + INT8_DELAY_S))


def cured(scenario: Scenario, service: SimulatedService) -> bool:
    """P95 of the last `look_s` before it is judged: under the SLO overall and in 9 of 10 stretches; few errors."""
    until_s, stretch_s = scenario.judged_s, scenario.stretch_s
    start = until_s - scenario.look_s
    stretches = [service.p95_ms(t, t + stretch_s) for t in np.arange(start, until_s - stretch_s + 1, stretch_s)]
    under = [p95 <= scenario.slo_ms for p95 in stretches if math.isfinite(p95)]
    whole = service.p95_ms(start, until_s) <= scenario.slo_ms
    return whole and len(under) > 0 and float(np.mean(under)) >= 0.9 and failed(service, start, until_s) <= FAILED


def failed(service: SimulatedService, start_s: float = ONSET_S, end_s: float = END_S) -> float:
    """Share of the requests of a span that were refused or failed, 0..1."""
    part = service.seconds[int(start_s) : int(end_s)]
    return sum(s.errors for s in part) / max(1, sum(s.errors + s.latencies.size for s in part))


def violation_min(scenario: Scenario, service: SimulatedService) -> float:
    """Minutes after the onset whose P95 (in short stretches) was over the SLO; a stretch without answers counts."""
    return len(over_s(scenario, service)) * short_s(scenario) / 60.0


def short_s(scenario: Scenario) -> float:
    """Length of the stretches in which violations are counted: 10 s, longer where 10 s hold too few requests."""
    return max(10.0, 2 / 3 * scenario.stretch_s)


def over_s(scenario: Scenario, service: SimulatedService) -> list[float]:
    """Starts of the short stretches after the onset whose P95 is over the SLO."""
    length = short_s(scenario)
    starts = np.arange(ONSET_S, END_S - length + 1, length)
    return [float(t) for t in starts if not service.p95_ms(t, t + length) <= scenario.slo_ms]


def alarm_s(scenario: Scenario, service: SimulatedService, start_s: float = ONSET_S) -> float | None:
    """When the SLO's own rule first speaks after `start_s`: P95 or the error rate, as exported, over its limit for
    FOR_S in a row; None where it never does before the incident is judged."""
    source, name = SimulatedSource(service, scenario.rate_window_s), Service.model_validate(_NOBODY)
    span = Span(START_S + start_s, START_S + scenario.judged_s, STEP_S)
    seen = source.read([name], ("p95_ms", "error_rate"), span)["simulated"].values
    over = (seen["p95_ms"] > scenario.slo_ms) | (seen["error_rate"] > FAILED)
    run = 0
    for k, point in enumerate(over.tolist()):
        run = run + 1 if point else 0
        if (run - 1) * STEP_S >= FOR_S:
            return start_s + k * STEP_S
    return None
