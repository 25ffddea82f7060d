"""How the signals of a declared chain went together: "GPU utilisation, queue, P95, conversion". Pure.

Each is held against the next one by Spearman's rank correlation at the lag that suits both best, over the stretch
around the incident. That is association: whatever moved both, and in whichever order, would show the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from detection.model import FloatArray, MetricWindow
from tuning.planning import thresholds as th


@dataclass(frozen=True)
class Link:
    """strength: the rank correlation, -1..1; None where nothing can be told. lag_s: by how much `later` follows."""

    earlier: str
    later: str
    strength: float | None
    lag_s: float = 0.0


def links(window: MetricWindow, names: Sequence[str], onset_s: float) -> tuple[Link, ...]:
    """One for each pair of neighbours that the window has, in order. The stretch is what lies after the onset, and as
    much before it: a signal that moves tells more than one that stands."""
    after_s = window.span.end_s - onset_s
    part = window.between(onset_s - max(after_s, th.CHAIN_POINTS * window.span.step_s), window.span.end_s)
    there = [name for name in names if name in part.values and np.isfinite(part.values[name]).any()]
    return tuple(_link(part, one, other) for one, other in pairwise(there))


def _link(part: MetricWindow, earlier: str, later: str) -> Link:
    most = int(part.span.points * th.CHAIN_LAG)
    pairs = ((lag, _rho(part.values[earlier], part.values[later], lag)) for lag in range(most + 1))
    found = [(lag, rho) for lag, rho in pairs if rho is not None]
    if not found:
        return Link(earlier, later, None)
    lag, rho = max(found, key=lambda pair: (round(abs(pair[1]), 2), -pair[0]))
    return Link(earlier, later, rho, lag * part.span.step_s)


def _rho(earlier: FloatArray, later: FloatArray, lag: int) -> float | None:
    """The rank correlation of a signal with the other one `lag` points later; None: too few, or one stands still."""
    a, b = earlier[: earlier.size - lag], later[lag:]
    known = np.isfinite(a) & np.isfinite(b)
    a, b = a[known], b[known]
    if a.size < th.CHAIN_POINTS or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    from scipy import stats  # planners are read wherever a DAG file is parsed

    return float(stats.spearmanr(a, b).statistic)


def told(found: Sequence[Link], titles: Mapping[str, str]) -> str:
    """The chain in one line; "" where no link is strong enough to be shown."""
    if not any(_strong(link) for link in found):
        return ""
    words = [titles.get(found[0].earlier, found[0].earlier)]
    for link in found:
        lag = f", {link.lag_s:.0f} s later" if link.lag_s else ""
        how = f"{link.strength:+.2f}{lag}" if link.strength is not None and _strong(link) else "no clear association"
        words.append(f"→ ({how}) {titles.get(link.later, link.later)}")
    return f"{' '.join(words)}: rank correlation around the incident, an association and no proof"


def _strong(link: Link) -> bool:
    return link.strength is not None and abs(link.strength) >= th.CHAIN_STRONG
