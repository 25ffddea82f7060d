"""Observation: everything a planner may look at, read once, at the edge."""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Sequence

from detection import own_signals, pipeline
from detection.errors import SlotuneError
from detection.model import BucketWindow, MetricWindow, Service, Span
from detection.signals import SIGNALS
from tuning.loop.inputs import odd_inputs
from tuning.loop.parts import Parts
from tuning.loop.window_store import unpack
from tuning.model import LEVER_STEPS, Observation, Record, Setting
from tuning.query import Query
from tuning.releases import RELEASE

_log = logging.getLogger(__name__)
_MEMORY_S = 30 * 86400.0
REPLICA_SIGNALS = (
    "p95_ms",
    "mean_ms",
    "qps",
    "error_rate",
    "batch_ms",
    "rows_per_batch",
    "ttft_p95_ms",
    "itl_p95_ms",
    "e2e_p95_ms",
    "itl_ms",
    "running",
    "generation_tokens_per_s",
    "agreement",
    "accuracy",
    "memory_gb",
    "memory_limit_gb",
    "uptime_s",
)
"""What tells one sick replica from its peers."""


def observe(parts: Parts, service: Service, at_s: float) -> Observation:
    """Windows, buckets, replicas and the levers' truth of one service at `at_s`.

    A lever that cannot be read is not guessed: it is in `unreadable`, with the sentence that says why.
    """
    span = look_back(parts, at_s)
    windows = parts.source.read([service], (*SIGNALS, *own_signals.table(service)), span)
    replicas = parts.source.read_replicas([service], REPLICA_SIGNALS, span)
    settings: dict[str, Setting] = {}
    unreadable: dict[str, str] = {}
    for lever in service.levers:
        try:
            settings[lever] = parts.actuator(service, lever).read(service)
        except SlotuneError as error:
            unreadable[lever] = str(error)
    window = windows[service.name] if service.name in windows else MetricWindow(service.name, span, {})
    kept = parts.ledger.get_blobs([history_key(service.name), model_key(service.name)])
    return Observation(
        service=service,
        window=window,
        at_s=at_s,
        settings=settings,
        unreadable=unreadable,
        replicas=replicas.get(service.name, {}),
        buckets=buckets_beside(parts, service, window),
        history=_kept_history(service.name, kept.get(history_key(service.name))),
        latency_model=_kept_model(service.name, kept.get(model_key(service.name))),
        odd_inputs=odd_inputs(parts.ledger, service, at_s),
    )


def buckets_beside(parts: Parts, service: Service, window: MetricWindow) -> BucketWindow | None:
    """The histogram that the window's P95 comes from; None where it is a summary's, which no histogram explains."""
    if window.percentile_source == "summary":
        return None
    return parts.source.read_buckets([service], window.span).get(service.name)


def look_back(parts: Parts, at_s: float) -> Span:
    """The recent past on the source's grid, ending at `at_s` (both rounded to whole steps, so that sweeps align)."""
    step_s = parts.settings.prometheus.step_s
    end_s = at_s // step_s * step_s
    points = int(-(-pipeline.lookback_s(parts.settings.detection, step_s) // step_s))
    return Span(end_s - points * step_s, end_s, step_s)


def past(parts: Parts, service: str, incident_id: str | None, at_s: float) -> Sequence[Record]:
    """What a planner may know, newest first: all that was changed, released and judged on this service within the
    memory, with the plans behind it, and every attempt at this incident."""
    pulled = tuple(LEVER_STEPS.values())
    came_of_it = parts.ledger.find(
        Query(
            kinds=(*pulled, "verify_p95", "roll_back", RELEASE),
            phase="result",
            services=(service,),
            since_s=at_s - _MEMORY_S,
        )
    )
    plans = {r.parent_id for r in came_of_it}
    tried = ("choose_action", "guard", "verify_p95", "hold", *pulled)
    incidents = {r.incident_id for r in came_of_it if r.incident_id is not None} | {incident_id} - {None}
    told = parts.ledger.find(Query(kinds=(*tried, "roll_back"), incident_ids=tuple(sorted(map(str, incidents)))))
    behind = [r for r in told if r.id in plans or (r.incident_id == incident_id and r.kind in tried)]
    found = {record.id: record for record in (*came_of_it, *behind)}
    return sorted(found.values(), key=lambda record: -record.at_s)


def _kept_history(service: str, data: bytes | None) -> MetricWindow | None:
    """The service's week as `learn_baselines` kept it, without its incidents; None before anything was kept.

    Kept once an hour for all services, so that an incident costs no long query. What cannot be read is none.
    """
    if data is None:
        return None
    try:
        windows, _, _ = unpack(data)
    except (ValueError, KeyError, zipfile.BadZipFile):
        return None
    return windows.get(service)


def history_key(service: str) -> str:
    return f"planning-history/{service}"


def latency_model(parts: Parts, service: Service) -> dict[str, object] | None:
    """The learned latency model of a service, None before anything was learned."""
    return _kept_model(service.name, parts.ledger.get_blob(model_key(service.name)))


def _kept_model(service: str, data: bytes | None) -> dict[str, object] | None:
    try:
        found = json.loads(data) if data else None
    except ValueError as error:
        _log.warning("%s: the learned latency model cannot be read and is learned anew: %s", service, error)
        return None
    return found if isinstance(found, dict) else None


def model_key(service: str) -> str:
    return f"latency-model/{service}"
