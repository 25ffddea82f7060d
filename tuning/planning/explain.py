"""Sentences for the on-call engineer: what is wrong, what is done, why this and not what the rule of thumb says."""

from __future__ import annotations

from tuning.formats import ms
from tuning.model import Diagnosis
from tuning.planning.causes import CAUSES
from tuning.planning.ranking import Ranked
from tuning.planning.situation import Situation


def chosen(item: Ranked, diagnosis: Diagnosis, situation: Situation, slo_ms: float) -> str:
    """Why the winner wins, in one sentence with its numbers."""
    p95 = item.predicted.p95_ms
    text = "; ".join(change.text() for change in item.candidate.changes)
    cost = item.candidate.cost_per_hour
    price = f" for {cost:.2f}/h" if cost > 0 else f", saving {-cost:.2f}/h" if cost < 0 else " at no cost"
    return (
        f"{_queue(diagnosis)}{text} brings P95 to {ms(p95.value)} ({ms(p95.low)} to {ms(p95.high)}; SLO "
        f"{ms(slo_ms)}){price} within about {item.time_to_effect_s:.0f} s{_because(item, situation)}"
    )


def _queue(diagnosis: Diagnosis) -> str:
    title = CAUSES[diagnosis.cause].title
    if diagnosis.queue_share is None:
        return f"{title}: "
    return f"{title}, and {diagnosis.queue_share:.0%} of the latency is waiting: "


def _because(item: Ranked, situation: Situation) -> str:
    """What the lever does to the numbers: the sentence that settles an argument with the rule of thumb."""
    if not situation.model.known or not item.candidate.changes:
        return ""
    now, curve = situation.now, situation.model.curve()
    batch = now.batch_size or 1
    lever = item.candidate.changes[0].lever
    if lever == "batch_size" and item.candidate.batch > batch:
        old, new = curve.at(batch) / batch, curve.at(item.candidate.batch) / item.candidate.batch
        return f": a row costs {ms(old)} in batches of {batch} and {ms(new)} in batches of {item.candidate.batch}"
    if lever == "batch_size":
        return ": requests no longer wait for rows that do not come"
    if lever == "replicas" and curve.beta_ms * batch > curve.alpha_ms:
        return (
            f": of the {ms(curve.at(batch))} of a batch {ms(curve.beta_ms * batch)} grow with its rows, so a "
            "larger batch would gain little"
        )
    if lever == "replicas":
        return f": {item.candidate.replicas} replicas are busy {item.predicted.busy:.0%} of the time"
    return f": INT8 shortens every batch (now {ms(curve.at(batch))}), so each replica answers more"


def disagreement(item: Ranked, situation: Situation, playbook: tuple[str, ...]) -> str:
    """One sentence where the rule of thumb would have pulled another lever; "" where they agree."""
    mine = item.candidate.levers
    if not playbook or mine == playbook:
        return ""
    rule = {
        "batch_size": "latency high, so a larger batch",
        "replicas": "throughput low, so more replicas",
        "precision": "so INT8",
    }.get(playbook[0], playbook[0])
    return f"The rule of thumb says {rule}; the measured batch times say otherwise{_because(item, situation)}."


def exploring(item: Ranked, diagnosis: Diagnosis, situation: Situation, slo_ms: float) -> str:
    """Why an option is tried of which nobody knows whether it is enough."""
    text = "; ".join(change.text() for change in item.candidate.changes)
    seen = situation.model.rows_max
    return (
        f"{_queue(diagnosis)}{text} is tried: batches of more than {seen:.0f} row{'s' if seen > 1 else ''} were never "
        f"seen here, so how long they take is not known, but a larger batch cannot carry less, costs nothing and can "
        f"be undone; it carries the load with {item.predicted.carries:.0%}, and holding would not meet {ms(slo_ms)}"
    )


def nothing(diagnosis: Diagnosis, ranked: list[Ranked], slo_ms: float) -> str:
    """Why nothing is done although the SLO is broken."""
    title = CAUSES[diagnosis.cause].title
    if not ranked:
        return f"hold: {title}, and no lever can be moved"
    closest = min(ranked, key=lambda item: item.predicted.p95_ms.value)
    text = " and ".join(change.text() for change in closest.candidate.changes)
    if closest.barred:
        return f"hold: {title}; {closest.barred}, and nothing else within bounds meets {ms(slo_ms)}"
    return (
        f"hold: {title}, and nothing within bounds meets {ms(slo_ms)}: the best option ({text}) would bring P95 to "
        f"{ms(closest.predicted.p95_ms.value)} at {closest.predicted.load:.0%} load; raise a bound or shed load"
    )
