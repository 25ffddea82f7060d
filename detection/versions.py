"""When the version of a service's model changed, read from which versions answered. Pure.

A version counts as new from the first moment at which it answers `LEAST_SHARE` of the service and goes on doing so, so
that one replica of twenty is seen, and a request or two to another version is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray, Span, VersionWindow

LEAST_SHARE = 0.05
"""Part of a service from which a version is one of those that serve: one replica of twenty."""
LASTS_POINTS = 3
"""Points in a row that a version must serve, or be gone, before that is believed: a failed scrape or two are none."""
WHOLE_SHARE = 0.95
"""Part from which the new version is all of the service, and the rollout over."""


@dataclass(frozen=True)
class VersionChange:
    """at_s: when the new version was first seen. whole_s: when it was (nearly) all there was; None: it never was."""

    old: str
    new: str
    at_s: float
    whole_s: float | None


def served(window: VersionWindow) -> str:
    """The version that answers most at the window's end, "" where nothing was counted there."""
    last = {name: _last(values) for name, values in window.shares.items()}
    known = {name: value for name, value in last.items() if value is not None}
    return max(sorted(known), key=lambda name: known[name], default="")


def _last(values: FloatArray) -> float | None:
    recent = values[-LASTS_POINTS:]
    finite = recent[np.isfinite(recent)]
    return float(finite[-1]) if finite.size else None


def changes(window: VersionWindow) -> list[VersionChange]:
    """Every change within the window, oldest first."""
    names = sorted(window.shares)
    if not names:
        return []
    shares = np.array([window.shares[name] for name in names])
    known = np.flatnonzero(np.isfinite(shares).any(axis=0))
    if known.size < LASTS_POINTS:
        return []
    shares, times = np.nan_to_num(shares[:, known]), window.span.times()[known]
    serving = shares >= LEAST_SHARE
    found: list[VersionChange] = []
    current = int(shares[:, 0].argmax())
    for k in range(1, times.size - LASTS_POINTS + 1):
        ahead = serving[:, k : k + LASTS_POINTS]
        risen = [i for i in range(len(names)) if i != current and not serving[i, k - 1] and ahead[i].all()]
        gone = serving[current, k - 1] and not ahead[current].any()
        if not risen and not gone:
            continue
        # Of several that appear at once, and of those that stay, the one that answers most is what was released.
        ranked = risen or [i for i in range(len(names)) if i != current]
        if not ranked:
            continue
        after = max(ranked, key=lambda i: float(shares[i, k : k + LASTS_POINTS].mean()))
        whole = np.flatnonzero(shares[after, k:] >= WHOLE_SHARE)
        whole_s = float(times[k + whole[0]]) if whole.size else None
        found.append(VersionChange(names[current], names[after], float(times[k]), whole_s))
        current = after
    return found


def arriving(window: VersionWindow, version: str) -> VersionChange | None:
    """The change to a version that has begun to answer too lately to be believed by what answers alone; None where it
    answers for longer, or not at all. For whoever knows otherwise that it is being brought in."""
    values = window.shares.get(version)
    answers = np.flatnonzero(np.nan_to_num(values) > 0) if values is not None else np.empty(0, dtype=int)
    if not answers.size or answers[0] < window.span.points - LASTS_POINTS:
        return None
    earlier = {name: np.nan_to_num(share[: answers[0]]) for name, share in window.shares.items()}
    told = {name: float(share[np.flatnonzero(share)[-1]]) for name, share in earlier.items() if share.any()}
    old = max(sorted(told), key=lambda name: told[name], default="")
    return VersionChange(old, version, float(window.span.times()[answers[0]]), None) if old else None


def window_of(service: str, span: Span, counted: dict[str, FloatArray]) -> VersionWindow:
    """The shares of what was counted for each version (requests per second, replicas), shape (span.points,) each."""
    names = sorted(counted)
    table = np.array([np.maximum(counted[name], 0.0) for name in names])
    total = np.nansum(table, axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = np.where(total > 0, np.nan_to_num(table) / total, np.nan)
    return VersionWindow(service, span, {name: shares[i] for i, name in enumerate(names)})
