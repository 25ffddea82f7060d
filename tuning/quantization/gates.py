"""May this INT8 model take traffic? Pure judgement of measured agreement, accuracy and latency.

Nothing is assumed: on some processors and for some models INT8 is slower than FP32, or wrong. Every gate gives its
row and its reason, also the ones that passed, so that the table in the mail is the whole story.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, Value
from tuning.errors import QuantizationRefused
from tuning.model import Interval
from tuning.quantization.likeness import CONFIDENCE, MIN_CLASS_ROWS, NEIGHBOURS, Likeness, squeezed

MIN_SPEEDUP = 1.10
MAX_ACCURACY_DROP = 0.01
MIN_HELD_BACK = 100
CHANCE_SLACK = 5.0
"""Beyond chance, and within one class, this many times the disagreement is allowed that is allowed over all rows: with
0.98 asked, kappa and each class must reach 0.90. A class of 1 % that vanishes costs 1 % of all, and all of its own."""
MIN_NEIGHBOURS = 0.8
MIN_DIRECTION = 0.95
"""Encoders whose retrieval stays the same were measured at 0.90 to 0.99 (neighbours kept) and 0.996 or more
(direction), those that an outlier unit ruined at 0.38 to 0.84 and 0.84 to 0.88."""


class GateLimits(Value):
    """What INT8 has to reach.

    max_accuracy_drop: FP32 accuracy minus INT8 accuracy, as a share (0.01 is one percentage point). min_agreement:
    share of rows with the same answer; None: 1 - max_accuracy_drop without labels (a drop can never exceed the
    disagreement), 1 - 3 * max_accuracy_drop with labels. min_speedup: FP32 latency divided by INT8 latency, reached by
    the LOWER end of its confidence interval at every batch size measured. min_neighbours: of embeddings, share of the
    nearest neighbours that stay, beyond chance. min_rows: held-back rows.
    """

    max_accuracy_drop: float = MAX_ACCURACY_DROP
    min_agreement: float | None = None
    min_speedup: float = MIN_SPEEDUP
    min_neighbours: float = MIN_NEIGHBOURS
    min_rows: int = MIN_HELD_BACK

    def agreement(self, labelled: bool) -> float:
        if self.min_agreement is not None:
            return self.min_agreement
        return 1 - (3 if labelled else 1) * self.max_accuracy_drop


class Accuracy(Value):
    """FP32 against INT8 on rows that calibration did not see. accuracy_*: None without labels."""

    rows: int
    agreement: float
    agreement_interval: Interval
    accuracy_fp32: float | None = None
    accuracy_int8: float | None = None
    drop_high: float | None = None
    metric: str = "top1"
    likeness: Likeness | None = None

    @property
    def drop(self) -> float | None:
        if self.accuracy_fp32 is None or self.accuracy_int8 is None:
            return None
        return self.accuracy_fp32 - self.accuracy_int8


class LatencyRow(Value):
    """One batch size, milliseconds. clock: "cpu" (time of the thread, blind to neighbours) or "wall".

    speedup: median FP32 / median INT8 with a bootstrap interval. The wall medians stand beside, also under "cpu".
    """

    batch: int
    fp32_p50_ms: float
    fp32_p95_ms: float
    int8_p50_ms: float
    int8_p95_ms: float
    speedup: Interval
    fp32_wall_p50_ms: float
    int8_wall_p50_ms: float
    samples: int
    clock: Literal["cpu", "wall"] = "cpu"


class GateRow(Value):
    """One gate: what was found, what was asked, whether it passed (None: it could not be measured here)."""

    gate: str
    found: str
    asked: str
    passed: bool | None


class Judgement(Value):
    """The verdict with its table. passed: no gate said no. `refusal` says why INT8 may not be used, "" when it may."""

    passed: bool
    gates: tuple[GateRow, ...]
    accuracy: Accuracy | None = None
    latency: tuple[LatencyRow, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def refusal(self) -> str:
        failed = [f"{row.gate} is {row.found}, asked for {row.asked}" for row in self.gates if row.passed is False]
        return "; ".join([*failed, *self.notes]) if failed else ""

    @property
    def ready(self) -> bool:
        """Every gate was measured and passed: only then may a server be told to serve it."""
        return all(row.passed is True for row in self.gates)

    def evidence(self) -> dict[str, object]:
        """For Receipt.evidence and the mail: JSON values only."""
        return {**self.model_dump(mode="json"), "refusal": self.refusal}


class GateRefused(QuantizationRefused):
    """A gate said no, or stayed open. `judgement` is the table; `evidence` the same as JSON values, for the mail."""

    def __init__(self, message: str, judgement: Judgement, evidence: dict[str, object] | None = None) -> None:
        super().__init__(message, evidence=evidence or judgement.evidence())
        self.judgement = judgement


def accuracy_of(
    likeness: Likeness, right: tuple[FloatArray, FloatArray] | None = None, metric: str = "top1"
) -> Accuracy:
    """How alike the answers are, and accuracy where it is known.

    right: per-row scores 0..1 of FP32 and INT8 against the labels. drop_high: upper end of the 95 % interval of the
    drop, from the paired differences (rows where exactly one of the two is right): the rows' difficulty cancels.
    """
    found = Accuracy(
        rows=likeness.rows,
        agreement=likeness.agreement.value,
        agreement_interval=likeness.agreement,
        metric=metric,
        likeness=likeness,
    )
    if right is None:
        return found
    before, after = (np.asarray(score, dtype=np.float64) for score in right)
    gap = before - after
    error = float(gap.std(ddof=1) / math.sqrt(len(gap))) if len(gap) > 1 else 1.0
    return found.model_copy(
        update={
            "accuracy_fp32": float(before.mean()),
            "accuracy_int8": float(after.mean()),
            "drop_high": float(gap.mean()) + 1.645 * error,
        }
    )


def latency_row(
    batch: int,
    fp32_s: FloatArray,
    int8_s: FloatArray,
    *,
    wall: tuple[FloatArray, FloatArray],
    clock: Literal["cpu", "wall"] = "cpu",
    seed: int = 0,
    draws: int = 1000,
) -> LatencyRow:
    """One row of the table from samples in seconds, shape (bursts, runs per burst).

    The interval resamples whole bursts (runs within a burst share the neighbours' noise, so they are no independent
    samples), `draws` times, from `seed`: the same samples give the same interval.
    """
    rng = np.random.default_rng(seed)
    pick_f = rng.integers(0, len(fp32_s), (draws, len(fp32_s)))
    pick_i = rng.integers(0, len(int8_s), (draws, len(int8_s)))
    ratios = np.median(fp32_s[pick_f].reshape(draws, -1), axis=1) / np.median(int8_s[pick_i].reshape(draws, -1), axis=1)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    middle = float(np.median(fp32_s) / np.median(int8_s))
    return LatencyRow(
        batch=batch,
        fp32_p50_ms=float(np.median(fp32_s)) * 1e3,
        fp32_p95_ms=float(np.quantile(fp32_s, 0.95)) * 1e3,
        int8_p50_ms=float(np.median(int8_s)) * 1e3,
        int8_p95_ms=float(np.quantile(int8_s, 0.95)) * 1e3,
        speedup=Interval(value=middle, low=min(float(low), middle), high=max(float(high), middle), level=CONFIDENCE),
        fp32_wall_p50_ms=float(np.median(wall[0])) * 1e3,
        int8_wall_p50_ms=float(np.median(wall[1])) * 1e3,
        samples=int(fp32_s.size),
        clock=clock,
    )


def judge_accuracy(accuracy: Accuracy, limits: GateLimits) -> tuple[GateRow, ...]:
    """The gates on held-back rows: how many there are, how alike the answers are, accuracy drop (with labels only)."""
    found = [
        GateRow(
            gate="held-back rows",
            found=str(accuracy.rows),
            asked=f"at least {limits.min_rows}",
            passed=accuracy.rows >= limits.min_rows,
        ),
        *_judge_likeness(accuracy, limits),
    ]
    if accuracy.drop is not None:
        found.append(
            GateRow(
                gate="accuracy drop",
                found=f"{accuracy.drop * 100:.2f} points "
                f"({accuracy.accuracy_fp32:.2%} to {accuracy.accuracy_int8:.2%})",
                asked=f"at most {limits.max_accuracy_drop * 100:.2f} points",
                passed=accuracy.drop <= limits.max_accuracy_drop + 1e-12,
            )
        )
    return tuple(found)


def _judge_likeness(accuracy: Accuracy, limits: GateLimits) -> list[GateRow]:
    like = accuracy.likeness
    asked = limits.agreement(accuracy.drop is not None)
    if like is not None and like.kind == "values":
        return _judge_values(like, limits)
    if like is not None and like.kind == "vectors":
        return [_at_least("nearest neighbour kept", accuracy.agreement, asked), *_judge_vectors(like, limits)]
    rows = [_at_least("agreement with FP32", accuracy.agreement, asked)]
    if like is not None and like.kind == "classes":
        rows += _judge_classes(like, max(0.0, 1 - CHANCE_SLACK * (1 - asked)))
    return rows


def _judge_classes(like: Likeness, asked: float) -> list[GateRow]:
    if like.beyond_chance is None:
        words = "nothing: FP32 gives every row the same class"
        return [GateRow(gate="agreement beyond chance", found=words, asked=f"at least {asked:.2f}", passed=False)]
    rows = [_at_least("agreement beyond chance", like.beyond_chance, asked, "{:.3f}")]
    if like.worst:
        worst = like.worst[0]
        rows.append(
            GateRow(
                gate="each class kept",
                found=f"class {worst.label}: {worst.kept.value:.1%} of {worst.rows} rows "
                f"({worst.kept.low:.1%} to {worst.kept.high:.1%}){_too_few(like)}",
                asked=f"{asked:.0%} within the interval",
                passed=worst.kept.high >= asked,
            )
        )
    if like.direction is not None:
        rows.append(_at_least("direction of the scores", like.direction, MIN_DIRECTION, "{:.3f}"))
    return rows


def _too_few(like: Likeness) -> str:
    return f"; {like.unjudged} with fewer than {MIN_CLASS_ROWS} rows are not judged" if like.unjudged else ""


def _judge_vectors(like: Likeness, limits: GateLimits) -> list[GateRow]:
    share = like.neighbours.value if like.neighbours is not None else 0.0
    beyond = (share - like.chance_neighbours) / max(1e-9, 1 - like.chance_neighbours)
    return [
        _at_least(f"{NEIGHBOURS} nearest kept, beyond chance", beyond, limits.min_neighbours),
        _at_least("direction of the vectors", like.direction or 0.0, MIN_DIRECTION, "{:.3f}"),
    ]


def _judge_values(like: Likeness, limits: GateLimits) -> list[GateRow]:
    """A drop of a share d of explained variance is an error of sqrt(d) standard deviations."""
    most = math.sqrt(limits.max_accuracy_drop)
    errors = (("error", like.error, most), ("99 % of the errors", like.error_high, 3 * most))
    return [
        GateRow(
            gate=f"{name} (share of the spread)",
            found=f"{found:.4f}" if found is not None else "unknown",
            asked=f"at most {bound:.4f}",
            passed=found is not None and found <= bound,
        )
        for name, found, bound in errors
    ]


def _at_least(gate: str, found: float, asked: float, form: str = "{:.2%}") -> GateRow:
    return GateRow(
        gate=gate, found=form.format(found), asked=f"at least {form.format(asked)}", passed=found >= asked - 1e-12
    )


def judge_latency(rows: Sequence[LatencyRow], limits: GateLimits) -> tuple[GateRow, ...]:
    """One gate per batch size: the lower end of the speed-up's interval reaches what is asked."""
    return tuple(
        GateRow(
            gate=f"speed at batch {row.batch}",
            found=f"{row.speedup.value:.2f}x ({row.speedup.low:.2f} to {row.speedup.high:.2f})",
            asked=f"at least {limits.min_speedup:.2f}x",
            passed=row.speedup.low >= limits.min_speedup,
        )
        for row in rows
    )


def judge(
    accuracy: Accuracy,
    latency: Sequence[LatencyRow],
    limits: GateLimits,
    *,
    notes: Sequence[str] = (),
    unmeasured: str = "",
) -> Judgement:
    """All gates together. No latency row at all is no pass: unmeasured is not fast.

    unmeasured: why speed cannot be measured here (no such device); then the gate stays open and `ready` is False.
    """
    gates = [*judge_accuracy(accuracy, limits), *judge_latency(latency, limits)]
    if not latency:
        asked = f"at least {limits.min_speedup:.2f}x"
        found = f"not measured: {unmeasured}" if unmeasured else "not measured"
        gates.append(GateRow(gate="speed", found=found, asked=asked, passed=None if unmeasured else False))
    return Judgement(
        passed=all(row.passed is not False for row in gates),
        gates=tuple(gates),
        accuracy=accuracy,
        latency=tuple(latency),
        notes=tuple(notes),
    )


def answers(array: NDArray[Any]) -> NDArray[Any]:
    """The class that a model answers per row or place: argmax over the last axis of the class scores (a whole number
    is a class already); -1 where a score is NaN."""
    array = squeezed(array)
    if array.dtype.kind in "iub":
        return array.astype(np.int64)
    return np.where(np.isnan(array).any(axis=-1), -1, array.argmax(axis=-1))
