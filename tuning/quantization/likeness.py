"""How alike the answers of FP32 and INT8 are, by what kind of answer a model gives. Pure: arrays in, figures out.

A share of equal answers means nothing without the share that chance gives: a model that always says "no" agrees with
itself in every precision. So classes are compared beyond chance and one by one, vectors (embeddings) by whom they have
as neighbours, and numbers by their error against their own spread.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, Value
from tuning.errors import QuantizationRefused
from tuning.model import Interval

Kind = Literal["classes", "vectors", "values", "own"]
CONFIDENCE = 0.95
NEIGHBOURS = 10
MIN_CLASS_ROWS = 5
"""With fewer rows even a class that vanished could have done so by chance of the draw."""
WORST_CLASSES = 3
VECTOR_WIDTH = 16
"""Narrower outputs are scores of few classes, or coordinates; wider ones have a direction that says something."""
_AT_MOST_VECTORS = 2000
_VECTOR_NAMES = re.compile(r"embed|pool|hidden|feature|vector|sentence|encod", re.IGNORECASE)


class ClassKept(Value):
    """Of the rows that FP32 gives one class (and rightly, where labels tell): how many INT8 gives the same."""

    label: int
    rows: int
    kept: Interval


class Likeness(Value):
    """What was found. kind: of the answer. agreement: share of rows that stay the same in the kind's own sense.

    beyond_chance: Cohen's kappa (Cohen 1960). worst: the classes that lose most, by the upper end of their interval.
    unjudged: classes with fewer than MIN_CLASS_ROWS rows. direction: 5th percentile of the rows' cosine after the mean
    vector was taken away. neighbours: share of each row's NEIGHBOURS nearest that stay, chance_neighbours: what random
    vectors would give. error, error_high: root mean square and 99th percentile of the difference, in standard
    deviations of what FP32 answers.
    """

    kind: Kind
    rows: int
    agreement: Interval
    beyond_chance: float | None = None
    worst: tuple[ClassKept, ...] = ()
    unjudged: int = 0
    direction: float | None = None
    neighbours: Interval | None = None
    chance_neighbours: float = 0.0
    error: float | None = None
    error_high: float | None = None


def wilson(successes: int, total: int, level: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share (Wilson 1927): honest also near 0 and 1 and for few rows."""
    if total <= 0:
        return Interval(value=0.0, low=0.0, high=1.0, level=level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Interval(value=p, low=max(0.0, centre - half), high=min(1.0, centre + half), level=level)


def chosen(outputs: Mapping[str, NDArray[Any]], output: str | None = None) -> str:
    """The output that is compared: the named one, the only one, or the only one that can be class scores.

    QuantizationRefused: there is none of numbers, or several could be meant.
    """
    numbers = {k: v for k, v in outputs.items() if v.dtype.kind in "fiub"}
    if output is not None:
        if output not in numbers:
            raise QuantizationRefused(
                f"the model has no output of numbers called {output!r}; it has {', '.join(sorted(numbers)) or 'none'}"
            )
        return output
    floats = sorted(k for k, v in numbers.items() if v.dtype.kind == "f")
    scores = [k for k in floats if is_scores(numbers[k])]
    candidates = scores or floats or sorted(numbers)
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise QuantizationRefused("the model answers no numbers: there is nothing to compare")
    what = "class scores" if scores else "answer"
    raise QuantizationRefused(
        f"several outputs could be the {what} ({', '.join(candidates)}): say which one is compared "
        "(--output, in services.yaml `output`)"
    )


def squeezed(array: NDArray[Any]) -> NDArray[Any]:
    """Without trailing dimensions of one: the scores of a convolutional head have the shape (rows, classes, 1, 1)."""
    while array.ndim > 2 and array.shape[-1] == 1:
        array = array[..., 0]
    return array


def is_scores(array: NDArray[Any]) -> bool:
    """Whether the last axis can be classes: (rows, classes) or (rows, places, classes). Maps (rows, c, h, w): no."""
    array = squeezed(array)
    return array.dtype.kind == "f" and array.ndim in (2, 3) and array.shape[-1] > 1


def kind_of(name: str, fp32: NDArray[Any]) -> Kind:
    """Vectors where the name says so, rows have the length 1, or one place is always the largest; numbers where there
    is no axis of classes; else classes."""
    array = squeezed(fp32)
    if array.dtype.kind in "iub":
        return "classes" if array.dtype.kind != "f" else "values"
    if not is_scores(array):
        return "values"
    if array.shape[-1] < VECTOR_WIDTH:
        return "classes"
    flat = array.reshape(-1, array.shape[-1])
    lengths = np.linalg.norm(flat.astype(np.float64), axis=1)
    unit = bool(np.all(np.abs(lengths - 1) < 1e-3)) and bool((flat < 0).any())
    constant = bool((flat.argmax(axis=1) == flat[0].argmax()).all())
    return "vectors" if unit or constant or _VECTOR_NAMES.search(name) else "classes"


def classes(fp32: NDArray[Any], int8: NDArray[Any], right: NDArray[np.bool_] | None = None) -> Likeness:
    """Likeness of two arrays of classes, shape (rows, ...): a row agrees when all of it is equal.

    right: where FP32 is right, of the same shape; then a class is judged on those places only.
    """
    rows = len(fp32)
    same = fp32 == int8
    agreement = wilson(int(same.reshape(rows, -1).all(axis=1).sum()), rows)
    ours, theirs = fp32.reshape(-1), int8.reshape(-1)
    labels, index = np.unique(ours, return_inverse=True)
    counted = np.ones(ours.size, bool) if right is None else right.reshape(-1)
    totals = np.bincount(index[counted], minlength=labels.size)
    kept = np.bincount(index[counted & same.reshape(-1)], minlength=labels.size)
    judged = np.flatnonzero(totals >= MIN_CLASS_ROWS)
    # each class is a test of its own: with a thousand of them one in twenty would fail by chance
    level = 1 - (1 - CONFIDENCE) / max(1, judged.size)
    found = [
        ClassKept(label=int(labels[i]), rows=int(totals[i]), kept=wilson(int(kept[i]), int(totals[i]), level))
        for i in judged
    ]
    worst = sorted(found, key=lambda c: (c.kept.high, c.kept.value, c.label))[:WORST_CLASSES]
    return Likeness(
        kind="classes",
        rows=rows,
        agreement=agreement,
        beyond_chance=kappa(ours, theirs),
        worst=tuple(worst),
        unjudged=int(((totals > 0) & (totals < MIN_CLASS_ROWS)).sum()),
    )


def kappa(fp32: NDArray[Any], int8: NDArray[Any]) -> float | None:
    """Agreement beyond chance, 1 for equal answers, 0 for what the shares of the classes alone would give.

    None where FP32 gives every row the same class: then agreement says nothing.
    """
    labels = np.unique(np.concatenate([fp32, int8]))
    ours = np.bincount(np.searchsorted(labels, fp32), minlength=labels.size) / fp32.size
    theirs = np.bincount(np.searchsorted(labels, int8), minlength=labels.size) / int8.size
    if (ours == 1).any():
        return None
    chance = float(ours @ theirs)
    return float(((fp32 == int8).mean() - chance) / (1 - chance))


def direction(fp32: NDArray[Any], int8: NDArray[Any]) -> float:
    """5th percentile over the rows of the cosine between both vectors after FP32's mean vector was taken away: a place
    that is large in every row would hide whatever happens to the others. Shape (rows, width) each."""
    mean = fp32.mean(axis=0)
    a, b = fp32 - mean, int8 - mean
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    usable = np.linalg.norm(a, axis=1) > 1e-6 * max(1e-30, float(np.abs(fp32).max()))
    if not usable.any():
        return 0.0
    cosine = np.divide((a * b).sum(axis=1), lengths, out=np.zeros(len(a)), where=lengths > 0)
    return float(np.quantile(cosine[usable], 0.05))


def vectors(fp32: NDArray[Any], int8: NDArray[Any], *, seed: int = 0) -> Likeness:
    """Likeness of vectors, shape (rows, ..., width); of several per row the mean. A row agrees when its nearest
    neighbour in FP32 (by cosine, among the other rows) is one of its NEIGHBOURS nearest in INT8."""
    pick = np.random.default_rng(seed).permutation(len(fp32))[:_AT_MOST_VECTORS]
    a, b = (_pooled(array)[pick] for array in (fp32, int8))
    k = min(NEIGHBOURS, len(a) - 1)
    if k < 1:
        return Likeness(kind="vectors", rows=len(a), agreement=wilson(0, 0))
    near_a, near_b = _nearest(a, k), _nearest(b, k)
    stays = (near_a[:, :1] == near_b).any(axis=1)
    shared = np.array([np.isin(x, y).mean() for x, y in zip(near_a, near_b, strict=True)])
    half = 1.96 * float(shared.std(ddof=1)) / math.sqrt(len(shared)) if len(shared) > 1 else 1.0
    middle = float(shared.mean())
    return Likeness(
        kind="vectors",
        rows=len(fp32),
        agreement=wilson(int(stays.sum()), len(stays)),
        direction=direction(a, b),
        neighbours=Interval(value=middle, low=max(0.0, middle - half), high=min(1.0, middle + half), level=CONFIDENCE),
        chance_neighbours=k / (len(a) - 1),
    )


def values(fp32: NDArray[Any], int8: NDArray[Any]) -> Likeness:
    """Likeness of numbers, shape (rows, ...), column by column: the worst column counts. A row agrees when none of its
    numbers is off by more than a tenth of its column's spread."""
    rows = len(fp32)
    a, b = (array.reshape(rows, -1).astype(np.float64) for array in (fp32, int8))
    spread = a.std(axis=0)
    floor = 1e-6 * float(np.abs(a).max()) if a.size else 0.0
    varies = spread > max(floor, 1e-30)
    if not varies.any():
        raise QuantizationRefused(
            "the FP32 model answers the same number for every row: nothing to compare with; give other rows"
        )
    off = np.abs(a - b)[:, varies] / spread[varies]
    column = np.sqrt((off**2).mean(axis=0))
    return Likeness(
        kind="values",
        rows=rows,
        agreement=wilson(int((off <= 0.1).all(axis=1).sum()), rows),
        error=float(column.max()),
        error_high=float(np.quantile(off, 0.99, axis=0).max()),
    )


def _pooled(array: NDArray[Any]) -> FloatArray:
    array = squeezed(array).astype(np.float64)
    pooled: FloatArray = array.reshape(len(array), -1, array.shape[-1]).mean(axis=1)
    return pooled


def _nearest(vectors_: FloatArray, k: int) -> NDArray[np.intp]:
    """The k nearest other rows by cosine, nearest first, shape (rows, k)."""
    lengths = np.linalg.norm(vectors_, axis=1, keepdims=True)
    unit = np.divide(vectors_, lengths, out=np.zeros_like(vectors_), where=lengths > 0)
    like = unit @ unit.T
    np.fill_diagonal(like, -np.inf)
    best = np.argpartition(-like, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(like, best, axis=1), axis=1, kind="stable")
    return np.take_along_axis(best, order, axis=1)
