"""A language model's service as the continuous-batching engine sees it: iteration time now, lengths, cache, knobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from detection.model import FloatArray, Incident, MetricWindow
from tuning.model import Observation
from tuning.planning import latency_model as lm
from tuning.planning import step_model as sm
from tuning.planning import thresholds as th
from tuning.planning import token_flow as tf
from tuning.planning import variants as va
from tuning.planning.arrivals import arrivals, backlog, burstiness, counted, counted_burstiness
from tuning.planning.reading import Reading, first, number, read_now, settled, tail
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation, baseline, calm_window, narrowed
from tuning.planning.step_model import Measured, StepModel
from tuning.planning.token_flow import Lengths


@dataclass(frozen=True, kw_only=True)
class TokenSituation(Situation):
    """steps: the iteration time as learned, before `slow`. size: lengths now (None: not exported). kv_tokens: room of
    one replica's cache. max_num_seqs, max_num_batched_tokens: the limits now (None: not known). answered: while its
    queue never emptied (None: it does). cv2_sd: log scatter of `cv2`."""

    steps: StepModel
    learned: Mapping[str, StepModel]
    model_key: str
    size: Lengths | None = None
    kv_tokens: float = math.inf
    block_tokens: int = th.BLOCK_TOKENS
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    answered: tf.Answered | None = None
    cv2_sd: float = 0.0

    @property
    def pace(self) -> float:
        """Factor on the learned iteration time: only what is more than noise counts."""
        return _more_than_noise(self.slow, self.slow_sd)


def assess(
    incident: Incident | None, observation: Observation, settings: PlanningSettings, changed_s: float = -math.inf
) -> TokenSituation:
    """Derive the situation: the iteration time from before the incident, its slowness from after it."""
    window = observation.window
    onset = incident.opened_at_s if incident is not None else observation.at_s + 1.0
    fresh = max(onset, changed_s)
    now = read_now(narrowed(observation, fresh, settings), settings)
    name = lm.key(*_served(observation))
    learned = sm.load(observation.latency_model)
    limit, budget = tf.knob(observation, "max_num_seqs"), tf.knob(observation, "max_num_batched_tokens")
    until, stride_s = onset - settings.rate_window_s, settings.rate_window_s
    calm = tf.measured(observation.history, stride_s, until_s=until, budget=budget)
    calm += tf.measured(window, stride_s, until_s=until, budget=budget)
    kept = _with_overhead(
        sm.learn(learned.get(name, StepModel()), sorted(calm, key=lambda one: one.at_s)), window, -math.inf, until
    )
    settled_s = settled(window, fresh, settings)
    after = tf.measured(window, stride_s / 3, since_s=settled_s, limit=limit, budget=budget)
    slow, slow_sd = pace(kept, after)
    seen = tf.measured(window, stride_s, since_s=settled_s, limit=limit, budget=budget)
    if not kept.known:
        kept = _with_overhead(sm.learn(StepModel(), after), window, settled_s)
    pace_of = _replica_pace(observation, kept, stride_s / 3, settled_s)
    size = tf.lengths((window, observation.history), settled_s)
    quiet = calm_window(observation, onset, settings)
    cv2, cv2_sd = _bursts(observation, now, onset, settings)
    rate = arrivals(_arriving(observation), fresh, now, settings)
    rate = counted(rate, cv2, settings.rate_window_s + observation.at_s - settled_s) if rate is not None else None
    return TokenSituation(
        now=now,
        base=baseline(quiet, None),
        arrivals=rate,
        cv2=cv2,
        cv2_sd=cv2_sd,
        slow=slow,
        slow_sd=slow_sd,
        replica_slow=tuple(sorted(pace_of.values())),
        slowest=max(sorted(pace_of), key=lambda label: pace_of[label], default=""),
        backlog=backlog(now, window, settings),
        identified=kept.known and size is not None and limit is not None and rate is not None and rate.qps.value > 0,
        steps=kept if _preempts(window, settled_s) else since(kept, slow, slow_sd, seen),
        learned={**learned, name: kept} if kept.known else learned,
        model_key=name,
        size=size,
        kv_tokens=tf.kv_tokens(observation, size, settled_s) if size is not None else math.inf,
        block_tokens=tf.block_tokens(observation),
        max_num_seqs=limit,
        max_num_batched_tokens=budget,
        answered=tf.answered(window, fresh, settings.rate_window_s),
    )


def _bursts(
    observation: Observation, now: Reading, onset: float, settings: PlanningSettings
) -> tuple[float, float]:
    """(squared variation of gaps, its log scatter): as exported, else as the counts of arrivals tell."""
    history = observation.history.last("arrival_cv2") if observation.history is not None else None
    if now.arrival_cv2 is not None or history is not None:
        return burstiness(observation, now), 0.0
    signal = "arrivals_per_s" if "arrivals_per_s" in observation.window.values else "qps"
    until = onset - th.CALM_WINDOWS * settings.rate_window_s
    return counted_burstiness(observation.window, until, signal, settings.rate_window_s)


def _more_than_noise(slow: float | None, slow_sd: float) -> float:
    return 1.0 if slow is None or abs(slow - 1) <= max(th.SLOW_NOISE, 2 * slow_sd) else slow


def _preempts(window: MetricWindow, since_s: float) -> bool:
    """Whether sequences throw each other out: what runs then is not what the setting carries, and how long it takes
    says little of the same number of sequences that are left alone."""
    _, rate = tail(window, "preemptions_per_s", since_s)
    return bool(rate.size and float(np.median(rate)) > th.PREEMPTS)


def since(kept: StepModel, slow: float | None, slow_sd: float, after: list[Measured]) -> StepModel:
    """The line with what the trouble itself shows: as many sequences as run now were seen running, whatever the calm
    saw, and what an iteration of them takes at the calm's pace is measured."""
    by = _more_than_noise(slow, slow_sd)
    paced = [replace(one, y_ms=one.y_ms / by) for one in after]
    found = sm.learn(kept, paced)
    left, _ = pace(found, paced)
    # What fits no line (more load and a slower engine at once) tells nothing beyond the calm.
    return found if left is not None and abs(left - 1) <= th.SLOW_NOISE else kept


def _with_overhead(model: StepModel, window: MetricWindow, since_s: float, until_s: float = math.inf) -> StepModel:
    seen = tf.overhead_ms(window, since_s, until_s)
    return model if seen is None or model.overhead_ms > 0 else model.with_overhead(seen)


def pace(kept: StepModel, after: list[Measured]) -> tuple[float | None, float]:
    """How slow an iteration is now against the learned time (None: nothing to compare), and its relative error.

    Told by the equations that hold however requests come, where there are any: in trouble they come in no usual way.
    """
    if not kept.known or not after:
        return None, 0.0
    after = [one for one in after if one.exact] or after
    expected = [kept.predict(one.features) for one in after]
    ratios = np.array([one.y_ms / mean for one, (mean, _) in zip(after, expected, strict=True)])
    doubt = float(np.median([sd / mean for mean, sd in expected]))
    return float(np.median(ratios)), math.hypot(doubt, float(ratios.std()) / math.sqrt(max(1, ratios.size)))


def _replica_pace(observation: Observation, kept: StepModel, stride_s: float, since_s: float) -> dict[str, float]:
    """Pace of each replica over the faster half's median; {} below two that export what it takes."""
    found = {}
    for name, window in observation.replicas.items():
        slow, _ = pace(kept, tf.measured(window, stride_s, since_s=since_s))
        if slow is not None:
            found[name] = slow
    if len(found) < 2:
        return {}
    middle = float(np.median(sorted(found.values())[: (len(found) + 1) // 2]))
    return {name: value / middle for name, value in found.items()}


def _arriving(observation: Observation) -> Observation:
    """The observation with arrivals in the place of finished requests, where they are exported apart.

    Their growth of the queue is in them already, so the queue's own series must not add it once more.
    """
    window = observation.window
    came = window.values.get("arrivals_per_s")
    if came is None or not np.isfinite(came).any():
        return observation
    kept = {name: values for name, values in window.values.items() if name not in ("queue_depth", "queue_ms")}
    return replace(observation, window=replace(window, values={**kept, "qps": _filled(came, window)}))


def _filled(came: FloatArray, window: MetricWindow) -> FloatArray:
    return np.where(np.isfinite(came), np.maximum(came, 0.0), window.values.get("qps", came))


def _served(observation: Observation) -> tuple[str, str]:
    setting = observation.settings.get("precision")
    if setting is None:
        return va.served_version(observation, ""), ""
    version = va.served_version(observation, str(setting.values.get("version", "")))
    return version, str(setting.values.get("precision", ""))


def current(situation: TokenSituation, observation: Observation) -> tuple[int, int, int]:
    """(max_num_seqs, max_num_batched_tokens, replicas) as they are; vLLM's defaults where nothing tells."""
    now: Reading = situation.now
    count = now.replicas or round(first(number(observation.settings.get("replicas"), "min_replicas"), 1.0) or 1)
    return situation.max_num_seqs or 256, situation.max_num_batched_tokens or 2048, max(1, count)
