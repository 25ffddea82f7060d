"""Continuous batching: sequences join and leave between iterations; a cache of their tokens fills.

The engine of vLLM, SGLang, TGI, TensorRT-LLM and llama.cpp's server. The iteration time is learned by `step_model` from
what `token_flow` reads, the scheduler simulated by `token_queue`, percentiles with intervals made by `token_predict`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from detection.model import Incident, MetricWindow
from tuning.formats import ms
from tuning.model import Change, Knob, Observation
from tuning.planning import latency_model as lm
from tuning.planning import options as op
from tuning.planning import step_model as sm
from tuning.planning import thresholds as th
from tuning.planning import token_flow as tf
from tuning.planning import token_predict as tp
from tuning.planning.arrivals import draining_arrivals
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Candidate, Knowledge, Predicted
from tuning.planning.settings import PlanningSettings
from tuning.planning.tokens import TokenSituation, assess, current, pace


class ContinuousBatching:
    """An engine whose knobs are max_num_seqs, max_num_batched_tokens, replicas and precision."""

    name = "continuous_batching"
    objectives: tuple[str, ...] = tp.OBJECTIVES
    signals: tuple[str, ...] = tf.SIGNALS
    rules_apply = False
    restarts = True

    def learn(
        self, state: Mapping[str, object] | None, window: MetricWindow, served: tuple[str, str], stride_s: float
    ) -> dict[str, object] | None:
        seen = tf.measured(window, stride_s)
        if not seen:
            return None
        key, models = lm.key(*served), sm.load(state)
        known = models.get(key, sm.StepModel())
        model = sm.learn(known, seen)
        overhead = tf.overhead_ms(window, known.updated_s)
        if overhead is not None and model.updated_s > known.updated_s:
            model = model.with_overhead(overhead)
        return sm.dump({key: model})

    def assess(
        self, incident: Incident | None, observation: Observation, settings: PlanningSettings, changed_s: float
    ) -> TokenSituation:
        return assess(incident, observation, settings, changed_s)

    def unchanged(self, observation: Observation, situation: TokenSituation) -> Candidate:
        sequences, tokens, replicas = current(situation, observation)
        setting: dict[str, Knob] = {
            "max_num_seqs": sequences,
            "max_num_batched_tokens": tokens,
            "replicas": replicas,
        }
        return Candidate(setting, size=_size(setting))

    def options(self, observation: Observation, situation: TokenSituation) -> list[Candidate]:
        base = self.unchanged(observation, situation)
        return [
            *(_limits(observation, base) if situation.max_num_seqs is not None else ()),
            *_sized(op.more_replicas(observation, base)),
            *_sized(op.int8(observation, base)),
            *_sized(op.variants(observation, base, lambda _: None)),
        ]

    def proves_limits(self, observation: Observation) -> bool:
        return False

    def savings(self, observation: Observation, situation: TokenSituation) -> list[Candidate]:
        return _sized(op.fewer_replicas(observation, self.unchanged(observation, situation)))

    def predict(
        self,
        candidates: Sequence[Candidate],
        observation: Observation,
        situation: TokenSituation,
        knowledge: Knowledge,
        settings: PlanningSettings,
    ) -> list[Predicted]:
        return tp.predict(candidates, observation, situation, knowledge, settings)

    def capacity(self, situation: TokenSituation) -> float:
        return tp.capacity_now(situation)

    def since_turn(self, observation: Observation, situation: TokenSituation) -> TokenSituation | None:
        if situation.slow_sd >= th.DRAIN_SLOW_SD:
            return None
        rate = draining_arrivals(observation.window, tp.capacity_now(situation))
        return None if rate is None else replace(situation, arrivals=Forecast(rate, "since the queue turned"))

    def by_then(
        self, situation: TokenSituation, window: MetricWindow, ahead_s: float, *, same_model: bool
    ) -> TokenSituation | None:
        if not same_model or not situation.steps.known:
            return None
        slow, error = pace(situation.steps, tf.measured(window, window.span.step_s))
        if slow is None or slow / situation.pace <= 1 + max(th.SLOW_NOISE, 2 * error):
            return None
        return replace(situation, slow=slow, slow_sd=error)

    def why(self, candidate: Candidate, predicted: Predicted, situation: TokenSituation) -> str:
        if not situation.steps.known or not candidate.changes or situation.size is None:
            return ""
        step, lever = situation.steps.step().scaled(situation.pace), candidate.changes[0].lever
        if lever == "replicas":
            return f": {candidate.setting['replicas']} replicas are busy {predicted.busy:.0%} of the time"
        if lever == "variant":
            return f": with it the replicas are busy {predicted.busy:.0%} of the time"
        if lever == "precision":
            return f": every iteration (now {ms(step.base_ms)} and {ms(step.sequence_ms)} per sequence) is shorter"
        old, new = situation.max_num_seqs or 0, int(candidate.setting["max_num_seqs"])
        held = situation.kv_tokens / situation.size.context
        if new < old and held < old:
            return f": the cache holds about {held:.0f} sequences, so {old} preempt each other"
        if new < old:
            return f": with {new} sequences an iteration takes {ms(step.base_ms + step.sequence_ms * new)}"
        if new > old:
            return (
                f": an iteration takes {ms(step.base_ms)} and {ms(step.sequence_ms)} per sequence, so {new} sequences "
                "share it"
            )
        return f": a prompt token adds {1e3 * step.prefill_ms:.0f} us to the iteration that reads it"

    def unseen(self, situation: TokenSituation) -> str:
        return (
            f"more than {situation.steps.sequences_max:.0f} sequences were never seen running here, so how long an "
            "iteration takes then is not known"
        )


def _limits(observation: Observation, base: Candidate) -> list[Candidate]:
    """One of the two limits moved within its bounds: powers of two and the middles between them."""
    lever, setting = observation.service.levers.get("batch_size"), observation.settings.get("batch_size")
    if lever is None or setting is None or setting.useless:
        return []
    names = [name for name in ("max_num_seqs", "max_num_batched_tokens") if name in setting.values]
    old: dict[str, Knob] = {name: setting.values[name] for name in names}
    sequences, tokens = int(base.setting["max_num_seqs"]), int(base.setting["max_num_batched_tokens"])
    low, high = int(lever.minimum), int(lever.maximum)
    counts = {value for k in range(14) for value in (2**k, 3 * 2**k) if low <= value <= high} | {low, high}
    near = sorted(counts - {sequences}, key=lambda value: abs(value / sequences - sequences / value))
    moves: list[dict[str, Knob]] = [
        {"max_num_seqs": value}
        for value in sorted(near[: th.SEQUENCE_CHOICES])
        # vLLM refuses to start with fewer tokens in an iteration than sequences.
        if "max_num_seqs" in names and value <= tokens
    ]
    least, most = (lever.options.get(name) for name in ("tokens_min", "tokens_max"))
    if isinstance(least, int | float) and isinstance(most, int | float) and "max_num_batched_tokens" in names:
        budgets = {2**k for k in range(18) if least <= 2**k <= most} | {int(least), int(most)}
        moves += [{"max_num_batched_tokens": value} for value in sorted(budgets - {tokens}) if value >= sequences]
    found = []
    for move in moves:
        setting_after = {**base.setting, **move}
        change = Change(lever="batch_size", old=old, new={**old, **move})
        found.append(
            Candidate(
                setting_after,
                (change,),
                lever.cost_per_hour,
                lever.effect_delay_s,
                th.RESTART_RISK,
                _size(setting_after),
            )
        )
    return found


def _sized(candidates: list[Candidate]) -> list[Candidate]:
    return [replace(candidate, size=_size(candidate.setting)) for candidate in candidates]


def _size(setting: Mapping[str, Knob]) -> tuple[float, ...]:
    """(replicas, sequences): of two settings that do equally well the smaller is the smaller step."""
    return float(setting["replicas"]), float(setting["max_num_seqs"])
