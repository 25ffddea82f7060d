"""Who may turn the knobs: slotune's own loop, and what people use instead. Each drives the same simulated service."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService
from benchmarks.control.source import START_S, SimulatedSource
from detection.model import Service, Span
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Change, Plan, Receipt, Record, Setting
from tuning.settings import Settings

RATE_WINDOW_S = 20.0
STEP_S = 5.0
SWEEP_S = 30.0
INT8_DELAY_S = 120.0
BATCH_DELAY_S = 2.0


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
    planned_s: float | None = None
    reasons: list[str] = field(default_factory=list)


Policy = Callable[[Scenario, SimulatedService, int], Run]


def make_settings(scenario: Scenario) -> Settings:
    """services.yaml of the simulated service: its levers, bounds and prices, everything else as it is by default."""
    levers: dict[str, object] = {
        "batch_size": {"connection": "sim", "min": 1, "max": scenario.batch_max, "timeout_max_ms": 1000.0,
                       "effect_delay_s": BATCH_DELAY_S},
        "replicas": {"connection": "sim", "min": 1, "max": scenario.replicas_max, "namespace": "sim", "target": "sim",
                     "cost_per_hour": 1.2, "effect_delay_s": scenario.profile.start_s},
    }  # fmt: skip
    if scenario.precision:
        levers["precision"] = {"connection": "sim", "onnx": "model.onnx", "effect_delay_s": INT8_DELAY_S}
    return Settings.model_validate(
        {
            "prometheus": {"connection": "sim", "rate_window_s": RATE_WINDOW_S, "step_s": STEP_S},
            "services": [
                {
                    "name": "simulated",
                    "serving": "slotune_demo",
                    "selectors": {"service": "simulated"},
                    "slo": {"p95_ms": scenario.slo_ms, "for_s": 30.0},
                    "mode": "act",
                    "levers": levers,
                }
            ],
            "detection": {"lookback_s": 1200.0, "detectors": ["rules"]},
            "planning": {"planner": "model"},
            "verification": {"look_s": 90.0, "longer_look_s": 90.0, "rate_window_s": RATE_WINDOW_S},
            "safety": {"cool_down_s": 0.0, "changes_per_hour": 20, "error_budget": 1.0},
        }
    )


class SimulatedActuator:
    """One lever of the simulated service, absolute and idempotent like the real ones."""

    name = "simulated"

    def __init__(self, service: SimulatedService, lever: str, maximum: int) -> None:
        self.service, self.lever, self.maximum = service, lever, maximum
        self.made: list[tuple[float, Change]] = []

    def read(self, service: Service) -> Setting:
        s = self.service
        values: dict[str, dict[str, int | float | str]] = {
            "batch_size": {"batch_size": s.batch, "batch_timeout_ms": s.timeout_ms},
            "replicas": {"min_replicas": s.desired, "max_replicas": self.maximum, "replicas": len(s.replicas)},
            "precision": {"version": "1", "precision": "int8" if s.int8 else "fp32"},
        }
        return Setting(lever=self.lever, values=values[self.lever], owner="simulation")

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before = {k: v for k, v in self.read(service).values.items() if k in change.new}
        if self.lever == "batch_size":
            self.service.set_batch(int(change.new["batch_size"]), float(change.new["batch_timeout_ms"]), BATCH_DELAY_S)
        elif self.lever == "replicas":
            self.service.set_replicas(int(change.new["min_replicas"]))
        else:
            self.service.set_int8(change.new["precision"] == "int8", INT8_DELAY_S)
        self.made.append((self.service.now_s, change))
        return Receipt(
            id=key,
            plan_id="",
            service=service.name,
            lever=self.lever,
            before=before,
            after=dict(change.new),
            applied=True,
            changed=before != change.new,
            at_s=START_S + self.service.now_s,
        )


class _Over(Exception):
    """The scenario ends while the loop waits."""


def make_parts(
    scenario: Scenario, service: SimulatedService, planner: str = "model"
) -> tuple[Parts, dict[str, SimulatedActuator]]:
    """The production loop around the simulated service."""
    from tests.fakes.ledger import FakeLedger
    from tuning import planning, verification

    settings = make_settings(scenario)
    levers = {name: SimulatedActuator(service, name, scenario.replicas_max) for name in LEVER_STEPS}
    planning_settings = settings.planning.model_copy(
        update={"rate_window_s": RATE_WINDOW_S, "verify_window_s": settings.verification.look_s}
    )
    parts = Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=SimulatedSource(service, RATE_WINDOW_S),
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get(planner)(planning_settings),
        verifier=verification.get("before_after")(settings.verification),
        ledger=FakeLedger(),
        notifiers=[],
    )
    return parts, levers


def slotune(scenario: Scenario, service: SimulatedService, seed: int, planner: str = "model") -> Run:
    """tuning.loop.run_once, sweep after sweep, as in production; only time, source and actuators are simulated."""
    parts, levers = make_parts(scenario, service, planner)
    ledger = parts.ledger

    def now() -> float:
        return START_S + service.now_s

    def wait_until(at_s: float) -> None:
        target = math.ceil(at_s - START_S)
        if target >= END_S:
            service.advance(END_S)
            raise _Over
        service.advance(target)

    try:
        while service.now_s < END_S:
            before = service.now_s
            run_once(parts, now, wait_until)
            service.advance(min(END_S, max(service.now_s, before + SWEEP_S)))
    except _Over:
        pass
    run = _run_of(service, ledger.records.values(), levers)
    run.reasons += [str(r.body.get("reason")) for r in ledger.records.values() if r.kind in ("guard", "hold")]
    return run


def _run_of(service: SimulatedService, records: object, levers: dict[str, SimulatedActuator]) -> Run:
    run = Run(service)
    plans: dict[str, Plan] = {}
    for record in sorted(records, key=lambda r: r.at_s):  # type: ignore[call-overload]
        assert isinstance(record, Record)
        if record.kind in ("choose_action", "roll_back") and "chosen" in record.body:
            plan = Plan.model_validate(record.body)
            plans[plan.id] = plan
            if record.kind == "choose_action":
                run.planned_s = run.planned_s or record.at_s - START_S
                run.cause = run.cause or plan.diagnosis.cause
                run.reasons.append(plan.reason)
                run.held = run.held or not plan.chosen.changes
        moved = record.kind in (*LEVER_STEPS.values(), "roll_back") and record.phase == "result"
        if moved and "changed" in record.body:
            receipt = Receipt.model_validate(record.body)
            plan = plans[receipt.plan_id]
            if not receipt.changed:
                continue
            text = next(c.text() for c in plan.chosen.changes if c.lever == receipt.lever)
            shown = plan.chosen.predicted_p95_ms
            predicted = (shown.value, shown.low, shown.high) if shown and not plan.rollback_of else None
            at_s, undo = receipt.at_s - START_S, bool(plan.rollback_of)
            action = Action(at_s, receipt.lever, text, plan.settle_s, undo, predicted)
            # The two changes of a pair are one action.
            last = run.actions[-1] if run.actions else None
            if last is not None and last.at_s == action.at_s and last.undo == action.undo:
                last.lever, last.text = f"{last.lever}+{action.lever}", f"{last.text} and {action.text}"
            else:
                run.actions.append(action)
    return run


def nothing(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    service.advance(END_S)
    return Run(service, held=True)


class _Eyes:
    """What a simple policy looks at: the newest values of a few signals."""

    def __init__(self, service: SimulatedService) -> None:
        self.service, self.source = service, SimulatedSource(service, RATE_WINDOW_S)
        self.model = Service.model_validate({"name": "simulated", "serving": "x", "slo": {"p95_ms": 1.0}})

    def look(self, *signals: str, seconds: float = 0.0) -> dict[str, np.ndarray]:
        end = START_S + self.service.now_s
        span = Span(end - seconds, end, STEP_S)
        return dict(self.source.read([self.model], signals, span)["simulated"].values)


def _batch(run: Run, batch: int, timeout_ms: float) -> None:
    service = run.service
    text = f"batch_size {service.batch} -> {batch}"
    service.set_batch(batch, timeout_ms, BATCH_DELAY_S)
    run.actions.append(Action(service.now_s, "batch_size", text, RATE_WINDOW_S + BATCH_DELAY_S))


def _replicas(run: Run, count: int) -> None:
    service = run.service
    text = f"replicas {service.desired} -> {count}"
    service.set_replicas(count)
    run.actions.append(Action(service.now_s, "replicas", text, RATE_WINDOW_S + service.profile.start_s))


def _int8(run: Run) -> None:
    run.service.set_int8(True, INT8_DELAY_S)
    run.actions.append(Action(run.service.now_s, "precision", "precision fp32 -> int8", RATE_WINDOW_S + INT8_DELAY_S))


def hpa(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """Kubernetes' published algorithm on utilisation with its defaults: target 80 %, sync 15 s, tolerance 0.1,
    scale up by at most max(100 %, 4 pods) per 15 s, scale down by the highest recommendation of 300 s."""
    run, eyes = Run(service), _Eyes(service)
    recommended: list[tuple[float, int]] = []
    while service.now_s < END_S:
        service.advance(service.now_s + 15.0)
        busy = eyes.look("busy")["busy"][-1]
        if not np.isfinite(busy):
            continue
        ready = max(1, service.seconds[-1].ready)
        ratio = busy / 0.8
        wanted = service.desired if abs(ratio - 1) <= 0.1 else math.ceil(ready * ratio)
        wanted = max(scenario.replicas, min(scenario.replicas_max, wanted))
        recommended.append((service.now_s, wanted))
        recommended = [r for r in recommended if r[0] > service.now_s - 300.0]
        if wanted > service.desired:
            _replicas(run, min(wanted, max(2 * service.desired, service.desired + 4)))
        elif (floor := max(r[1] for r in recommended)) < service.desired:
            _replicas(run, floor)
    return run


def ladder(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """The article's ladder with fixed thresholds: P95 over the SLO for a minute: batch x2; two minutes later INT8."""
    run, eyes = Run(service), _Eyes(service)
    rungs = ["batch_size"] + (["precision"] if scenario.precision else [])
    ready_s = 0.0
    while service.now_s < END_S:
        service.advance(service.now_s + SWEEP_S)
        p95 = eyes.look("p95_ms", seconds=60.0)["p95_ms"]
        if service.now_s < ready_s or not rungs or not (np.isfinite(p95).all() and (p95 > scenario.slo_ms).all()):
            continue
        if rungs.pop(0) == "batch_size":
            _batch(run, min(scenario.batch_max, 2 * service.batch), service.timeout_ms)
            ready_s = service.now_s + 120.0
        else:
            _int8(run)
            ready_s = service.now_s + 120.0 + INT8_DELAY_S
    return run


def aimd(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """Clipper's batching: every 5 s one row more while P95 meets the SLO, 10 % fewer once it does not."""
    run, eyes = Run(service), _Eyes(service)
    while service.now_s < END_S:
        service.advance(service.now_s + 5.0)
        p95 = eyes.look("p95_ms")["p95_ms"][-1]
        if not np.isfinite(p95):
            continue
        wanted = service.batch + 1 if p95 <= scenario.slo_ms else math.floor(0.9 * service.batch)
        wanted = max(1, min(scenario.batch_max, wanted))
        if wanted != service.batch:
            _batch(run, wanted, service.timeout_ms)
    return run


def random_lever(scenario: Scenario, service: SimulatedService, seed: int) -> Run:
    """A minute over the SLO: any lever to any value, three tries at most, two minutes apart."""
    run, eyes, rng = Run(service), _Eyes(service), np.random.default_rng(seed)
    ready_s, tries = 0.0, 0
    while service.now_s < END_S:
        service.advance(service.now_s + SWEEP_S)
        p95 = eyes.look("p95_ms", seconds=60.0)["p95_ms"]
        late = np.isfinite(p95).all() and (p95 > scenario.slo_ms).all()
        if service.now_s < ready_s or not late or tries >= 3:
            continue
        lever = rng.choice(["batch_size", "replicas"] + (["precision"] if scenario.precision else []))
        if lever == "batch_size":
            _batch(run, int(rng.integers(1, scenario.batch_max + 1)), service.timeout_ms)
        elif lever == "replicas":
            _replicas(run, int(rng.integers(1, scenario.replicas_max + 1)))
        else:
            _int8(run)
        ready_s, tries = service.now_s + 120.0 + (INT8_DELAY_S if lever == "precision" else 0.0), tries + 1
    return run


@dataclass(frozen=True)
class Choice:
    """One option of the oracle: absolute values, None = as it is."""

    batch: tuple[int, float] | None = None
    replicas: int | None = None
    int8: bool = False

    def make(self, run: Run) -> None:
        if self.batch is not None:
            _batch(run, *self.batch)
        if self.replicas is not None:
            _replicas(run, self.replicas)
        if self.int8:
            _int8(run)
        if len(run.actions) > 1:
            levers, text = "+".join(a.lever for a in run.actions), " and ".join(a.text for a in run.actions)
            run.actions = [Action(run.actions[0].at_s, levers, text, max(a.effect_s for a in run.actions))]

    @property
    def empty(self) -> bool:
        return self == Choice()


def choices(scenario: Scenario, service: SimulatedService) -> list[Choice]:
    """Every option, cheapest first: nothing, batches, INT8, INT8 with a batch, then replicas alone and with a batch."""
    waits = sorted({0.0, service.timeout_ms})
    sizes = sorted({2**k for k in range(8) if 2**k <= scenario.batch_max} | {scenario.batch_max})
    batches = [(size, wait) for size in sizes for wait in waits if (size, wait) != (service.batch, service.timeout_ms)]
    batches.sort(key=lambda b: (b[1] != service.timeout_ms, -b[0]))
    big = [(scenario.batch_max, service.timeout_ms), (max(1, scenario.batch_max // 2), service.timeout_ms)]
    found = [Choice(), *(Choice(batch=b) for b in batches)]
    if scenario.precision:
        found += [Choice(int8=True), *(Choice(batch=b, int8=True) for b in big)]
    for count in range(service.desired + 1, scenario.replicas_max + 1):
        found.append(Choice(replicas=count))
        found += [Choice(batch=b, replicas=count) for b in big if b[0] != service.batch]
    if scenario.precision:
        found.append(Choice(int8=True, replicas=scenario.replicas_max))
    return found


def oracle(scenario: Scenario, service: SimulatedService, at_s: float) -> tuple[Run, bool]:
    """Try every option offline at the time at which slotune planned; make the cheapest that cures. (run, curable)

    Options whose true capacity is below the load at the end are not tried: they cannot do. Of the options that cost the
    same (at most three that cure are tried) the one with the fewest minutes over the SLO is made.
    """
    service.advance(at_s)
    best: tuple[tuple[float, float], Run] | None = None
    cures = 0
    for choice in choices(scenario, service):
        price = (choice.replicas or service.desired) - service.desired
        if best is not None and (price > best[0][0] or cures >= 3):
            break
        if not choice.empty and not _can_carry(choice, service):
            continue
        run = Run(copy.deepcopy(service), held=choice.empty)
        choice.make(run)
        run.service.advance(END_S)
        if cured(scenario, run.service, END_S):
            cures += 1
            key = (float(price), violation_min(scenario, run.service) + (0.0 if not choice.empty else -1e9))
            if best is None or key < best[0]:
                best = (key, run)
            if choice.empty:
                break
    if best is not None:
        return best[1], True
    run = Run(copy.deepcopy(service), held=True)
    run.service.advance(END_S)
    return run, False


def _can_carry(choice: Choice, service: SimulatedService) -> bool:
    """True capacity of every replica with full batches against the load of the last minutes."""
    profile, faults = service.profile, service.faults
    late = np.arange(END_S - 120.0, END_S, 5.0)
    replicas = max(1, (choice.replicas or service.desired) - faults.lost(END_S - 1))
    batch = choice.batch[0] if choice.batch else service.batch
    slow = float(np.mean([faults.slow(t, k) for t in late for k in range(replicas)]))
    bend = 1 - profile.curve * min(1.0, (batch - 1) / 31)
    gain = profile.int8_gain if choice.int8 else 1.0
    took_s = (profile.alpha_ms + profile.beta_ms * batch * bend) / 1e3 * slow / gain
    return float(np.mean([faults.rate(t) for t in late])) < 1.02 * replicas * batch / took_s


def cured(scenario: Scenario, service: SimulatedService, until_s: float, span_s: float = 150.0) -> bool:
    """P95 of the last `span_s` before `until_s`: under the SLO overall and in 9 of 10 stretches of 15 s; few errors."""
    start = until_s - span_s
    stretches = [service.p95_ms(t, t + 15.0) for t in np.arange(start, until_s - 1, 15.0)]
    under = [p95 <= scenario.slo_ms for p95 in stretches if math.isfinite(p95)]
    part = service.seconds[int(start) : int(until_s)]
    failed = sum(s.errors for s in part) / max(1, sum(s.errors + s.latencies.size for s in part))
    whole = service.p95_ms(start, until_s) <= scenario.slo_ms
    return whole and len(under) > 0 and float(np.mean(under)) >= 0.9 and failed <= 0.01


def violation_min(scenario: Scenario, service: SimulatedService) -> float:
    """Minutes after the onset whose P95 (in stretches of 10 s) was over the SLO; a stretch without answers counts."""
    starts = np.arange(ONSET_S, END_S - 9, 10.0)
    over = [not service.p95_ms(t, t + 10.0) <= scenario.slo_ms for t in starts]
    return float(np.sum(over)) / 6.0


POLICIES: dict[str, Policy] = {
    "aimd": aimd,
    "hpa": hpa,
    "ladder": ladder,
    "nothing": nothing,
    "playbook": lambda scenario, service, seed: slotune(scenario, service, seed, planner="playbook"),
    "random": random_lever,
    "slotune": slotune,
}
