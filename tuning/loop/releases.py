"""What the loop knows of versions: seen by every sweep, written down once, asked for by the planner.

A service whose metrics carry the version is asked there; its release lever tells what the metrics do not (a pod
template), and names versions as it can bring them back.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence

import pydantic

from detection.errors import SlotuneError
from detection.model import MetricWindow, Service, Span, VersionWindow
from detection.ports import TellsVersions
from detection.versions import VersionChange, changes, served
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
    before = dict(known)
    for service in services:
        seen = _seen(parts, service, shares.get(service.name), known.get(service.name), at_s)
        if seen is None:
            continue
        version, found, by_lever, note = seen
        told = _write_down(parts, service.name, found, at_s, span, by_lever=by_lever, note=note)
        known[service.name] = _now(parts, service, windows.get(service.name), version, told, before, at_s)
    if known:
        body = {name: one.model_dump(mode="json") for name, one in known.items()}
        parts.ledger.put_blob(VERSIONS, json.dumps(body).encode(), at_s=at_s)


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
) -> tuple[str, list[VersionChange], bool, str] | None:
    """(the version that serves, its changes, whether the lever told, what else it told); None where nobody can tell."""
    shown = _shown(parts, service)
    by_metrics = served(window) if window is not None else ""
    version = str(shown.values.get("version", "")) if shown is not None else ""
    if window is not None and by_metrics and (not version or version in window.shares):
        return by_metrics, changes(window), False, ""
    if shown is None or not version:
        return None
    note = str(shown.facts.get("image", ""))
    if before is None or before.version == version:
        return version, [], True, note
    since = shown.facts.get("since_s")
    # Without the lever's word the change may have come right after the last look.
    change_s = float(since) if isinstance(since, int | float) and before.seen_s <= since <= at_s else before.seen_s
    return version, [VersionChange(before.version, version, change_s, at_s)], True, note


def _shown(parts: Parts, service: Service) -> Setting | None:
    if "release" not in service.levers:
        return None
    try:
        return parts.actuator(service, "release").read(service)
    except SlotuneError as error:
        _log.info("pull_metrics: %s: which version its release lever shows cannot be read: %s", service.name, error)
        return None


def _write_down(
    parts: Parts, service: str, found: Sequence[VersionChange], at_s: float, span: Span, *, by_lever: bool, note: str
) -> list[Release]:
    """The changes as releases, those that are news written down."""
    if not found:
        return []
    earlier = list(recent(parts, service, at_s))
    within_s = rl.OURS_WITHIN_S + 2 * span.step_s
    for change in found:
        if rl.is_known(change, earlier, within_s):
            continue
        ours = rl.is_ours(change, _ours(parts, service, change), by_lever=by_lever)
        release = rl.release_of(
            service,
            change,
            at_s,
            hands="slotune" if ours else "others",
            seen_by="lever" if by_lever else "metrics",
            note=note,
        )
        parts.ledger.put(rl.record(release))
        earlier.append(release)
        who = "slotune" if ours else "other hands"
        _log.info("pull_metrics: %s: version %s after %s, by %s", service, change.new, change.old, who)
    return earlier


def _ours(parts: Parts, service: str, change: VersionChange) -> Sequence[Record]:
    """The changes of slotune's own that may have made it: none takes longer than a day."""
    kinds = (*LEVER_STEPS.values(), "roll_back")
    return parts.ledger.find(Query(kinds=kinds, services=(service,), since_s=change.at_s - _DAY_S))


def _now(
    parts: Parts,
    service: Service,
    window: MetricWindow | None,
    version: str,
    told: Sequence[Release],
    before: Mapping[str, Served],
    at_s: float,
) -> Served:
    """What is known of the version that serves; the one before it is proven on the points that it had."""
    earlier, settle_s = before.get(service.name), parts.settings.prometheus.rate_window_s
    least_s = parts.settings.releases.proven_after_s
    newest = max((one for one in told if one.new == version), key=lambda one: one.at_s, default=None)
    if earlier is not None and earlier.version == version:
        now = earlier.model_copy(update={"seen_s": at_s})
    else:
        since_s = newest.at_s if newest is not None else (window.span.start_s if window is not None else at_s)
        proven = earlier.proven if earlier is not None else ()
        now = Served(version=version, since_s=since_s, seen_s=at_s, proven=proven)
        if newest is not None and window is not None:
            # A first look that meets a release in its look-back: what was before it has points as well.
            past = window.between(window.span.start_s, newest.at_s)
            if newest.old not in now.proven and rl.kept_promises(past, service.slo, past.span.start_s, least_s):
                now = now.model_copy(update={"proven": (newest.old, *now.proven)[: rl.MOST_PROVEN]})
    if window is None or not rl.kept_promises(window, service.slo, now.since_s + settle_s, least_s):
        return now
    return rl.with_proof(now)


def recent(parts: Parts, service: str, at_s: float) -> tuple[Release, ...]:
    """The releases of a service that were seen lately, oldest first."""
    found = parts.ledger.find(Query(kinds=(RELEASE,), services=(service,), since_s=at_s - _MEMORY_S))
    return rl.releases_of(found)


def proven(parts: Parts, service: str) -> str:
    """The last version under which a service kept its promises, other than the one that serves; "" where none is."""
    now = _served(stored_json(parts.ledger, VERSIONS, {}).get(service))
    return rl.proven_before(now, now.version) if now is not None else ""
