"""Checks of a service's inputs against a reference: completeness, schema, ranges, freshness, drift by column. Pure.

Textbook limits of KS and PSI fire on most quiet days, because days differ. So every limit is what the reference's own
days show: each day is held against the others as the newest one is held against all (in samples of the same size), and
a limit lies where another such day comes with a probability of ALPHA, over all columns together: a one-sided prediction
interval for one more value of a sample that is normal on the scale of logs (of shares: logits), mean + t(n - 1, 1 -
ALPHA / columns) * sd * sqrt(1 + 1/n) (Hahn and Meeker 1991, section 4.2; Bonferroni 1936).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from detection.drift import FLOOR, psi
from detection.model import FloatArray

DAY_S = 86_400.0
ALPHA = 0.01
"""How often a quiet day may be called odd by one check."""
MIN_DAYS = 5
"""Days of the reference that tell how days differ."""
MIN_ROWS = 50
"""Rows of a day that say anything about its distribution."""
MOST_ROWS = 2_000
"""Rows of a day that are looked at: more of them tell no more of how days differ."""
KINDS = 200
"""A text column with more values than this is no category: its values are not compared."""
KS_NEWS, PSI_NEWS, SHARE_NEWS = 0.05, 0.02, 0.01
"""Smaller distances, and smaller shares of missing or odd values, are no news however steady the reference was."""

Column = FloatArray | NDArray[np.object_]


@dataclass(frozen=True)
class Rows:
    """A sample of inputs. columns: numbers as float64 with NaN where missing, text as objects with None; all of shape
    (rows,). times: epoch seconds of each row, shape (rows,)."""

    columns: Mapping[str, Column]
    times: FloatArray

    @property
    def count(self) -> int:
        return int(self.times.size)

    def days(self) -> list[Rows]:
        """The whole days that end with the newest row, oldest first; days with fewer than MIN_ROWS are left out."""
        if not self.count:
            return []
        age = np.floor((self.times.max() - self.times) / DAY_S).astype(int)
        found = [self._of(np.flatnonzero(age == k)) for k in range(int(age.max()), -1, -1)]
        return [day for day in found if day.count >= MIN_ROWS]

    def before(self, at_s: float) -> Rows:
        return self._of(np.flatnonzero(self.times <= at_s))

    def newest(self) -> Rows:
        """The last day."""
        return self._of(np.flatnonzero(self.times > self.times.max() - DAY_S)) if self.count else self

    def _of(self, index: NDArray[np.intp]) -> Rows:
        return Rows({name: values[index] for name, values in self.columns.items()}, self.times[index])


@dataclass(frozen=True)
class Finding:
    """One check. ratio: of what was found to its limit, above 1 where it is odd; None where nothing can be said.

    column: the worst one, "" where it is about all. sentence: what was found, or why nothing can be said.
    """

    check: str
    ratio: float | None
    sentence: str
    column: str = ""
    psi: float | None = None
    psi_limit: float | None = None

    @property
    def odd(self) -> bool:
        return self.ratio is not None and self.ratio > 1


def check(reference: Rows, sample: Rows, *, now_s: float, fresh_s: float, seed: int = 0) -> tuple[Finding, ...]:
    """Every check of the newest day of `sample`, in the order of `signals.INPUT_CHECKS`; `data_<check>` is the
    signal of each, in times of its limit."""
    newest, days = sample.newest(), reference.days()
    shared = [name for name in reference.columns if name in sample.columns and _same_kind(reference, sample, name)]
    rng = np.random.default_rng(seed)
    return (
        _schema(reference, sample),
        _missing(days, newest, shared),
        _outside(days, newest, shared),
        _drift(days, newest, shared, rng),
        _age(sample, now_s, fresh_s),
    )


def _same_kind(reference: Rows, sample: Rows, name: str) -> bool:
    return _text(reference.columns[name]) == _text(sample.columns[name])


def _text(values: Column) -> bool:
    return values.dtype == object


def _schema(reference: Rows, sample: Rows) -> Finding:
    gone = [name for name in reference.columns if name not in sample.columns]
    added = [name for name in sample.columns if name not in reference.columns]
    both = [name for name in reference.columns if name in sample.columns]
    other = [name for name in both if not _same_kind(reference, sample, name)]
    said = [f"{name} is missing" for name in gone] + [f"{name} is not in the reference" for name in added]
    said += [f"{name} is {'text' if _text(sample.columns[name]) else 'a number'} now" for name in other]
    if not said:
        return Finding("schema", 0.0, f"all {len(reference.columns)} columns are as in the reference")
    more = f" and {len(said) - 3} more" if len(said) > 3 else ""
    sentence = f"the columns differ: {', '.join(said[:3])}{more}"
    return Finding("schema", 1.0 + len(said), sentence, (gone + added + other)[0])


def _too_few(days: Sequence[Rows], newest: Rows) -> str:
    if newest.count < MIN_ROWS:
        return f"the newest day has {newest.count} rows, {MIN_ROWS} are needed"
    if len(days) < MIN_DAYS:
        return f"the reference has {len(days)} days with {MIN_ROWS} rows, {MIN_DAYS} are needed to know how days differ"
    return ""


def _missing(days: Sequence[Rows], newest: Rows, names: Sequence[str]) -> Finding:
    if few := _too_few(days, newest):
        return Finding("missing", None, few)
    shares = {name: _share_missing(newest.columns[name]) for name in names}
    limits = {name: _limit([_share_missing(d.columns[name]) for d in days], SHARE_NEWS, len(names)) for name in names}
    return _worst("missing", shares, limits, "{found:.1%} of {column} is missing (its own days: up to {limit:.1%})")


def _share_missing(values: Column) -> float:
    missing = np.array([v is None for v in values]) if _text(values) else ~np.isfinite(values.astype(np.float64))
    return float(missing.mean()) if missing.size else 0.0


def _outside(days: Sequence[Rows], newest: Rows, names: Sequence[str]) -> Finding:
    """Values beyond the range of the reference, or text that it never held."""
    if few := _too_few(days, newest):
        return Finding("outside", None, few)
    shares, limits = {}, {}
    for name in names:
        parts = [_present(day.columns[name]) for day in days]
        shares[name] = _share_outside(parts, _present(newest.columns[name]))
        own = [_share_outside(parts[:i] + parts[i + 1 :], part) for i, part in enumerate(parts)]
        limits[name] = _limit(own, SHARE_NEWS, len(names))
    words = "{found:.1%} of {column} lies outside what the reference holds (its own days: up to {limit:.1%})"
    return _worst("outside", shares, limits, words)


def _share_outside(reference: Sequence[Column], values: Column) -> float:
    whole = np.concatenate(reference)
    if not values.size or not whole.size:
        return 0.0
    if _text(values):
        known = set(whole)
        return 0.0 if len(known) > KINDS else float(np.mean([v not in known for v in values]))
    return float(((values < whole.min()) | (values > whole.max())).mean())


def _present(values: Column) -> Column:
    if _text(values):
        return cast(Column, values[np.array([v is not None for v in values], dtype=bool)])
    return values[np.isfinite(values.astype(np.float64))]


def _drift(days: Sequence[Rows], newest: Rows, names: Sequence[str], rng: np.random.Generator) -> Finding:
    if few := _too_few(days, newest):
        return Finding("drift", None, few)
    size = min(MOST_ROWS, newest.count)
    found: dict[str, tuple[float, float]] = {}
    own: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        parts = [_sampled(_present(day.columns[name]), min(size, day.count), rng) for day in days]
        now = _sampled(_present(newest.columns[name]), size, rng)
        if now.size < MIN_ROWS or sum(part.size >= MIN_ROWS for part in parts) < MIN_DAYS or _free_text(parts):
            continue
        parts = [part for part in parts if part.size >= MIN_ROWS]
        found[name] = _distances(_joined(parts), now)
        own[name] = [_distances(_joined(parts[:i] + parts[i + 1 :]), part) for i, part in enumerate(parts)]
    if not found:
        return Finding("drift", None, "no column can be compared")
    count = len(found)
    limits = {
        name: (
            _limit([ks for ks, _ in pairs], KS_NEWS, count),
            _limit([psi for _, psi in pairs], PSI_NEWS, count, bounded=False),
        )
        for name, pairs in own.items()
    }
    ratios = {name: min(found[name][0] / limits[name][0], found[name][1] / limits[name][1]) for name in found}
    worst = max(ratios, key=ratios.__getitem__)
    (ks_now, psi_now), (ks_limit, psi_limit) = found[worst], limits[worst]
    drifted = sorted((name for name in ratios if ratios[name] > 1), key=lambda name: -ratios[name])
    what = "no column drifts"
    if drifted:
        more = f" ({len(drifted)} of {count} columns)" if len(drifted) > 3 else ""
        what = f"{', '.join(drifted[:3])} {'has' if len(drifted) == 1 else 'have'} drifted{more}"
    sentence = f"{what}; {worst}: KS {ks_now:.2f} (limit {ks_limit:.2f}), PSI {psi_now:.2f} (limit {psi_limit:.2f})"
    return Finding("drift", ratios[worst], sentence, worst, psi_now, psi_limit)


def _joined(parts: Sequence[Column]) -> Column:
    return cast(Column, np.concatenate(parts))


def _free_text(parts: Sequence[Column]) -> bool:
    return _text(parts[0]) and len(set(np.concatenate(parts))) > KINDS


def _sampled(values: Column, size: int, rng: np.random.Generator) -> Column:
    if values.size <= size:
        return values
    chosen: Column = values[rng.choice(values.size, size, replace=False)]
    return chosen


def _distances(reference: Column, values: Column) -> tuple[float, float]:
    """KS and PSI; of categories the largest difference of shares stands for KS."""
    from scipy import stats  # a second of imports, for whoever checks inputs

    if not _text(values):
        ks = float(stats.ks_2samp(reference.astype(np.float64), values.astype(np.float64), method="asymp").statistic)
        return ks, psi(reference.astype(np.float64), values.astype(np.float64))
    kinds = sorted({*reference, *values}, key=str)
    a, b = (np.array([(part == kind).mean() for kind in kinds]) for part in (reference, values))
    gap = float(np.abs(a - b).max())
    a, b = np.maximum(a, FLOOR), np.maximum(b, FLOOR)
    return gap, float(np.sum((b - a) * np.log(b / a)))


def _limit(own: Sequence[float], least: float, columns: int, *, bounded: bool = True) -> float:
    """Where one more such day lies with a probability of ALPHA over all columns together (Bonferroni 1936).

    bounded: the values are in 0..1, and logits are taken instead of logs, so that a limit is never 1.
    """
    from scipy import special, stats

    values = np.maximum(np.asarray(own, dtype=np.float64), least / 10)
    scaled = special.logit(np.minimum(values, 1 - least / 10)) if bounded else np.log(values)
    quantile = float(stats.t.ppf(1 - ALPHA / max(1, columns), max(1, scaled.size - 1)))
    top = float(scaled.mean()) + quantile * float(scaled.std(ddof=1)) * math.sqrt(1 + 1 / scaled.size)
    return max(least, float(special.expit(top)) if bounded else math.exp(min(top, 20.0)))


def _worst(check: str, found: Mapping[str, float], limits: Mapping[str, float], words: str) -> Finding:
    ratios = {name: found[name] / limits[name] for name in found}
    if not ratios:
        return Finding(check, None, "no column can be compared")
    name = max(ratios, key=ratios.__getitem__)
    return Finding(check, ratios[name], words.format(found=found[name], column=name, limit=limits[name]), name)


def _age(sample: Rows, now_s: float, fresh_s: float) -> Finding:
    if not sample.count:
        return Finding("age", None, "there is no row")
    age_s = max(0.0, now_s - float(sample.times.max()))
    sentence = f"the newest row is {age_s / 3600:.1f} h old (at most {fresh_s / 3600:.1f} h are expected)"
    return Finding("age", age_s / fresh_s, sentence)
