"""slotune's own loop around the simulated language model: only time, metrics source and actuators are simulated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from benchmarks.llm.policies import RATE_WINDOW_S, STEP_S, Action, Run
from benchmarks.llm.scenarios import END_S, ONSET_S, Scenario
from benchmarks.llm.source import WorldSource
from benchmarks.llm.world import World
from benchmarks.simulated import START_S, SimulatedLever, run_until
from detection.model import Service
from tests.fakes.ledger import FakeLedger
from tuning import planning, verification
from tuning.loop.learn_latency import learn_latency
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Knob, Plan, Receipt, Record, Setting
from tuning.settings import Settings

SWEEP_S, FOR_S = 30.0, 30.0


def make_settings(scenario: Scenario) -> Settings:
    """services.yaml of the simulated service: its levers, bounds and prices, everything else as it is by default."""
    profile = scenario.profile
    return Settings.model_validate(
        {
            "prometheus": {"connection": "sim", "rate_window_s": RATE_WINDOW_S, "step_s": STEP_S},
            "services": [
                {
                    "name": "simulated",
                    "serving": "vllm",
                    "selectors": {"model_name": "simulated"},
                    "slo": {**scenario.limits, "for_s": FOR_S},
                    "mode": "act",
                    "levers": {
                        "batch_size": {
                            "connection": "sim",
                            "min": 1,
                            "max": scenario.sequences_max,
                            "effect_delay_s": profile.restart_s,
                        },
                        "replicas": {
                            "connection": "sim",
                            "min": 1,
                            "max": scenario.replicas_max,
                            "namespace": "sim",
                            "target": "sim",
                            "cost_per_hour": 2.5 * profile.gpus,
                            "effect_delay_s": profile.start_s,
                        },
                    },
                }
            ],
            "detection": {"lookback_s": 1200.0, "detectors": ["rules"]},
            "planning": {"planner": "model"},
            "verification": {"look_s": 90.0, "longer_look_s": 180.0, "rate_window_s": RATE_WINDOW_S},
            "safety": {"cool_down_s": 0.0, "changes_per_hour": 20, "error_budget": 1.0},
        }
    )


class WorldActuator(SimulatedLever):
    """One lever of the simulated language model. maximum: of replicas."""

    def __init__(self, world: World, lever: str, maximum: int) -> None:
        super().__init__(world, lever)
        self.world, self.maximum = world, maximum

    def _setting(self) -> Setting:
        world = self.world
        sequences, tokens = world.pending[1] if world.pending is not None else world.limits
        if self.lever == "batch_size":
            room = int(world.profile.kv_tokens * world.faults.room(world.now_s))
            return Setting(
                lever=self.lever,
                values={"max_num_seqs": sequences, "max_num_batched_tokens": tokens},
                facts={"kv_cache_tokens": room, "block_size": world.profile.block},
                owner="simulation",
            )
        values: dict[str, dict[str, Knob]] = {
            "replicas": {
                "min_replicas": world.desired,
                "max_replicas": self.maximum,
                "replicas": len(world.replicas),
            },
            "precision": {"version": "1", "precision": "bf16"},
        }
        return Setting(lever=self.lever, values=values[self.lever], owner="simulation")

    def _put(self, knobs: Mapping[str, Knob]) -> None:
        if self.lever == "batch_size":
            self.world.set_limits(int(knobs["max_num_seqs"]), int(knobs["max_num_batched_tokens"]))
        elif self.lever == "replicas":
            self.world.set_replicas(int(knobs["min_replicas"]))


def make_parts(scenario: Scenario, world: World) -> Parts:
    """The production loop around the simulated service."""
    settings = make_settings(scenario)
    levers = {name: WorldActuator(world, name, scenario.replicas_max) for name in LEVER_STEPS}
    planned = settings.planning.model_copy(
        update={"rate_window_s": RATE_WINDOW_S, "verify_window_s": settings.verification.look_s}
    )
    return Parts(
        settings=settings,
        services={s.name: _with_tokens(s) for s in settings.service_values()},
        source=WorldSource(world, RATE_WINDOW_S),
        actuator=lambda _service, lever: levers[lever],
        planner=planning.get("model")(planned),
        verifier=verification.get("before_after")(settings.verification),
        ledger=FakeLedger(),
        notifiers=[],
    )


def _with_tokens(service: Service) -> Service:
    """The batch lever may move max_num_batched_tokens too."""
    lever = service.levers["batch_size"]
    lever = lever.model_copy(update={"options": {**lever.options, "tokens_min": 512, "tokens_max": 8192}})
    return service.model_copy(update={"levers": {**service.levers, "batch_size": lever}})


def slotune(scenario: Scenario, world: World) -> Run:
    """tuning.loop.run_once, sweep after sweep, as in production, after the hourly learning had its turn."""
    parts = make_parts(scenario, world)
    learn_latency(parts, START_S + ONSET_S - 60.0)
    run_until(parts, world, END_S, SWEEP_S)
    records = list(parts.ledger.records.values())  # type: ignore[attr-defined]
    return _run_of(world, sorted(records, key=lambda record: record.at_s))


def _run_of(world: World, records: Iterable[Record]) -> Run:
    run, plans = Run(world), {}
    for record in records:
        if record.kind in ("choose_action", "roll_back") and "chosen" in record.body:
            plan = Plan.model_validate(record.body)
            plans[plan.id] = plan
            if record.kind == "choose_action":
                if run.planned_s is None:
                    run.planned_s, run.cause = record.at_s - START_S, plan.diagnosis.cause
                run.reasons.append(plan.reason)
        elif record.kind in ("guard", "hold"):
            run.reasons.append(str(record.body.get("reason")))
        elif record.kind == "settle" and "settle_s" in record.body and run.actions:
            run.actions[-1].settled_s = float(str(record.body["settle_s"]))
        moved = record.kind in (*LEVER_STEPS.values(), "roll_back") and record.phase == "result"
        if not (moved and record.body.get("changed")):
            continue
        receipt = Receipt.model_validate(record.body)
        plan = plans[receipt.plan_id]
        text = next(c.text() for c in plan.chosen.changes if c.lever == receipt.lever)
        shown, objective = plan.chosen.predicted_p95_ms, plan.objective
        known = shown is not None and objective is not None and not plan.rollback_of
        predicted = {objective.signal: (shown.value, shown.low, shown.high)} if known else {}  # type: ignore[union-attr]
        at_s, undo = receipt.at_s - START_S, bool(plan.rollback_of)
        last = run.actions[-1] if run.actions else None
        if last is not None and last.at_s == at_s and last.undo == undo:
            last.lever, last.text = f"{last.lever}+{receipt.lever}", f"{last.text} and {text}"
        else:
            run.actions.append(Action(at_s, receipt.lever, text, plan.settle_s, undo, predicted))
    return run
