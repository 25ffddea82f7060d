"""The guard of a release: once a new version has baked, it is compared with the one before it, and people are told.

Also where all is well. What slotune released itself has a proof of its own. Where both versions serve they are compared
at the same times, each by its own series; else as before and after.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from detection import presets
from detection.errors import SlotuneError
from detection.model import MetricWindow, Service, Span
from detection.ports import TellsVersions
from detection.versions import LEAST_SHARE, WHOLE_SHARE
from tuning import cost
from tuning import releases as rl
from tuning.loop import post
from tuning.loop.parts import Parts
from tuning.model import Release
from tuning.query import Query
from tuning.releases import ReleaseVerdict
from tuning.report.comparison_words import release_lines, release_sentence, release_verdict
from tuning.report.notice_mail import notice_mail
from tuning.verification.comparison import COMPARED, compare

_log = logging.getLogger(__name__)
_MEMORY_S = 14 * 86_400.0
SIGNALS = tuple(dict.fromkeys((*COMPARED, *cost.NEEDED)))


def judge(parts: Parts, at_s: float) -> list[ReleaseVerdict]:
    """Every release that has baked and is not judged yet. One that cannot be read now is judged by a later sweep."""
    waiting = rl.releases_of(
        parts.ledger.find(Query(kinds=(rl.RELEASE,), since_s=at_s - _MEMORY_S, without=("id", rl.TOLD)))
    )
    found = []
    for release in waiting:
        service = parts.services.get(release.service)
        if release.hands != "others" or service is None:
            continue
        later = [one for one in waiting if one.service == release.service and one.at_s > release.at_s]
        try:
            verdict = _judged(parts, service, release, later[0] if later else None, at_s)
        except SlotuneError as error:
            _log.warning("%s: version %s cannot be compared now: %s", service.name, release.new, error)
            continue
        if verdict is not None and parts.ledger.put(rl.verdict_record(verdict)):
            _log.info("%s: %s", service.name, verdict.sentence)
            _tell(parts, verdict)
            found.append(verdict)
    return found


def _judged(
    parts: Parts, service: Service, release: Release, later: Release | None, at_s: float
) -> ReleaseVerdict | None:
    """None: it has not baked yet."""
    bake_s, window_s = parts.settings.releases.bake_s, parts.settings.prometheus.rate_window_s
    start_s = min(release.whole_s or release.at_s, release.at_s + bake_s) + window_s
    end_s = start_s + bake_s
    if later is not None and later.at_s < end_s and later.hands == "slotune":
        sentence = f"version {release.new} was taken back by slotune, whose report says why"
        return ReleaseVerdict(release=release, at_s=at_s, verdict="taken back", sentence=sentence)
    until_s = end_s if later is None else min(end_s, later.at_s)
    if at_s < until_s:
        return None
    before, after, together = _sides(parts, service, release, (start_s, until_s))
    if before is None or after is None:
        sentence = f"version {release.new} cannot be compared with version {release.old}: one of them has no series"
        return ReleaseVerdict(release=release, at_s=at_s, verdict="cannot tell", sentence=sentence)
    found = compare(before, after, parts.settings.verification, costs=cost.beside(service, before, after))
    return ReleaseVerdict(
        release=release,
        at_s=at_s,
        verdict=release_verdict(found),
        sentence=release_sentence(found, release),
        lines=tuple(release_lines(found)),
        side_by_side=together,
    )


def _sides(
    parts: Parts, service: Service, release: Release, after: tuple[float, float]
) -> tuple[MetricWindow | None, MetricWindow | None, bool]:
    """The old version, the new one, and whether both were measured at the same times."""
    step_s = max(parts.settings.prometheus.step_s, parts.settings.prometheus.rate_window_s)
    span = _grid(*after, step_s)
    if _both_serve(parts, service, release, span):
        label = presets.of(service).version_label
        sides = [_read(parts, _only(service, label, version), span) for version in (release.old, release.new)]
        if all(side is not None and "p95_ms" in side.values for side in sides):
            return sides[0], sides[1], True
    past = _grid(release.at_s - parts.settings.releases.bake_s, release.at_s - step_s, step_s)
    return _read(parts, service, past), _read(parts, service, span), False


def _both_serve(parts: Parts, service: Service, release: Release, span: Span) -> bool:
    if release.seen_by != "metrics" or not isinstance(parts.source, TellsVersions):
        return False
    window = parts.source.read_versions([service], span).get(service.name)
    shares = [window.shares.get(version) if window is not None else None for version in (release.old, release.new)]
    means = [float(np.nanmean(s)) for s in shares if s is not None and np.isfinite(s).any()]
    return len(means) == 2 and all(LEAST_SHARE <= mean < WHOLE_SHARE for mean in means)


def _only(service: Service, label: str, version: str) -> Service:
    return service.model_copy(update={"selectors": {**service.selectors, label: version}})


def _read(parts: Parts, service: Service, span: Span) -> MetricWindow | None:
    return parts.source.read([service], SIGNALS, span).get(service.name)


def _grid(start_s: float, end_s: float, step_s: float) -> Span:
    first, last = -(-start_s // step_s) * step_s, end_s // step_s * step_s
    return Span(first, max(first, last), step_s)


def _tell(parts: Parts, verdict: ReleaseVerdict) -> None:
    if verdict.verdict == "taken back":
        return
    release, worse = verdict.release, verdict.verdict == "worse"
    how = "at the same times, each by its own series" if verdict.side_by_side else "before it and after"
    first = f"{verdict.sentence[:1].upper()}{verdict.sentence[1:]}."
    lines: Sequence[str] = (first, *verdict.lines, f"Compared {how}.")
    mail = notice_mail(
        f"{release.id}:baked",
        f"Release: {release.service}: {verdict.sentence}",
        lines,
        verdict.at_s,
        service=release.service,
        tone="bad" if worse else "good" if verdict.verdict in ("same", "better") else "quiet",
        url=f"{parts.page}/services/{release.service}" if parts.page else "",
    )
    post.post(parts, replace(mail, about=release.id), verdict.at_s)
