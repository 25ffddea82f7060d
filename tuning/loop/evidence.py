"""What a verdict rests on: the windows before and after a change, and what the old setting would have done."""

from __future__ import annotations

from detection import own_signals
from detection.model import MetricWindow, Service, Span
from detection.signals import SIGNALS
from tuning import cost
from tuning.loop.observe import buckets_beside, latency_model, look_back
from tuning.loop.parts import Parts
from tuning.model import Observation, Plan, Setting
from tuning.ports import Evidence

_HISTORY_S = 4 * 3600.0


_HISTORY_POINTS = 5000


def old_setting(parts: Parts, service: Service, plan: Plan, changed_s: float) -> Observation | None:
    """What the latency model needs to tell what the OLD setting would do; None where nothing was measured then."""
    span = look_back(parts, changed_s)
    past = parts.source.read([service], tuple(SIGNALS), span).get(service.name)
    if past is None:
        return None
    return Observation(
        service=service,
        window=past,
        at_s=changed_s,
        settings={c.lever: Setting(lever=c.lever, values=c.old) for c in plan.chosen.changes},
        latency_model=latency_model(parts, service),
        objective=plan.objective,
    )


def before_from_s(parts: Parts, plan: Plan, first_s: float) -> float:
    """Where the look before the change begins: not before the incident, when P95 was still well."""
    start_s = first_s - parts.settings.verification.look_s
    if plan.rollback_of is not None:
        return start_s
    onset_s = start_s if plan.since_s is None else plan.since_s
    return min(max(start_s, onset_s), first_s - 2 * parts.settings.prometheus.step_s)


_LANGUAGE_GUARDS = (
    "generation_tokens_per_s",
    "arrivals_per_s",
    "abort_rate",
    "unanswered_rate",
    "length_rate",
    "running",
    "itl_ms",
    "prompt_tokens",
    "output_tokens",
)


def evidence(parts: Parts, service: Service, plan: Plan, start_s: float, end_s: float, *, history: bool) -> Evidence:
    step_s = parts.settings.prometheus.step_s
    span = grid(start_s, end_s, step_s)
    promised = tuple(one.signal for one in service.slo.objectives)
    judged = (plan.objective or service.slo.main).signal
    signals = ("p95_ms", "p50_ms", "qps", "error_rate", "queue_ms", "queue_depth", "accuracy", "agreement", "busy",
               "gpu_util", "batch_ms", "rows_per_batch", *cost.NEEDED, *_LANGUAGE_GUARDS, *promised,
               *(one.name for one in own_signals.guards(service)))  # fmt: skip
    signals = tuple(dict.fromkeys(signals))
    window = parts.source.read([service], signals, span).get(service.name) or MetricWindow(service.name, span, {})
    past = None
    if history:
        # At the very step of the look: autocorrelation belongs to a step.
        past_span = grid(start_s - min(_HISTORY_S, _HISTORY_POINTS * step_s), start_s, step_s)
        past = parts.source.read([service], (judged, "qps"), past_span).get(service.name)
    lever = service.levers.get("precision")
    asked = lever.options.get("min_agreement") if lever is not None else None
    return Evidence(
        window=window,
        # the histogram is the one of `duration`, and explains no other promise
        buckets=buckets_beside(parts, service, window) if judged == "p95_ms" else None,
        history=past,
        slo=service.slo,
        objective=plan.objective,
        guarded=own_signals.guards(service),
        min_agreement=float(asked) if isinstance(asked, (int, float)) else None,
    )


def grid(start_s: float, end_s: float, step_s: float) -> Span:
    first, last = -(-start_s // step_s) * step_s, end_s // step_s * step_s
    return Span(first, max(first, last), step_s)
