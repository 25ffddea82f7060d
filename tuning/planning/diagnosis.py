"""The cause of an incident, from the split of the latency and from what moved since the baseline.

The load of a server is arrivals * time per batch / (rows per batch * replicas). Its logarithm is a sum, so each
factor's share in the rise is its own difference of logarithms: the largest one is the cause, and the sizes are the
evidence. Causes that no lever cures are looked for first.
"""

from __future__ import annotations

import math

from detection.model import Incident
from tuning.formats import ms
from tuning.model import Diagnosis, Observation
from tuning.planning import latency_model as lm
from tuning.planning import reading as rd
from tuning.planning.rules import queue_stands
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation

_MOVED = math.log(1.15)
_SLOW_REPLICA = 1.4


def diagnose(
    incident: Incident, observation: Observation, situation: Situation, settings: PlanningSettings
) -> Diagnosis:
    """One cause with its evidence; `curable` False where no lever can help. Never guesses: "unknown" is an answer."""
    now, slo = situation.now, observation.service.slo
    split = _split(situation)
    stale = rd.is_stale(observation, settings)
    if stale:
        return Diagnosis(cause="stale_data", evidence=(stale,), curable=False)
    failing = now.error_rate is not None and now.error_rate > slo.error_rate
    met = now.p95_ms is not None and now.p95_ms <= slo.p95_ms
    saturated = _saturated(situation, settings)
    if failing and (met or not saturated):
        while_ = f"P95, {ms(now.p95_ms)}, is under the SLO" if saturated else "no queue stands"
        text = f"{now.error_rate:.1%} of requests fail (limit {slo.error_rate:.1%}) while {while_}"
        return Diagnosis(cause="errors", evidence=(text,), curable=False, **split)
    if met and not _borders(incident, observation, situation, settings):
        text = f"P95 is {ms(now.p95_ms)}, the SLO is {ms(slo.p95_ms)}"
        if incident.symptom == "idle":
            return Diagnosis(cause="idle_capacity", evidence=(text, _busy_text(situation)), **split)
        return Diagnosis(cause="healthy", evidence=(text,), curable=False, **split)
    cause, evidence = _moved(observation, situation, settings)
    if failing:
        evidence = (*evidence, f"{now.error_rate:.1%} of requests fail as well, while the service is saturated")
    return Diagnosis(cause=cause, evidence=evidence, **split)


def _borders(
    incident: Incident, observation: Observation, situation: Situation, settings: PlanningSettings
) -> bool:
    """P95 goes in and out of the SLO: a latency incident whose recent values reach over it is not over."""
    recent = rd.recent(observation.window, "p95_ms", settings.recent_s)
    p95 = situation.now.p95_ms or 0.0
    near = p95 > settings.headroom * observation.service.slo.p95_ms
    return incident.symptom in ("latency", "saturation") and near and bool(
        (recent > observation.service.slo.p95_ms).mean() >= 0.2
    )  # fmt: skip


def _moved(
    observation: Observation, situation: Situation, settings: PlanningSettings
) -> tuple[str, tuple[str, ...]]:
    now = situation.now
    if now.queue_ms is None and now.batch_ms is None:
        return "unknown", ("neither queue nor batch time is exported: the split of the latency is unknown",)
    slow = situation.replica_slow
    if len(slow) >= 2 and slow[-1] >= _SLOW_REPLICA and slow[-2] < 1.2:
        return "slow_replica", (f"one of {len(slow)} replicas takes {slow[-1]:.1f} times as long per batch",)
    if _waits_for_rows(situation, settings):
        text = (
            f"requests wait {ms(now.queue_ms)} for a batch that holds {now.rows_per_batch:.1f} of {now.batch_size} "
            f"rows, while the server computes {now.busy or 0:.0%} of the time (timeout {ms(now.batch_timeout_ms)})"
        )
        return "batch_wait_too_long", (text,)
    shares = _shares(situation)
    ranked = sorted(((value, name, text) for name, (value, text) in shares.items()), reverse=True)
    evidence = tuple(text for value, _, text in ranked if value > _MOVED)
    if evidence:
        return ranked[0][1], (*evidence, *_queue_text(situation))
    return _unmoved(observation, situation, settings)


def _unmoved(
    observation: Observation, situation: Situation, settings: PlanningSettings
) -> tuple[str, tuple[str, ...]]:
    """Nothing moved, or nothing to compare with: what the present state alone says."""
    now, lever = situation.now, observation.service.levers.get("batch_size")
    standing = queue_stands(now, settings) or (now.busy or 0.0) >= settings.busy_full
    full = now.fill is not None and now.fill > settings.batch_full
    if standing and full and lever is not None and now.batch_size and now.batch_size < lever.maximum:
        text = f"batches are full ({now.rows_per_batch:.1f} of {now.batch_size} rows)"
        return "batch_too_small", (text, *_queue_text(situation))
    if standing:
        return "load_surge", ("requests come faster than they are answered", *_queue_text(situation))
    if now.queue_share is not None and now.queue_share < settings.queue_share:
        return "slower_service", (f"no queue stands: {ms(now.batch_ms or 0)} per batch is the latency itself",)
    return "unknown", ("nothing that is exported has moved since the baseline",)


def _shares(situation: Situation) -> dict[str, tuple[float, str]]:
    """By how much (natural logarithm) each factor of the load rose since the baseline, with its sentence."""
    now, base = situation.now, situation.base
    shares: dict[str, tuple[float, str]] = {}
    if situation.arrivals is not None and base.qps:
        ratio = situation.arrivals.qps.value / base.qps
        text = f"{situation.arrivals.qps.value:.0f} requests/s instead of {base.qps:.0f} (x{ratio:.1f})"
        shares["load_surge"] = (math.log(max(ratio, 1e-3)), text)
    if situation.slow is not None and situation.slow > 1 + 2 * situation.slow_sd:
        always = situation.model.spread if now.batch_cv2 is not None else 0.0
        before = max(situation.base.batch_cv or 0.03, 0.5 * always)
        noisy = situation.batch_cv is not None and situation.batch_cv > max(0.12, 2 * before)
        name = "noisy_neighbour" if noisy else "slower_service"
        text = f"a batch of the same size takes {situation.slow:.1f} times as long"
        if noisy:
            text += f", coming and going (variation {situation.batch_cv:.0%})"
        shares[name] = (math.log(situation.slow), text)
    if now.replicas and base.replicas and base.replicas > now.replicas:
        text = f"{now.replicas} replicas instead of {base.replicas:.0f}"
        shares["lost_capacity"] = (math.log(base.replicas / now.replicas), text)
    if now.batch_size and base.batch_size and base.batch_size > now.batch_size and situation.model.known:
        curve = situation.model.curve()
        gain = _per_row(curve, now.batch_size) / _per_row(curve, base.batch_size)
        text = f"the batch limit is {now.batch_size} instead of {base.batch_size:.0f}"
        shares["batch_too_small"] = (math.log(gain), text)
    return shares


def _per_row(curve: lm.Curve, rows: float) -> float:
    return max(curve.at(rows), 1e-9) / rows


def _waits_for_rows(situation: Situation, settings: PlanningSettings) -> bool:
    now = situation.now
    if not now.batch_timeout_ms or now.queue_ms is None or now.fill is None:
        return False
    waits = 0.25 * now.batch_timeout_ms <= now.queue_ms <= 1.5 * now.batch_timeout_ms
    share = now.queue_share is not None and now.queue_share >= settings.queue_share
    return waits and share and now.fill < settings.batch_full and (now.busy is None or now.busy < 0.75)


def _saturated(situation: Situation, settings: PlanningSettings) -> bool:
    now = situation.now
    return (now.busy is not None and now.busy >= settings.busy_full) or queue_stands(now, settings)


def _split(situation: Situation) -> dict[str, float | None]:
    """queue, batch wait and service in ms. The batch wait is what a server that rests makes requests wait for rows."""
    now = situation.now
    if now.queue_ms is None:
        return {"service_ms": now.batch_ms}
    wait = 0.0
    if now.batch_timeout_ms and now.fill is not None and now.fill < 0.95:
        wait = min(now.queue_ms, now.batch_timeout_ms) * (1 - min(1.0, now.busy or 0.0))
    queue = max(0.0, now.queue_ms - wait)
    total = rd.first(now.latency_ms, now.queue_ms + (now.batch_ms or 0.0))
    return {
        "queue_ms": queue,
        "batch_wait_ms": wait,
        "service_ms": now.batch_ms,
        "queue_share": min(1.0, now.queue_ms / total) if total else None,
    }


def _queue_text(situation: Situation) -> tuple[str, ...]:
    now = situation.now
    if now.queue_ms is None or now.queue_share is None:
        return ()
    return (f"{now.queue_share:.0%} of the latency is waiting ({ms(now.queue_ms)})",)


def _busy_text(situation: Situation) -> str:
    busy = situation.now.busy
    return f"the replicas compute {busy:.0%} of the time" if busy is not None else "busy share not exported"
