"""The live loop on a simulated service, and what is recorded of it: the truth that a rehearsal is measured against.

The runner of `slotune run` sweeps the simulated service of benchmarks.control in time that jumps; nothing of the
rehearsal but its clock is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.control.policies.slotune import SimulatedActuator, make_settings
from benchmarks.control.runs import STEP_S, SWEEP_S
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService
from benchmarks.control.source import SimulatedSource
from benchmarks.simulated import START_S
from detection.model import MetricWindow, Service, Span
from detection.signals import SIGNALS
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.drivers import DESIRED, INT8
from slotune.rehearsal.virtual_time import VirtualExecutor, VirtualTime
from slotune.runner import Clock, Runner
from tests.fakes.ledger import FakeLedger
from tuning import planning, verification
from tuning.loop.observe import REPLICA_SIGNALS
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Record
from tuning.settings import Settings

_REPLICAS_EVERY_S = 240.0
SETTLED_S = 300.0
"""From here on the simulated service is looked at."""


@dataclass(frozen=True)
class Recorded:
    """A run as it was recorded. ledger: what the live loop wrote, empty where nobody acted."""

    history: History
    ledger: tuple[Record, ...] = ()


class Recorder:
    """Advances a simulated service and keeps, step by step, what would be lost otherwise: settings and replicas."""

    def __init__(self, service: SimulatedService, rate_window_s: float) -> None:
        self.service, self.source = service, SimulatedSource(service, rate_window_s)
        self._desired: list[float] = [float(service.desired)]
        self._int8: list[float] = [float(service.int8)]
        self._replicas: dict[str, dict[str, list[np.ndarray]]] = {}
        self._replicas_to_s = 0.0
        self._model = Service.model_validate({"name": "simulated", "serving": "x", "slo": {"p95_ms": 1.0}})

    def advance(self, to_s: float) -> None:
        """to_s: simulated seconds."""
        while self.service.now_s < to_s - 1e-9:
            next_s = min(to_s, (self.service.now_s // STEP_S + 1) * STEP_S)
            self.service.advance(next_s)
            # A service moves by whole seconds, and may be past the grid already.
            while len(self._desired) * STEP_S <= self.service.now_s + 1e-9:
                self._desired.append(float(self.service.desired))
                self._int8.append(float(self.service.int8))
            if next_s - self._replicas_to_s >= _REPLICAS_EVERY_S:
                self._keep_replicas(next_s)

    def _keep_replicas(self, to_s: float) -> None:
        span = Span(START_S + self._replicas_to_s + STEP_S, START_S + to_s, STEP_S)
        first = round(self._replicas_to_s / STEP_S)
        found = self.source.read_replicas([self._model], REPLICA_SIGNALS, span)["simulated"]
        for name, window in found.items():
            for signal, values in window.values.items():
                parts = self._replicas.setdefault(name, {}).setdefault(signal, [np.full(first + 1, np.nan)])
                have = sum(part.size for part in parts)
                parts += [np.full(first + 1 - have, np.nan), values]
        self._replicas_to_s = to_s

    def recorded(self) -> History:
        """Everything, from second 0 on."""
        end_s = self.service.now_s // STEP_S * STEP_S
        if end_s > self._replicas_to_s:
            self._keep_replicas(end_s)
        span = Span(START_S, START_S + end_s, STEP_S)
        window = self.source.read([self._model], tuple(SIGNALS), span)["simulated"]
        values = {**window.values, DESIRED: np.array(self._desired), INT8: np.array(self._int8)}
        replicas = {}
        for name, signals in self._replicas.items():
            whole = {signal: np.concatenate(parts) for signal, parts in signals.items()}
            whole = {k: np.concatenate([v, np.full(span.points - v.size, np.nan)]) for k, v in whole.items()}
            replicas[name] = MetricWindow("simulated", span, whole, "histogram", name)
        buckets = self.source.read_buckets([self._model], span)["simulated"]
        return History(MetricWindow("simulated", span, values, window.percentile_source), replicas, buckets)


def settings_of(scenario: Scenario) -> Settings:
    """services.yaml of the simulated service, with the beat of the proving ground."""
    settings = make_settings(scenario)
    schedule = settings.schedule.model_copy(update={"watch_every_s": SWEEP_S})
    return settings.model_copy(update={"schedule": schedule}).completed()


def started(scenario: Scenario, seed: int) -> SimulatedService:
    """The scenario's service, with what somebody sets wrong at the onset on its way."""
    service = SimulatedService(
        scenario.profile, scenario.faults(seed), batch=scenario.batch, timeout_ms=scenario.timeout_ms,
        replicas=scenario.replicas, seed=seed,
    )  # fmt: skip
    service.int8 = scenario.int8
    if scenario.misset is not None:
        batch, timeout_ms = scenario.misset
        service.pending.append((ONSET_S, {"batch": batch, "timeout_ms": timeout_ms}))
    if scenario.falls_back:
        service.pending.append((ONSET_S, {"int8": False}))
    return service


def undisturbed(scenario: Scenario, seed: int) -> Recorded:
    """Nobody acts."""
    recorder = Recorder(started(scenario, seed), scenario.rate_window_s)
    recorder.advance(END_S)
    return Recorded(recorder.recorded())


def live(scenario: Scenario, seed: int, say: Callable[[str], None] = lambda _text: None) -> Recorded:
    """The loop acts, from SETTLED_S to END_S."""
    recorder = Recorder(started(scenario, seed), scenario.rate_window_s)
    recorder.advance(SETTLED_S)
    settings = settings_of(scenario)
    levers = {name: SimulatedActuator(recorder.service, name, scenario.replicas_max) for name in LEVER_STEPS}
    parts = Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=recorder.source,
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get("model")(settings.planning),
        verifier=verification.get("before_after")(settings.verification),
        ledger=(ledger := FakeLedger()),
        notifiers=[],
    )
    clock = VirtualTime(START_S + SETTLED_S, START_S + END_S, lambda at_s: recorder.advance(at_s - START_S))
    runner = Runner(lambda: parts, "live", Clock(clock.now, clock.wait), VirtualExecutor(clock), say)
    clock.run(runner.forever)
    return Recorded(recorder.recorded(), tuple(ledger.records.values()))
