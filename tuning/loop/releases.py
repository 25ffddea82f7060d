"""What the loop knows of versions: seen by every sweep, written down once, asked for by the planner.

A service whose metrics carry the version is asked there; its release lever tells what the metrics do not (a pod
template), and names versions as it can bring them back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pydantic

from detection.errors import SlotuneError
from detection.model import MetricWindow, Service, Span, VersionWindow
from detection.ports import TellsVersions
from detection.versions import VersionChange, arriving, changes, served
from tuning import releases as rl
from tuning.loop.open_incidents import stored_json
from tuning.loop.parts import Parts
from tuning.model import LEVER_STEPS, Record, Release, Setting
from tuning.query import Query
from tuning.releases import RELEASE, Served

_log = logging.getLogger(__name__)
VERSIONS = "releases/served"
_DAY_S = 86400.0
_MEMORY_S = 14 * _DAY_S


def see(
    parts: Parts, services: Sequence[Service], windows: Mapping[str, MetricWindow], span: Span, at_s: float
) -> None:
    """Write down every change of version that is news, and which version is proven. Fails no sweep: a version that
    cannot be read is seen by a later one."""
    shares = _shares(parts, services, span)
    known = {name: one for name, body in stored_json(parts.ledger, VERSIONS, {}).items() if (one := _served(body))}
    for service in services:
        before, window = known.get(service.name), windows.get(service.name)
        seen = _seen(parts, service, shares.get(service.name), before, at_s)
        if seen is None:
            continue
        proven = _proven(parts, service, window, before, seen)
        change_s = _write_down(parts, service.name, seen, proven, span, at_s)
        since_s = _since_s(before, window, seen, change_s, at_s)
        now = Served(version=seen.version, since_s=since_s, seen_s=at_s, proven=proven)
        settled_s = since_s + parts.settings.prometheus.rate_window_s
        kept = window is not None and _kept(parts, service, window, settled_s)
        known[service.name] = rl.with_proof(now) if kept else now
    if known:
        body = {name: one.model_dump(mode="json") for name, one in known.items()}
        parts.ledger.put_blob(VERSIONS, json.dumps(body).encode(), at_s=at_s)


@dataclass(frozen=True)
class _Seen:
    """What a look at the versions of a service showed. version: what serves. changes: within the look-back, oldest
    first. by_lever: the release lever told, not the metrics. note: what else it told."""

    version: str
    changes: tuple[VersionChange, ...] = ()
    by_lever: bool = False
    note: str = ""


def _shares(parts: Parts, services: Sequence[Service], span: Span) -> Mapping[str, VersionWindow]:
    if not isinstance(parts.source, TellsVersions):
        return {}
    try:
        return parts.source.read_versions(services, span)
    except SlotuneError as error:
        _log.warning("pull_metrics: which versions serve cannot be read: %s", error)
        return {}


def _served(body: object) -> Served | None:
    try:
        return Served.model_validate(body)
    except pydantic.ValidationError:
        return None


def _seen(
    parts: Parts, service: Service, window: VersionWindow | None, before: Served | None, at_s: float
) -> _Seen | None:
    """None where nobody can tell which version serves."""
    shown = _shown(parts, service)
    by_metrics = served(window) if window is not None else ""
    version = str(shown.values.get("version", "")) if shown is not None else ""
    if window is not None and by_metrics and (not version or version in window.shares):
        logged = str(shown.facts.get("note") or "") if shown is not None else ""
        found = tuple(changes(window))
        arrives = arriving(window, version) if version else None
        if arrives is not None and all(change.new != version for change in found):
            return _Seen(version, (*found, arrives), note=logged)
        return _Seen(by_metrics, found, note=logged)
    if shown is None or not version:
        return None
    note = str(shown.facts.get("image") or shown.facts.get("note") or "")
    if before is None or before.version == version:
        return _Seen(version, by_lever=True, note=note)
    since = shown.facts.get("since_s")
    # Without the lever's word the change may have come right after the last look.
    change_s = float(since) if isinstance(since, int | float) and before.seen_s <= since <= at_s else before.seen_s
    return _Seen(version, (VersionChange(before.version, version, change_s, at_s),), by_lever=True, note=note)


def _shown(parts: Parts, service: Service) -> Setting | None:
    if "release" not in service.levers:
        return None
    try:
        return parts.actuator(service, "release").read(service)
    except SlotuneError as error:
        _log.info("pull_metrics: %s: which version its release lever shows cannot be read: %s", service.name, error)
        return None


def _proven(
    parts: Parts, service: Service, window: MetricWindow | None, before: Served | None, seen: _Seen
) -> tuple[str, ...]:
    """The proven versions, newest first. A first look that meets a release in its look-back asks the points of the
    version before it."""
    proven = before.proven if before is not None else ()
    if not seen.changes or window is None or seen.changes[-1].old in proven:
        return proven
    last = seen.changes[-1]
    since_s = seen.changes[-2].at_s if len(seen.changes) > 1 else window.span.start_s
    past = window.between(since_s, last.at_s - window.span.step_s)
    return (last.old, *proven)[: rl.MOST_PROVEN] if _kept(parts, service, past, since_s) else proven


def _kept(parts: Parts, service: Service, window: MetricWindow, since_s: float) -> bool:
    return rl.kept_promises(window, service.slo, since_s, parts.settings.releases.proven_after_s)


def _write_down(
    parts: Parts, service: str, seen: _Seen, proven: Sequence[str], span: Span, at_s: float
) -> float | None:
    """Every change that is news, written down; when the version that serves came, None where no change tells."""
    if not seen.changes:
        return None
    known = list(recent(parts, service, at_s))
    within_s = rl.OURS_WITHIN_S + 2 * span.step_s
    for change in seen.changes:
        if rl.is_known(change, known, within_s):
            continue
        ours = rl.is_ours(change, _ours(parts, service, change), by_lever=seen.by_lever)
        release = rl.release_of(
            service,
            change,
            at_s,
            hands="slotune" if ours else "others",
            seen_by="lever" if seen.by_lever else "metrics",
            note=seen.note,
            proven=next((name for name in proven if name != change.new), ""),
        )
        parts.ledger.put(rl.record(release))
        known.append(release)
        who = "slotune" if ours else "other hands"
        _log.info("pull_metrics: %s: version %s after %s, by %s", service, change.new, change.old, who)
    return max((one.at_s for one in known if one.new == seen.version), default=None)


def _since_s(
    before: Served | None, window: MetricWindow | None, seen: _Seen, change_s: float | None, at_s: float
) -> float:
    """Since when the version serves, as far as was seen."""
    if before is not None and before.version == seen.version:
        return max(before.since_s, change_s) if change_s is not None else before.since_s
    if change_s is not None:
        return change_s
    return window.span.start_s if window is not None else at_s


def _ours(parts: Parts, service: str, change: VersionChange) -> Sequence[Record]:
    """The changes of slotune's own that may have made it: none takes longer than a day."""
    kinds = (*LEVER_STEPS.values(), "roll_back")
    return parts.ledger.find(Query(kinds=kinds, services=(service,), since_s=change.at_s - _DAY_S))


def recent(parts: Parts, service: str, at_s: float) -> tuple[Release, ...]:
    """The releases of a service that were seen lately, oldest first."""
    found = parts.ledger.find(Query(kinds=(RELEASE,), services=(service,), since_s=at_s - _MEMORY_S))
    return rl.releases_of(found)

