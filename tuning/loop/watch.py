"""pull_metrics, detect_anomalies, open_incidents: one sweep over all services, and what it starts.

Each step keeps what it made in the ledger's store under the sweep's own time, so that a step that is run again after
a restart sees what it saw the first time and counts nothing twice.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import pydantic

from detection import incidents as incident_rules
from detection import pipeline
from detection.baselines import BaselineUnreadable
from detection.detectors.absent import newest_sample_s
from detection.errors import AnswerTooLarge, Overtaken, Permanent, QueryRefused, SlotuneError, Temporary
from detection.model import Anomaly, Incident, MetricWindow, Reading, Service, Value
from tuning import attempt as attempts
from tuning.attempt import value
from tuning.guards import clocks_apart
from tuning.loop import adapt, announce, approve, examples, inputs, outside, records, release_guard, releases, tell
from tuning.loop.care import Care
from tuning.loop.observe import REPLICA_SIGNALS, look_back
from tuning.loop.open_incidents import INCIDENTS, open_incidents_of, seen_last, stored_json
from tuning.loop.parts import Parts
from tuning.loop.window_store import DIGEST, digest, pack, unpack
from tuning.model import Plan
from tuning.policies import next_attempt as policy
from tuning.policies.moved import moved
from tuning.policies.trouble import HALTED
from tuning.ports import Ledger
from tuning.query import Query

_log = logging.getLogger(__name__)
WINDOWS, ANOMALIES, STATE, BASELINES = "sweep/windows", "sweep/anomalies", "sweep/state", "baselines"


class Sweep(Value):
    """What travels from task to task: when, how many services answered, and which have no series at all.

    only: the services that this sweep looks at; empty for all of them. unreadable: services that could not be read,
    with the reason; nothing is concluded about them. asleep: silent services that are scaled to zero on purpose.
    notes: what is odd about services that were read. clock_skew_s: the source's clock minus ours, None: unknown.
    """

    at_s: float
    services: int
    only: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    unreadable: dict[str, str] = {}
    asleep: tuple[str, ...] = ()
    notes: dict[str, str] = {}
    clock_skew_s: float | None = None
    anomalies: int = 0


@dataclass(frozen=True)
class TuneRequest:
    """One run of tune_service to start. run_id comes from the incident and the attempt: starting twice is one run."""

    incident: Incident
    attempt: int

    @property
    def run_id(self) -> str:
        return f"tune__{self.incident.service}__{self.incident.id}__{self.attempt}"


def pull_metrics(parts: Parts, at_s: float, only: Sequence[str] = ()) -> Sweep:
    """Read every signal of every service; one query a signal. Services without any series are named, not zero."""
    services = _watched(parts, only)
    span = look_back(parts, at_s)
    signals = pipeline.signals_needed(services, parts.settings.detection)
    windows = parts.source.read(services, signals, span)
    seen = inputs.with_inputs(parts.ledger, services, windows, at_s)
    try:
        replicas = parts.source.read_replicas(services, REPLICA_SIGNALS, span)
    except (QueryRefused, AnswerTooLarge) as error:
        replicas = {}
        _log.warning("pull_metrics: replicas are not compared: %s", error)
    parts.ledger.put_blob(WINDOWS, pack(seen, replicas, at_s), at_s=at_s)
    unreadable, notes, skew_s = reading_of(windows)
    notes |= signals_off(parts.services, windows, notes)
    asleep = _asleep(parts, services, windows, at_s)
    releases.see(parts, services, windows, span, at_s)
    promised = {service.name: service.slo.main.signal for service in services}
    parts.ledger.put_blob(DIGEST, digest(seen, unreadable, asleep, at_s, promised), at_s=at_s)
    silent = tuple(sorted({service.name for service in services} - set(windows) - set(unreadable) - set(asleep)))
    if silent:
        _log.warning("pull_metrics: no series for %s; check their selectors", ", ".join(silent[:20]))
    for name, sentence in (*unreadable.items(), *notes.items()):
        _log.warning("pull_metrics: %s: %s", name, sentence)
    return Sweep(
        at_s=at_s,
        services=len(windows),
        only=tuple(only),
        silent=silent,
        unreadable=unreadable,
        asleep=asleep,
        notes=notes,
        clock_skew_s=skew_s,
    )


def reading_of(found: Mapping[str, object]) -> tuple[dict[str, str], dict[str, str], float | None]:
    """What a source says beside its windows: who could not be read, what is odd, and how far its clock is off."""
    if not isinstance(found, Reading):
        return {}, {}, None
    return dict(found.unreadable), dict(found.notes), found.clock_skew_s


def signals_off(
    services: Mapping[str, Service], windows: Mapping[str, MetricWindow], notes: Mapping[str, str]
) -> dict[str, str]:
    """Notes with the services' own signals that could not be read, by service."""
    found = {}
    for name, window in windows.items():
        own = services[name].own_signals if name in services else {}
        off = [f"its signal {signal} is off: {why}" for signal, why in sorted(window.unread.items()) if signal in own]
        if off:
            found[name] = "; ".join(filter(None, (notes.get(name, ""), *off)))
    return found


def _asleep(
    parts: Parts, services: Sequence[Service], windows: Mapping[str, MetricWindow], at_s: float
) -> tuple[str, ...]:
    """The services without fresh samples whose owner wants no replica: nothing is missing there."""
    for_s = parts.settings.detection.absent_for_s
    found = []
    for service in services:
        window = windows.get(service.name)
        newest_s = newest_sample_s(window, at_s) if window is not None else None
        if "replicas" not in service.levers or (newest_s is not None and at_s - newest_s <= for_s):
            continue
        try:
            if parts.actuator(service, "replicas").read(service).values.get("replicas") == 0:
                found.append(service.name)
        except SlotuneError as error:
            _log.info("pull_metrics: %s: whether it is scaled to zero cannot be told: %s", service.name, error)
    return tuple(found)


def _looked_at(parts: Parts, sweep: Sweep) -> tuple[Service, ...]:
    """The services about which this sweep can say something."""
    return tuple(service for service in _watched(parts, sweep.only) if service.name not in sweep.unreadable)


def _watched(parts: Parts, only: Sequence[str]) -> tuple[Service, ...]:
    """The services of a sweep; an unknown name is a ConfigError with the nearest one."""
    return tuple(parts.service(name) for name in only) if only else tuple(parts.services.values())


def detect_anomalies(parts: Parts, sweep: Sweep) -> Sweep:
    """Score the sweep's windows against the baselines; the anomalies go to the store."""
    windows, replicas, stored_s = _stored_windows(parts.ledger)
    if stored_s != sweep.at_s:
        raise _overtaken(sweep, "windows")
    services = _looked_at(parts, sweep)
    baselines = stored_baselines(parts.ledger) or pipeline.BaselineSet()
    state = _state_before(parts.ledger, sweep.at_s)
    anomalies, _scores, after = pipeline.detect(
        services,
        windows,
        baselines,
        sweep.at_s,
        parts.settings.detection,
        state,
        replicas=replicas,
        judge=examples.judge(parts),
        strictness=adapt.factors(parts.ledger, parts.settings.detection.learning.adapt),
    )
    _keep_state(parts.ledger, sweep.at_s, state, after)
    anomalies = [a for a in anomalies if a.signal != "absent_data" or a.service not in sweep.asleep]
    body = {"at_s": sweep.at_s, "anomalies": [a.model_dump(mode="json") for a in anomalies]}
    parts.ledger.put_blob(ANOMALIES, json.dumps(body).encode(), at_s=sweep.at_s)
    return sweep.model_copy(update={"anomalies": len(anomalies)})


def _overtaken(sweep: Sweep, what: str) -> Overtaken:
    begun = datetime.fromtimestamp(sweep.at_s, UTC)
    return Overtaken(
        f"the {what} of the sweep of {begun:%H:%M:%S} UTC were replaced by another sweep's, which goes on in its "
        "place; nothing was concluded from this one"
    )


def _stored_windows(ledger: Ledger) -> tuple[dict[str, MetricWindow], dict[str, dict[str, MetricWindow]], float]:
    data = ledger.get_blob(WINDOWS)
    try:
        return unpack(data) if data else ({}, {}, -1.0)
    except Exception as error:  # numpy and zipfile raise what they like on a damaged archive
        raise Temporary(f"the windows that pull_metrics stored cannot be read: {error!r}") from error


def stored_baselines(ledger: Ledger) -> pipeline.BaselineSet | None:
    """What was learned last; None before anything was, and where it cannot be read (it is learned again)."""
    data = ledger.get_blob(BASELINES)
    if data is None:
        return None
    try:
        return _baselines(data)
    except BaselineUnreadable as error:
        _log.warning("detect_anomalies: %s", error)
        return None


@lru_cache(maxsize=2)
def _baselines(data: bytes) -> pipeline.BaselineSet:
    """A set is a value: what many sweeps ask for between two learnings is read once."""
    return pipeline.BaselineSet.from_bytes(data)


def _state_before(ledger: Ledger, at_s: float) -> pipeline.DetectionState:
    """The detectors' memory as it was before the sweep at `at_s`, also when that sweep is being run again."""
    stored = stored_json(ledger, STATE, {})
    memory = stored.get("before" if stored.get("at_s") == at_s else "after", {})
    try:
        return pipeline.DetectionState.model_validate(memory, extra="ignore")
    except pydantic.ValidationError as error:
        _log.warning("detect_anomalies: the memory of the last sweep cannot be read and is begun anew: %s", error)
        return pipeline.DetectionState()


def _keep_state(ledger: Ledger, at_s: float, before: pipeline.DetectionState, after: pipeline.DetectionState) -> None:
    body = {"at_s": at_s, "before": before.model_dump(mode="json"), "after": after.model_dump(mode="json")}
    ledger.put_blob(STATE, json.dumps(body).encode(), at_s=at_s)


def open_incidents(parts: Parts, sweep: Sweep, *, halted: str | None = None) -> list[TuneRequest]:
    """Anomalies to incidents in the ledger, closed ones closed, and the runs of tune_service that should start.

    halted: why no run would do anything now (None: they would). People are told while an incident needs one.
    """
    stored = stored_json(parts.ledger, ANOMALIES, {})
    if stored.get("at_s") != sweep.at_s:
        raise _overtaken(sweep, "anomalies")
    anomalies = [Anomaly.model_validate(a) for a in stored["anomalies"]]
    evident, anomalies = anomalies, [one.model_copy(update={"evidence": {}}) for one in anomalies]
    anomalies += outside.anomalies(parts.ledger, sweep.at_s)
    services = _looked_at(parts, sweep)
    watched = {service.name for service in services}
    everything = open_incidents_of(parts.ledger, sweep.at_s)
    known = [incident for incident in everything if incident.service in watched]
    current, closed = incident_rules.open_incidents(services, anomalies, known, sweep.at_s, parts.settings.detection)
    by_id = {incident.id: incident for incident in (*known, *current)}
    before = {incident.id: incident for incident in known}
    for incident in current:
        if parts.ledger.put(records.incident_record(incident, before.get(incident.id))):
            _log.info("open_incidents: %s %s: %s", incident.service, incident.symptom, incident.reason)
    for incident_id in closed:
        parts.ledger.put(records.closing_record(by_id[incident_id], sweep.at_s, "no anomaly seen any more"))
    examples.keep(parts.ledger, evident, current, sweep.at_s)
    announce.closed(parts, [by_id[incident_id] for incident_id in closed], sweep.at_s)
    still_open = [i for i in by_id.values() if i.id not in set(closed)]
    announce.opened(parts, still_open, sweep.at_s)
    elsewhere = [incident for incident in everything if incident.service not in watched]
    body = [incident.model_dump(mode="json") for incident in (*elsewhere, *still_open)]
    parts.ledger.put_blob(INCIDENTS, json.dumps(body).encode(), at_s=sweep.at_s)
    care = Care(parts, sweep.at_s)
    apart = clocks_apart(sweep.clock_skew_s, parts.settings.safety.clock_tolerance_s)
    care.told_of("clock/source", "the clock of the metrics source", apart)
    needed = any(incident.tier == "act" for incident in (*elsewhere, *still_open))
    if halted and needed:
        _log.warning("open_incidents: %s", halted)
    care.told_of(HALTED, "incidents", halted if needed else None)
    for service in _watched(parts, sweep.only):
        care.told_of(f"service/{service.name}", f"service {service.name}", sweep.unreadable.get(service.name))
    return requests(parts, still_open, sweep.at_s, care)


def tell_what_stands(parts: Parts, at_s: float) -> None:
    """The last step of a sweep: releases that have baked are judged, what waits to be told is sent, and who shows what
    is true now is told that."""
    release_guard.judge(parts, at_s)
    approve.remind(parts, at_s)
    tell.send_unsent(parts, at_s)
    announce.repeat(parts, seen_last(parts.ledger), at_s)


def requests(
    parts: Parts, incidents: Sequence[Incident], at_s: float, care: Care | None = None
) -> list[TuneRequest]:
    """Which act-tier incidents need a run now: new ones, and those whose last attempt asks for another. An incident
    whose records cannot be read holds up no other."""
    wanted, care = [], care or Care(parts, at_s)
    for incident in incidents:
        if incident.tier != "act":
            continue
        attempt = care.item(
            f"incident/{incident.id}",
            f"incident {incident.id} of {incident.service}",
            lambda incident=incident: next_attempt(parts, incident, at_s),  # type: ignore[misc]
        )
        if attempt is not None:
            wanted.append(TuneRequest(incident, attempt))
    care.end(("incident/",))
    return wanted


def next_attempt(parts: Parts, incident: Incident, at_s: float) -> int | None:
    """The number of the attempt to start now; None while one is under way, or when there is nothing more to try."""
    rows = parts.ledger.find(Query(kinds=("choose_action",), incident_ids=(incident.id,)))
    plans = [plan for row in rows if (plan := value(row, Plan)) is not None]
    if rows and not plans:
        raise Permanent("none of its plans can be read by this version")
    newest = max(plans, key=lambda plan: (plan.attempt, plan.decided_at_s), default=None)
    firing = [anomaly for anomaly in incident.anomalies if anomaly.tier == "act" and anomaly.at_s >= at_s - 1.0]
    wrong_s = max((anomaly.newest_s for anomaly in firing), default=None)
    last = attempts.of(parts.ledger, newest) if newest is not None else None
    safety = parts.settings.safety
    number, sooner = (
        policy.next_attempt(last, at_s, safety, firing=bool(firing), wrong_s=wrong_s, moved=changed)
        for changed in (False, True)
    )
    if number == sooner or last is None:
        return number
    windows, _, stored_s = _stored_windows(parts.ledger)
    seen = windows.get(incident.service) if stored_s == at_s else None
    why = moved(seen, last.plan.decided_at_s, at_s, safety.hold_moved)
    if why:
        _log.info("open_incidents: %s is looked at again: %s", incident.service, why)
    return sooner if why else number
