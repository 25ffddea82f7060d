"""One release, with slotune's own loop around a simulated service until it has decided, or the time is over."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.control.runs import BATCH_DELAY_S, STEP_S, SWEEP_S
from benchmarks.control.simulator import Faults, SimulatedService
from benchmarks.control.source import SimulatedSource
from benchmarks.releases.cases import END_S, NEW, OLD, RELEASE_S, Case
from benchmarks.simulated import START_S
from detection.model import Service, Span, VersionWindow
from tests.fakes.ledger import FakeLedger
from tuning import planning, verification
from tuning.loop.learn_latency import learn_latency
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Change, Plan, Receipt, Setting
from tuning.settings import Settings

RATE_WINDOW_S = 20.0
MARGIN_S = 150.0
"""How long a loop is watched after the release for what it decides first: two sweeps, the objective's time, a look."""


SLO_OVER_CALM = 1.3
"""The SLO over the worst quarter of a minute of calm traffic: kept before the release, and with nothing to spare."""
WAVE = 0.25
"""How far the load goes up and down by itself, as a day's does in hours."""
BROKEN = 3
"""Quarters of a minute whose P95 is over the SLO from which it counts as broken: the objective allows 30 s."""


class Versions:
    """Which version serves: who released what, and when."""

    def __init__(self) -> None:
        self.changes: list[tuple[float, str]] = [(-math.inf, OLD), (RELEASE_S, NEW)]

    def at(self, t: float) -> str:
        return [version for at_s, version in self.changes if at_s <= t][-1]


@dataclass(frozen=True)
class Result:
    """What came of a case. broke: the SLO was broken after the release, by the truth. cause, first: of the first plan
    with a change. named: both versions, as the plan says them. reverted_s: after the release; None: it was not."""

    kind: str
    seed: int
    slow: float
    errors: float
    surge: float
    broke: bool
    cause: str
    first: str
    named: tuple[str, str] | None
    slower: tuple[float, float, float] | None
    reverted_s: float | None
    cpu_s: float

    @property
    def reverted(self) -> bool:
        return self.reverted_s is not None


class _Source(SimulatedSource):
    """The same, whose metrics carry the version."""

    def __init__(self, simulated: SimulatedService, versions: Versions) -> None:
        super().__init__(simulated, RATE_WINDOW_S)
        self._versions = versions

    def read_versions(self, services: Sequence[Service], span: Span) -> Mapping[str, VersionWindow]:
        times = span.times() - START_S
        known = (times >= 1) & (times <= self.simulated.now_s)
        at = [self._versions.at(t - 1e-6) for t in times]
        shares = {v: np.where(known, [float(one == v) for one in at], np.nan) for v in sorted(set(at))}
        return {service.name: VersionWindow(service.name, span, shares) for service in services}


class _Lever:
    """A lever of the simulated service."""

    def __init__(self, simulated: SimulatedService, lever: str, versions: Versions) -> None:
        self.name, self.lever, self._simulated, self._versions = "simulated", lever, simulated, versions

    def read(self, service: Service) -> Setting:
        s = self._simulated
        values: dict[str, dict[str, int | float | str]] = {
            "batch_size": {"batch_size": s.batch, "batch_timeout_ms": s.timeout_ms},
            "replicas": {"min_replicas": s.desired, "max_replicas": 8, "replicas": len(s.replicas)},
            "release": {"version": self._versions.at(s.now_s)},
        }
        return Setting(lever=self.lever, values=values[self.lever], owner="simulation")

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        s, before = self._simulated, {k: v for k, v in self.read(service).values.items() if k in change.new}
        if self.lever == "batch_size":
            s.set_batch(int(change.new["batch_size"]), float(change.new["batch_timeout_ms"]), BATCH_DELAY_S)
        elif self.lever == "replicas":
            s.set_replicas(int(change.new["min_replicas"]))
        else:
            self._versions.changes.append((s.now_s, str(change.new["version"])))
        return Receipt(
            id=key, plan_id="", service=service.name, lever=self.lever, before=before, after=dict(change.new),
            applied=True, changed=before != change.new, at_s=START_S + s.now_s,
        )  # fmt: skip


class _Over(Exception):
    """The case is decided, or its time is over."""


def run(case: Case) -> Result:
    """The first decision about the trouble that a case makes, if it makes any."""
    started, versions = time.process_time(), Versions()
    simulated = _simulated(case, versions)
    simulated.advance(RELEASE_S - 90)
    calm = [simulated.p95_ms(t, t + 15) for t in range(60, int(RELEASE_S) - 90, 15)]
    slo_ms = SLO_OVER_CALM * max(calm)
    parts, ledger = _parts(case, slo_ms, simulated, versions)
    until_s = min(END_S, max(RELEASE_S, case.surge_s, case.other_s if case.other_s < END_S else 0.0) + MARGIN_S)

    def wait_until(at_s: float) -> None:
        # What is decided is decided: how a change is proven is measured elsewhere.
        raise _Over

    learn_latency(parts, START_S + simulated.now_s)
    try:
        while simulated.now_s < until_s:
            if case.misset and simulated.now_s >= RELEASE_S and simulated.batch == case.batch:
                simulated.set_batch(case.misset, simulated.timeout_ms, 0.0)
            run_once(parts, lambda: START_S + simulated.now_s, wait_until)
            simulated.advance(simulated.now_s + SWEEP_S)
    except _Over:
        pass
    return _result(case, slo_ms, simulated, versions, ledger, time.process_time() - started)


def _simulated(case: Case, versions: Versions) -> SimulatedService:
    base, phase = case.base_qps(), np.random.default_rng([case.seed, 3]).uniform(0, 2 * math.pi)

    def rate(t: float) -> float:
        wave = 1 + WAVE * math.sin(2 * math.pi * t / 500 + phase)
        return base * wave * (case.surge if t >= case.surge_s else 1.0)

    def slow(t: float, _replica: int) -> float:
        mine = case.slow if versions.at(t) == NEW else 1.0
        return mine * (case.other_slow if t >= case.other_s else 1.0)

    def errors(t: float) -> float:
        mine = case.errors if versions.at(t) == NEW else 0.0
        return mine + (case.other_errors if t >= case.other_s else 0.0)

    faults = Faults(rate=rate, slow=slow, errors=errors, lost=lambda t: case.lost if t >= RELEASE_S else 0)
    return SimulatedService(
        case.profile, faults, batch=case.batch, timeout_ms=2.0, replicas=case.replicas, seed=case.seed
    )


def _parts(case: Case, slo_ms: float, simulated: SimulatedService, versions: Versions) -> tuple[Parts, FakeLedger]:
    settings, ledger = _settings(case, slo_ms), FakeLedger()
    levers = {name: _Lever(simulated, name, versions) for name in LEVER_STEPS}
    planned = settings.planning.model_copy(update={"rate_window_s": RATE_WINDOW_S, "verify_window_s": 90.0})
    parts = Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=_Source(simulated, versions),
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get("model")(planned),
        verifier=verification.get("before_after")(settings.verification),
        ledger=ledger,
        notifiers=[],
    )
    return parts, ledger


def _settings(case: Case, slo_ms: float) -> Settings:
    call = {"path": "/x", "version_at": "/version"}, {"path": "/x/{version}"}
    levers = {
        "batch_size": {"connection": "sim", "min": 1, "max": 32, "effect_delay_s": BATCH_DELAY_S},
        "replicas": {"connection": "sim", "min": 1, "max": 8, "namespace": "sim", "target": "sim",
                     "cost_per_hour": 1.2, "effect_delay_s": case.profile.start_s},
        "release": {"actuator": "http_release", "connection": "sim", "mode": "act", "read": call[0], "write": call[1]},
    }  # fmt: skip
    service = {
        "name": "simulated", "serving": "slotune_demo", "selectors": {"service": "simulated"}, "mode": "act",
        "slo": {"p95_ms": slo_ms, "for_s": 30.0}, "levers": levers,
    }  # fmt: skip
    return Settings.model_validate({
        "prometheus": {"connection": "sim", "rate_window_s": RATE_WINDOW_S, "step_s": STEP_S},
        "services": [service],
        "detection": {"lookback_s": 600.0, "detectors": ["rules"]},
        "releases": {"proven_after_s": 120.0},
        "safety": {"cool_down_s": 0.0, "changes_per_hour": 20},
    })  # fmt: skip


def _result(
    case: Case, slo_ms: float, simulated: SimulatedService, versions: Versions, ledger: FakeLedger, cpu_s: float
) -> Result:
    plans = [Plan.model_validate(r.body) for r in ledger.records.values() if r.kind == "choose_action"]
    plans = [plan for plan in plans if plan.decided_at_s >= START_S + RELEASE_S]
    chosen = next((plan for plan in plans if plan.chosen.changes), None)
    told = next((plan.diagnosis for plan in plans if plan.diagnosis.release is not None), None)
    reverted = next((at_s for at_s, version in versions.changes[2:] if version == OLD), None)
    slower = told.slower if told is not None else None
    spans = range(int(RELEASE_S), int(simulated.now_s) - 15, 15)
    by_time = sum(simulated.p95_ms(t, t + 15) > slo_ms for t in spans) >= BROKEN
    return Result(
        kind=case.kind,
        seed=case.seed,
        slow=round(case.slow, 3),
        errors=round(case.errors, 3),
        surge=round(case.surge, 3),
        broke=by_time or case.errors > 0.01,
        cause=(chosen or (plans[0] if plans else None)).diagnosis.cause if plans else "",  # type: ignore[union-attr]
        first=chosen.chosen.levers[0] if chosen is not None else "",
        named=None if told is None or told.release is None else (told.release.old, told.release.new),
        slower=None if slower is None else (slower.value, slower.low, slower.high),
        reverted_s=None if reverted is None else reverted - RELEASE_S,
        cpu_s=round(cpu_s, 2),
    )
