"""Dynamic batching: requests wait for a batch, a batch of b rows takes alpha + beta * b.

The queue of Triton's dynamic batcher, TorchServe, Ray Serve's `@serve.batch` and most servers of one forward pass per
request. The line is learned by `latency_model`, the queue simulated by `whatif`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from detection.model import Incident, MetricWindow
from tuning.formats import ms
from tuning.model import Knob, Observation
from tuning.planning import admission as ad
from tuning.planning import latency_model as lm
from tuning.planning import options as op
from tuning.planning import predict as pr
from tuning.planning import speed
from tuning.planning import thresholds as th
from tuning.planning import variants as va
from tuning.planning.arrivals import draining_arrivals
from tuning.planning.batching import BatchingSituation, assess, current
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Candidate, Knowledge, Predicted
from tuning.planning.settings import PlanningSettings


class DynamicBatching:
    """An engine whose knobs are batch_size, batch_timeout_ms, replicas, precision, variant, and what is taken in."""

    name = "dynamic_batching"
    objectives: tuple[str, ...] = ("p95_ms",)
    signals: tuple[str, ...] = ("batch_ms", "rows_per_batch", "batch_size")
    rules_apply = True
    restarts = False

    def learn(
        self, state: Mapping[str, object] | None, window: MetricWindow, served: tuple[str, str], stride_s: float
    ) -> dict[str, object] | None:
        seen = speed.points(window, math.inf, stride_s)
        if not seen:
            return None
        key, known = lm.key(*served), lm.load(state)
        beside = {name: model for name, model in known.items() if va.other_variant(name, key)}
        return lm.dump({**beside, key: lm.learn(known.get(key, lm.LatencyModel()), seen)})

    def assess(
        self, incident: Incident | None, observation: Observation, settings: PlanningSettings, changed_s: float
    ) -> BatchingSituation:
        return assess(incident, observation, settings, changed_s)

    def unchanged(self, observation: Observation, situation: BatchingSituation) -> Candidate:
        batch, timeout_ms, replicas = current(situation, observation)
        setting: dict[str, Knob] = {"batch_size": batch, "batch_timeout_ms": timeout_ms, "replicas": replicas}
        setting |= ad.present(observation)
        return Candidate(setting, size=op.size_of(setting))

    def options(self, observation: Observation, situation: BatchingSituation) -> list[Candidate]:
        base = self.unchanged(observation, situation)
        known = situation.now.batch_size is not None
        return [
            *(op.batches(observation, base) if known else ()),
            *op.more_replicas(observation, base),
            *op.int8(observation, base),
            *op.variants(observation, base, lambda name: pr.batch_time(situation, name)),
            *self._limits(observation, base, situation),
        ]

    def _limits(self, observation: Observation, base: Candidate, situation: BatchingSituation) -> list[Candidate]:
        """What waits too long is refused only where something does, and where it could be proven."""
        limit_ms, p95_ms = observation.promise.limit_ms, situation.now.p95_ms
        met = p95_ms is not None and p95_ms <= limit_ms
        if met or not situation.model.known or not self.proves_limits(observation):
            return []
        batch_s = situation.model.curve().at(float(base.setting["batch_size"])) / 1e3
        return op.limits(observation, base, batch_s, limit_ms - situation.overhead_ms)

    def proves_limits(self, observation: Observation) -> bool:
        window = observation.window
        return window.percentile_source == "histogram" or "p50_ms" in window.values

    def savings(self, observation: Observation, situation: BatchingSituation) -> list[Candidate]:
        return op.fewer_replicas(observation, self.unchanged(observation, situation))

    def predict(
        self,
        candidates: Sequence[Candidate],
        observation: Observation,
        situation: BatchingSituation,
        knowledge: Knowledge,
        settings: PlanningSettings,
    ) -> list[Predicted]:
        return pr.predict(candidates, observation, situation, knowledge, settings) if candidates else []

    def capacity(self, situation: BatchingSituation) -> float:
        return pr.capacity_now(situation)

    def since_turn(self, observation: Observation, situation: BatchingSituation) -> BatchingSituation | None:
        if situation.slow_sd >= th.DRAIN_SLOW_SD:
            return None
        rate = draining_arrivals(observation.window, pr.capacity_now(situation))
        return None if rate is None else replace(situation, arrivals=Forecast(rate, "since the queue turned"))

    def by_then(
        self, situation: BatchingSituation, window: MetricWindow, ahead_s: float, *, same_model: bool
    ) -> BatchingSituation | None:
        slower = pr.slower_by_then(situation, window, ahead_s, same_model=same_model)
        if slower is None:
            return None
        slow = (situation.slow or 1.0) * slower
        return replace(situation, model=situation.model.scaled(slower), slow=slow, slowing=None)

    def why(self, candidate: Candidate, predicted: Predicted, situation: BatchingSituation) -> str:
        if not situation.model.known or not candidate.changes:
            return ""
        curve, batch = situation.model.curve(), situation.now.batch_size or 1
        lever, larger = candidate.changes[0].lever, int(candidate.setting["batch_size"])
        if lever == "batch_size" and larger > batch:
            old, new = curve.at(batch) / batch, curve.at(larger) / larger
            return f": a row costs {ms(old)} in batches of {batch} and {ms(new)} in batches of {larger}"
        if lever == "batch_size":
            return ": requests no longer wait for rows that do not come"
        if lever == "replicas" and curve.beta_ms * batch > curve.alpha_ms:
            return (
                f": of the {ms(curve.at(batch))} of a batch {ms(curve.beta_ms * batch)} grow with its rows, so a "
                "larger batch would gain little"
            )
        if lever == "replicas":
            return f": {candidate.setting['replicas']} replicas are busy {predicted.busy:.0%} of the time"
        if lever == "admission":
            return ": what is answered then has waited no longer than that"
        if lever == "variant":
            return f": with it the replicas are busy {predicted.busy:.0%} of the time"
        return f": INT8 shortens every batch (now {ms(curve.at(batch))}), so each replica answers more"

    def unseen(self, situation: BatchingSituation) -> str:
        seen = situation.model.rows_max
        return (
            f"batches of more than {seen:.0f} row{'s' if seen > 1 else ''} were never seen here, so how long they take "
            "is not known, but a larger batch cannot carry less"
        )
