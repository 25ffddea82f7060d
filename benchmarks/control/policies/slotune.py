"""slotune's own loop: the production code, with only time, metrics source and actuators simulated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from benchmarks.control.runs import BATCH_DELAY_S, FOR_S, INT8_DELAY_S, STEP_S, SWEEP_S, Action, Run
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import SimulatedService
from benchmarks.control.source import SimulatedSource
from benchmarks.simulated import START_S, SimulatedLever, run_until
from detection.model import Incident
from tests.fakes.ledger import FakeLedger
from tuning import planning, verification
from tuning.loop.learn_latency import learn_latency
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Change, Knob, Observation, Plan, Receipt, Record, Setting
from tuning.ports import Planner
from tuning.settings import Settings


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
            "prometheus": {"connection": "sim", "rate_window_s": scenario.rate_window_s, "step_s": STEP_S},
            "services": [
                {
                    "name": "simulated",
                    "serving": "slotune_demo",
                    "selectors": {"service": "simulated"},
                    "slo": {"p95_ms": scenario.slo_ms, "for_s": FOR_S},
                    "mode": "act",
                    "levers": levers,
                }
            ],
            "detection": {"lookback_s": 1200.0, "detectors": ["rules"]},
            "planning": {"planner": "model"},
            "verification": {"look_s": 90.0, "longer_look_s": 180.0, "rate_window_s": scenario.rate_window_s},
            "safety": {"cool_down_s": 0.0, "changes_per_hour": 20, "error_budget": 1.0},
        }
    )


class SimulatedActuator(SimulatedLever):
    """One lever of the simulated service. maximum: of replicas."""

    def __init__(self, service: SimulatedService, lever: str, maximum: int) -> None:
        super().__init__(service, lever)
        self.service, self.maximum = service, maximum

    def _setting(self) -> Setting:
        s = self.service
        values: dict[str, dict[str, Knob]] = {
            "batch_size": {"batch_size": s.batch, "batch_timeout_ms": s.timeout_ms},
            "replicas": {"min_replicas": s.desired, "max_replicas": self.maximum, "replicas": len(s.replicas)},
            "precision": {"version": "1", "precision": "int8" if s.int8 else "fp32"},
        }
        return Setting(lever=self.lever, values=values[self.lever], owner="simulation")

    def _put(self, knobs: Mapping[str, Knob]) -> None:
        if self.lever == "batch_size":
            self.service.set_batch(int(knobs["batch_size"]), float(knobs["batch_timeout_ms"]), BATCH_DELAY_S)
        elif self.lever == "replicas":
            self.service.set_replicas(int(knobs["min_replicas"]))
        else:
            self.service.set_int8(knobs["precision"] == "int8", INT8_DELAY_S)


class Acting:
    """A learned planner, which only watches, as if it might act: what it would do is to be seen."""

    def __init__(self, planner: Planner) -> None:
        self.name, self._planner = planner.name, planner

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        return self._planner.propose(incident, observation, past).model_copy(update={"mode": "act"})

    def spares(self, incident: Incident, observation: Observation, past: Sequence[Record], step: Change) -> str:
        return self._planner.spares(incident, observation, past, step)


def make_parts(
    scenario: Scenario, service: SimulatedService, planner: str = "model"
) -> tuple[Parts, dict[str, SimulatedActuator]]:
    """The production loop around the simulated service."""
    settings = make_settings(scenario)
    levers = {name: SimulatedActuator(service, name, scenario.replicas_max) for name in LEVER_STEPS}
    planning_settings = settings.planning.model_copy(
        update={"rate_window_s": scenario.rate_window_s, "verify_window_s": settings.verification.look_s}
    )
    chooses = planning.get(planner)(planning_settings)
    parts = Parts(
        settings=settings,
        services={s.name: s for s in settings.service_values()},
        source=SimulatedSource(service, scenario.rate_window_s),
        actuator=lambda _service, lever: levers[lever],
        planner=Acting(chooses) if planner in planning.LEARNED else chooses,
        verifier=verification.get("before_after")(settings.verification),
        ledger=FakeLedger(),
        notifiers=[],
    )
    return parts, levers


def slotune(scenario: Scenario, service: SimulatedService, seed: int, planner: str = "model") -> Run:
    """tuning.loop.run_once, sweep after sweep, as in production; only time, source and actuators are simulated."""
    parts, levers = make_parts(scenario, service, planner)
    # What `learn_baselines` does every hour in production, where a service is calm for days.
    learn_latency(parts, START_S + service.now_s)
    run_until(parts, service, END_S, SWEEP_S)
    ledger = parts.ledger
    assert isinstance(ledger, FakeLedger)
    run = _run_of(service, ledger.records.values(), levers)
    run.reasons += [str(r.body.get("reason")) for r in ledger.records.values() if r.kind in ("guard", "hold")]
    return run


def _run_of(service: SimulatedService, records: Iterable[Record], levers: dict[str, SimulatedActuator]) -> Run:
    run = Run(service)
    plans: dict[str, Plan] = {}
    for record in sorted(records, key=lambda r: r.at_s):
        if record.kind in ("choose_action", "roll_back") and "chosen" in record.body:
            plan = Plan.model_validate(record.body)
            plans[plan.id] = plan
            if record.kind == "choose_action" and record.at_s > START_S + ONSET_S:
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
