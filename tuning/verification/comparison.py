"""Two sides of a service compared, signal by signal: versions, replicas, or the same service at two times. Pure.

Latencies, rates and costs are compared as ratios (on the log scale), shares as differences. Sides that ran at the same
time are compared point by point, so that whatever happened to both cancels; sides of two times as two levels
(`autocorrelation`). Several signals are asked at once, so each is asked the more strictly (Bonferroni 1936): the
confidence is that of the whole table, not of a line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np

from detection.model import FloatArray, MetricWindow
from detection.signals import SIGNALS, Signal
from tuning.formats import change
from tuning.verification.autocorrelation import Level, Side, level, shift
from tuning.verification.settings import VerificationSettings

Verdict = Literal["better", "worse", "same", "different", "cannot tell"]
COMPARED = (
    "p50_ms", "p95_ms", "p99_ms", "mean_ms", "queue_ms", "batch_ms", "rows_per_batch", "error_rate", "accuracy",
    "agreement", "qps", "gpu_util", "gpu_memory",
)  # fmt: skip
"""In the order of the table; a signal that one side does not have is left out of it."""
_LATENCIES = frozenset({"p50_ms", "p95_ms", "p99_ms", "mean_ms", "queue_ms"})


@dataclass(frozen=True)
class Line:
    """One signal of both sides. a, b: typical values in the signal's unit (geometric mean where a ratio is compared).

    effect, low, high: b against a, a ratio where `ratio`, else a difference in the signal's unit; None where nothing
    could be compared. verdict: of b; "different" where the signal knows no better or worse.
    """

    signal: str
    title: str
    unit: str
    ratio: bool
    a: float | None
    b: float | None
    effect: float | None
    low: float | None
    high: float | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True)
class Comparison:
    """The table. side_by_side: both sides were measured at the same times. level: of the intervals. notes: sentences
    on what makes the comparison doubtful."""

    lines: tuple[Line, ...]
    side_by_side: bool
    level: float
    notes: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One word for all lines: "different" as soon as one line is."""
        found = {line.verdict for line in self.lines}
        if found & {"better", "worse", "different"}:
            return "different"
        return "same" if found == {"same"} else "cannot tell"


def compare(
    a: MetricWindow,
    b: MetricWindow,
    settings: VerificationSettings,
    *,
    costs: Sequence[tuple[Signal, FloatArray, FloatArray]] = (),
) -> Comparison:
    """Compare b with a. Both windows have one step, at least the window of the rates behind them: nearer points share
    their samples. costs: of tuning.cost.beside, shape (span.points,) each.

    Never raises on poor data: a line that has too little says so.
    """
    together = bool(np.intersect1d(a.span.times().round(3), b.span.times().round(3)).size)
    both = [name for name in COMPARED if name in a.values and name in b.values]
    pairs = [(SIGNALS[name], a.values[name], b.values[name]) for name in both]
    pairs = [pair for pair in pairs if _known(pair[1]) or _known(pair[2])]
    pairs += costs
    notes = _doubts(a, b, settings, together=together)
    asked = max(1, len(pairs))
    grids = (a.span.times(), b.span.times()) if together else None
    lines = tuple(_line(s, one, other, grids, settings, asked) for s, one, other in pairs)
    if not together and (doubt := _load_moved(a, b, settings)):
        lines = tuple(_doubted(line, doubt) for line in lines)
    return Comparison(lines, together, settings.interval_level, notes)


def missing(a: MetricWindow, b: MetricWindow) -> Mapping[str, str]:
    """The compared signals that only one side has, and which side lacks them: "A" or "B"."""
    found = {}
    for name in COMPARED:
        has = [name in side.values and _known(side.values[name]) for side in (a, b)]
        if has[0] != has[1]:
            found[name] = "B" if has[0] else "A"
    return found


def _known(values: FloatArray) -> bool:
    return bool(np.isfinite(values).any())


def _line(
    signal: Signal,
    a: FloatArray,
    b: FloatArray,
    grids: tuple[FloatArray, FloatArray] | None,
    settings: VerificationSettings,
    asked: int,
) -> Line:
    old, new = _scaled(a, ratio=signal.log), _scaled(b, ratio=signal.log)
    one, other = (_typical(side, ratio=signal.log) for side in (old, new))
    told = partial(Line, signal.name, signal.title, signal.unit, signal.log, one, other)
    fewest = min(int(np.isfinite(side).sum()) for side in (old, new))
    if grids is not None:
        old, new = _paired(old, new, grids)
        fewest = int(np.isfinite(new - old).sum())
    if fewest < settings.min_points:
        reason = f"{fewest} points{' at the same times' if grids is not None else ''}, {settings.min_points} are needed"
        return told(None, None, None, "cannot tell", reason)
    floor = settings.noise_floor if signal.log else max(signal.floor, 1e-6) * settings.noise_floor
    if grids is not None:
        # One series of differences tells less about its autocorrelation than two sides do: believe in more of it.
        found = level(Side(new - old), prior=min(settings.phi_prior, 0.0), noise_floor=floor)
    else:
        found, _ = shift(Side(old), Side(new), history=None, prior=settings.phi_prior, noise_floor=floor)
    verdict, reason = _verdict(signal, found, settings, asked)
    low, high = found.interval(settings.interval_level)
    middle = found.mean
    if signal.log:
        middle, low, high = math.exp(middle), math.exp(low), math.exp(high)
    return told(middle, low, high, verdict, reason)


def _scaled(values: FloatArray, *, ratio: bool) -> FloatArray:
    """Logs where a ratio is compared: no latency, rate or cost is ever 0, so a 0 is no point."""
    values = np.asarray(values, dtype=np.float64)
    if not ratio:
        return np.where(np.isfinite(values), values, np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.isfinite(values) & (values > 0), np.log(values), np.nan)


def _typical(scaled: FloatArray, *, ratio: bool) -> float | None:
    known = scaled[np.isfinite(scaled)]
    if not known.size:
        return None
    return math.exp(float(known.mean())) if ratio else float(known.mean())


def _paired(a: FloatArray, b: FloatArray, grids: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Both sides on the times that they share, in order."""
    first, second = (grid.round(3) for grid in grids)
    _, of_a, of_b = np.intersect1d(first, second, return_indices=True)
    return a[of_a], b[of_b]


def _verdict(signal: Signal, found: Level, settings: VerificationSettings, asked: int) -> tuple[Verdict, str]:
    threshold = 1 - (1 - settings.confidence) / (2 * asked)
    below = found.below(0.0)
    least, same = _margins(signal, settings)
    low, high = found.interval(settings.interval_level)
    moved = "down" if below >= threshold else "up" if 1 - below >= threshold else ""
    if moved and abs(found.mean) >= least:
        if signal.worse in ("up", "down"):
            return ("worse" if moved == signal.worse else "better"), ""
        return "different", ""
    if -same <= low and high <= same:
        return "same", ""
    return "cannot tell", "too uncertain to tell a difference from noise"


def _margins(signal: Signal, settings: VerificationSettings) -> tuple[float, float]:
    """The least effect that is called one, and the half-width within which two sides are the same; as the level is
    measured: logs or the signal's unit."""
    if signal.log:
        return -math.log1p(-settings.min_effect), -math.log1p(-settings.same_within)
    if signal.name == "error_rate":
        return settings.error_rate_floor, settings.error_rate_floor
    if signal.name in ("accuracy", "agreement"):
        return settings.accuracy_drop, settings.accuracy_drop
    least = max(signal.floor, settings.min_effect)
    return least, max(least, settings.same_within)


def _load_moved(a: MetricWindow, b: MetricWindow, settings: VerificationSettings) -> str:
    """What the load of two different times explains: a sentence, or ""."""
    rates = [_typical(_scaled(side.values.get("qps", np.empty(0)), ratio=True), ratio=True) for side in (a, b)]
    if rates[0] is None or rates[1] is None:
        return ""
    ratio = rates[1] / rates[0]
    if abs(math.log(ratio)) <= -math.log1p(-settings.load_tolerance):
        return ""
    return f"the load differs by {change(ratio)}, which may explain it"


def _doubted(line: Line, doubt: str) -> Line:
    """A latency under another load says nothing about the service."""
    if line.signal not in _LATENCIES or line.verdict not in ("better", "worse"):
        return line
    return replace(line, verdict="cannot tell", reason=doubt)


def _doubts(
    a: MetricWindow, b: MetricWindow, settings: VerificationSettings, *, together: bool
) -> tuple[str, ...]:
    notes = []
    if doubt := _load_moved(a, b, settings):
        words = "B served another load than A" if together else "the two times had another load"
        notes.append(f"{words}: {doubt.removesuffix(', which may explain it')}.")
    for name, lacking in missing(a, b).items():
        notes.append(f"{lacking} has no {SIGNALS[name].title} ({name}).")
    for word, side in (("A", a), ("B", b)):
        if (share := _censored(side)) > 0:
            notes.append(
                f"{word}'s P95 lies at or beyond the histogram's last bucket ({side.bounds_ms[-1]:g} ms) in "
                f"{share:.0%} of its points: the true value is higher."
            )
    return tuple(notes)


def _censored(side: MetricWindow) -> float:
    values = side.values.get("p95_ms")
    if values is None or not side.bounds_ms:
        return 0.0
    known = values[np.isfinite(values)]
    return float((known >= side.bounds_ms[-1]).mean()) if known.size else 0.0


def worst(lines: Sequence[Line]) -> Line | None:
    """The line that a reader wants to see first: the worse ones before the better, P95 before the others, the larger
    effects first."""
    order = {"worse": 0, "different": 1, "better": 2}
    told = [line for line in lines if line.verdict in order and line.effect is not None]
    return min(told, key=lambda line: (order[line.verdict], line.signal != "p95_ms", -_size(line)), default=None)


def _size(line: Line) -> float:
    if line.effect is None:
        return 0.0
    return abs(math.log(line.effect)) if line.ratio else abs(line.effect)
