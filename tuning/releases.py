"""Releases: changes of the version that serves, whose hands made them, and which version is proven. Pure.

Every change is a record of the ledger with an id of what it says. Beside them stands, for each service, what is known
of the version that serves now, and of the last ones under which the service kept its promises: the way back never leads
to a version that nobody has seen doing well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from detection.model import MetricWindow, Slo, Value, make_id
from detection.versions import VersionChange
from tuning.model import LEVER_STEPS, Record, Release

RELEASE = "release"
"""The kind of these records. They are no step of the flow: most of them somebody else made."""
VERDICT = "release_verdict"
"""The kind of what the comparison of both versions came to."""
KEPT = 0.9
"""Share of the points of a stretch at which every promise has to be kept for the version to be proven."""
OURS_WITHIN_S = 120.0
"""How far a change of version may lie from the change of ours that made it: a scrape, a rate window, two clocks."""


class Served(Value):
    """What is known of a service's versions. version: the one that serves, since when (as far as was seen), and when it
    was last seen. proven: the newest ones under which the promises were kept, newest first, at most `MOST_PROVEN`."""

    version: str
    since_s: float
    seen_s: float
    proven: tuple[str, ...] = ()


MOST_PROVEN = 5


def release_of(service: str, change: VersionChange, at_s: float, **known: object) -> Release:
    """A change that was seen at `at_s`."""
    return Release.model_validate({
        "id": make_id(RELEASE, service, change.old, change.new, round(change.at_s)),
        "service": service, "old": change.old, "new": change.new, "at_s": change.at_s, "whole_s": change.whole_s,
        "seen_s": at_s, **known,
    })  # fmt: skip


def record(release: Release) -> Record:
    """The release as a line of the ledger."""
    body = release.model_dump(mode="json")
    return Record(id=release.id, kind=RELEASE, service=release.service, at_s=release.seen_s, body=body)


class ReleaseVerdict(Value):
    """What a release came to once it had baked. verdict: of the new version against the old; "taken back": it was
    before that could be told. lines: the signals in words. side_by_side: both were measured at the same times."""

    release: Release
    at_s: float
    verdict: Literal["worse", "better", "same", "different", "cannot tell", "taken back"]
    sentence: str
    lines: tuple[str, ...] = ()
    side_by_side: bool = False


def verdict_record(verdict: ReleaseVerdict) -> Record:
    """One verdict for each release, the first."""
    release, body = verdict.release, verdict.model_dump(mode="json")
    name = f"{release.id}{TOLD}"
    return Record(
        id=name, kind=VERDICT, service=release.service, parent_id=release.id, at_s=verdict.at_s, body=body
    )


TOLD = ":verdict"


def releases_of(records: Iterable[Record]) -> tuple[Release, ...]:
    """The releases among the records, oldest first; what this version cannot read is passed over."""
    found = []
    for line in records:
        if line.kind != RELEASE:
            continue
        known = {name: value for name, value in line.body.items() if name in Release.model_fields}
        try:
            found.append(Release.model_validate(known))
        except ValueError:
            continue
    return tuple(sorted(found, key=lambda release: (release.at_s, release.id)))


def is_known(change: VersionChange, known: Iterable[Release], within_s: float) -> bool:
    """Whether a change is one of those that were seen before: the first sight of one may move by a scrape or two."""
    return any(
        (one.old, one.new) == (change.old, change.new) and abs(one.at_s - change.at_s) <= within_s for one in known
    )


def is_ours(change: VersionChange, ours: Iterable[Record], *, by_lever: bool) -> bool:
    """Whether a change of slotune's own made it: the swap to INT8, a release that was reverted, another variant, the
    way back of any of them; and, where the lever's versions are those of a pod template (by_lever), whatever rolled a
    template out.

    ours: the records of the lever steps and roll-backs of the service.
    """
    return any(_made(record, change, by_lever=by_lever) for record in ours)


def _made(record: Record, change: VersionChange, *, by_lever: bool) -> bool:
    body = record.body
    if record.kind not in {*LEVER_STEPS.values(), "roll_back"}:
        return False
    if record.phase == "intent":
        begun = record.at_s - OURS_WITHIN_S <= change.at_s <= record.at_s + OURS_WITHIN_S
        chosen = body.get("chosen")
        levers = {c.get("lever") for c in chosen.get("changes", [])} if isinstance(chosen, Mapping) else set()
        return begun and bool(levers & {"precision", "release", "variant"})
    took_s = body.get("took_s")
    long_s = float(took_s) if isinstance(took_s, int | float) else 0.0
    if not body.get("changed") or not (
        record.at_s - long_s - OURS_WITHIN_S <= change.at_s <= record.at_s + OURS_WITHIN_S
    ):
        return False
    after, evidence = body.get("after"), body.get("evidence")
    named = isinstance(after, Mapping) and after.get("version") == change.new
    rolled_out = isinstance(evidence, Mapping) and "workload" in evidence
    return named or body.get("lever") == "variant" or (by_lever and rolled_out)


def kept_promises(window: MetricWindow, slo: Slo, since_s: float, least_s: float) -> bool:
    """Whether the service kept what it promises for at least `least_s` at a stretch, since `since_s`.

    A promise that is not measured is not kept: no data proves nothing.
    """
    part = window.between(since_s, window.span.end_s)
    limits = {one.signal: one.limit_ms for one in slo.objectives}
    if any(signal not in part.values for signal in limits):
        return False
    known = np.all([np.isfinite(part.values[signal]) for signal in limits], axis=0)
    well = known & np.all([part.values[signal] <= limit for signal, limit in limits.items()], axis=0)
    errors = part.values.get("error_rate")
    if errors is not None:
        well &= ~(errors > slo.error_rate)
    points = max(1, math.ceil(least_s / window.span.step_s))
    if part.span.points < points:
        return False
    stretch = np.ones(points)
    return bool((np.convolve(well.astype(float), stretch, "valid") >= KEPT * points).any())


def with_proof(served: Served) -> Served:
    """The same, with the version that serves as the newest proven one."""
    others: Sequence[str] = [name for name in served.proven if name != served.version]
    return served.model_copy(update={"proven": (served.version, *others)[:MOST_PROVEN]})
