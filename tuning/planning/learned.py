"""What the learned planners share: the question to a policy, and a plan from its answer.

Diagnosis, the way back from a release and the cure of a sick replica are those of every planner: a policy is asked only
where one lever or two may cure. Its plans are for watching: their mode is `observe`, whatever the service's is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from detection.model import FloatArray, Incident
from tuning.model import Change, Observation, Option, Plan, Record
from tuning.planning import explain, features, moves
from tuning.planning import reading as rd
from tuning.planning import thresholds as th
from tuning.planning.batching import BatchingSituation, current
from tuning.planning.diagnosis import diagnose
from tuning.planning.moves import MOVES, Targets
from tuning.planning.objectives import broken
from tuning.planning.ports import Engine
from tuning.planning.restarting import cure
from tuning.planning.reverting import way_back
from tuning.planning.rules import Rules
from tuning.planning.settings import PlanningSettings
from tuning.planning.weights_file import Policy, read


class LearnedPlanner:
    """A policy's best open move. Pure: the same arguments give the same plan. ConfigError for a bad file of weights."""

    name: str

    def __init__(self, settings: PlanningSettings, engines: Mapping[str, Engine[Any]]) -> None:
        self._settings, self._engines = settings, engines
        self._rules = Rules(settings)
        self._policy: Policy = read(self.name, settings.beside_weights)

    def propose(self, incident: Incident, observation: Observation, past: Sequence[Record]) -> Plan:
        if observation.service.kind == "training":
            return self._rules.watched(incident, observation)
        observation = replace(observation, objective=broken(incident, observation, self._settings))
        engine = self._engines[observation.service.engine]
        situation = engine.assess(incident, observation, self._settings, -math.inf)
        diagnosis = diagnose(incident, observation, situation, self._settings)
        found = way_back(incident, observation, diagnosis, past) or cure(
            incident, observation, diagnosis, past, self._settings, situation.now.busy
        )
        if found is None and not diagnosis.curable:
            found = Option(changes=(), reason=explain.uncured(diagnosis)), ()
        if found is None and diagnosis.cause == "idle_capacity":
            found = Option(changes=(), reason="hold: the policy was trained on what breaks the SLO, not on saving"), ()
        if found is None and not isinstance(situation, BatchingSituation):
            found = Option(changes=(), reason="hold: the policy was trained on servers with dynamic batching"), ()
        if found is None and not situation.identified:
            found = Option(changes=(), reason="hold: the load or the time of a batch is not exported"), ()
        if found is None:
            seen = quantities(observation, situation, rd.tried_levers(incident, past), incident)
            found = self._choose(observation, seen)
        plan = self._rules.plan(incident, observation, situation.now, diagnosis, *found)
        return plan.model_copy(update={"mode": "observe"})

    def spares(self, incident: Incident, observation: Observation, past: Sequence[Record], step: Change) -> str:
        """Never: a policy that rates moves predicts nothing, and so cannot say that fewer replicas would do."""
        return ""

    def _choose(self, observation: Observation, seen: Mapping[str, FloatArray]) -> tuple[Option, tuple[Option, ...]]:
        """The open move of the highest score, and the others with why not."""
        led = moves.targets(seen)
        scores = np.where(led.open[0], self._policy.scores(features.vector(seen))[0], -np.inf)
        order = [int(k) for k in np.argsort(-scores, kind="stable") if np.isfinite(scores[k])]
        best = MOVES[order[0]].name
        options = [_option(observation, seen, led, k) for k in order]
        told = f" (learned in {self._policy.trained})" if self._policy.trained else ""
        second = f", before {MOVES[order[1]].name!r}" if len(order) > 1 else ", the only one that is open"
        reason = f"{self.name} rates {best!r} first{second}{told}"
        chosen = options[0].model_copy(update={"reason": reason if options[0].changes else f"hold: {reason}"})
        rejected = [
            option.model_copy(update={"reason": f"{self.name} rates it below {best!r}"})
            for option in options[1:]
            if option.changes
        ]
        return chosen, tuple(rejected)


def quantities(
    observation: Observation, situation: BatchingSituation, tried: frozenset[str], incident: Incident
) -> dict[str, FloatArray]:
    """What `features` and `moves` are asked with, shape (1,) each, NaN where it is not known."""
    now, base, rate = situation.now, situation.base, situation.arrivals
    batch, timeout_ms, running = current(situation, observation)
    curve = situation.model.curve() if situation.model.known else None
    slow = situation.slow
    found: dict[str, float | None] = {
        "p95_ms": now.p95_ms,
        "limit_ms": observation.promise.limit_ms,
        "error_rate": now.error_rate,
        "arrivals": rate.qps.value if rate is not None else None,
        "base_qps": base.qps,
        "slope": rate.slope if rate is not None else None,
        "slow": slow,
        "slower_per_min": situation.slower_per_min,
        "busy": now.busy,
        "fill": now.fill,
        "queue_share": now.queue_share,
        # The line as it runs now has the slowness in it.
        "alpha_ms": curve.alpha_ms / (slow or 1.0) if curve is not None else None,
        "beta_ms": curve.beta_ms / (slow or 1.0) if curve is not None else None,
        "batch": float(batch),
        "timeout_ms": timeout_ms,
        "replicas": float(running),
        "base_replicas": base.replicas,
        "slowest": max(situation.replica_slow, default=1.0),
        "backlog": situation.backlog,
        "variation": situation.variation,
        "age_s": observation.at_s - incident.opened_at_s,
        "cv2": situation.cv2,
        **{f"tried_{lever}": float(lever in tried) for lever in ("batch_size", "replicas", "precision")},
        **_bounds(observation, running),
    }
    return {name: np.array([math.nan if found[name] is None else found[name]]) for name in features.QUANTITIES}


def _bounds(observation: Observation, running: int) -> dict[str, float | None]:
    """How far the levers go; None for one that is not there, cannot be read or would do nothing."""
    levers, settings = observation.service.levers, observation.settings
    usable = {name for name in levers if name in settings and not settings[name].useless}
    shortest: float | None = None
    if "batch_size" in usable and "batch_timeout_ms" in settings["batch_size"].values:
        least = levers["batch_size"].options.get("timeout_min_ms", 0.0)
        shortest = float(least) if isinstance(least, (int, float)) else 0.0
    top: float | None = None
    if "replicas" in usable:
        _, high = rd.replica_bounds(levers["replicas"], settings["replicas"])
        top = float(max(running, high - _missing(observation, running)))
    precision = settings.get("precision") if "precision" in usable else None
    can = precision is not None and precision.values.get("precision") != "int8" and not rd.no_int8(levers["precision"])
    return {
        "batch_max": float(levers["batch_size"].maximum) if "batch_size" in usable else None,
        "timeout_min_ms": shortest,
        "replicas_max": top,
        "int8": float(can),
    }


def _missing(observation: Observation, running: int) -> int:
    """Replicas that were asked for and do not run: they are not there when more are asked for either."""
    setting = observation.settings["replicas"]
    asked = rd.first(rd.number(setting, "min_replicas"), rd.number(setting, "replicas"))
    return max(0, int(asked or running) - running)


def _option(observation: Observation, seen: Mapping[str, FloatArray], led: Targets, move: int) -> Option:
    """The changes that lead where a move leads."""
    levers, settings, pulled = observation.service.levers, observation.settings, MOVES[move].levers
    changes: list[Change] = []
    cost, delay_s, risk = 0.0, 0.0, 0.0
    if "batch_size" in pulled:
        wait = float(led.timeout_ms[0, move]) if MOVES[move].no_wait else None
        changes.append(rd.batch_change(settings["batch_size"], int(led.batch[0, move]), wait))
    if "replicas" in pulled:
        running = int(seen["replicas"][0])
        added = int(led.replicas[0, move]) - running
        changes.append(rd.replica_change(settings["replicas"], running + _missing(observation, running) + added))
        cost += added * levers["replicas"].cost_per_hour
    if "precision" in pulled:
        change = Change(lever="precision", old=dict(settings["precision"].values), new={"precision": "int8"})
        changes.append(change)
    for lever in pulled:
        delay_s, risk = max(delay_s, levers[lever].effect_delay_s), min(1.0, risk + th.RISK[lever])
    return Option(changes=tuple(changes), cost_per_hour=cost, effect_delay_s=delay_s, risk=risk, reason="open")
