"""May this INT8 model take traffic? Pure judgement of measured agreement, accuracy and latency.

Nothing is assumed: on some processors and for some models INT8 is slower than FP32, or wrong. Every gate gives its
row and its reason, also the ones that passed, so that the table in the mail is the whole story.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray, Value
from tuning.errors import QuantizationRefused
from tuning.model import Interval

MIN_SPEEDUP = 1.10
MAX_ACCURACY_DROP = 0.01
MIN_HELD_BACK = 100
CONFIDENCE = 0.95


class GateLimits(Value):
    """What INT8 has to reach.

    max_accuracy_drop: FP32 accuracy minus INT8 accuracy, as a share (0.01 is one percentage point). min_agreement:
    share of rows with the same answer; None: 1 - max_accuracy_drop without labels (a drop can never exceed the
    disagreement), 1 - 3 * max_accuracy_drop with labels. min_speedup: FP32 latency divided by INT8 latency, reached by
    the LOWER end of its confidence interval at every batch size measured. min_rows: held-back rows.
    """

    max_accuracy_drop: float = MAX_ACCURACY_DROP
    min_agreement: float | None = None
    min_speedup: float = MIN_SPEEDUP
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


def wilson(successes: int, total: int, level: float = CONFIDENCE) -> Interval:
    """Wilson's score interval of a share (Wilson 1927): honest also near 0 and 1 and for few rows."""
    if total <= 0:
        return Interval(value=0.0, low=0.0, high=1.0, level=level)
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / total
    centre = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total * total))
    return Interval(value=p, low=max(0.0, centre - half), high=min(1.0, centre + half), level=level)


def agreement_ok(
    total: int, agree: int, bound: float, *, min_total: int = 100, level: float = CONFIDENCE
) -> bool | None:
    """Do the shadowed live requests agree? For the verifier, after the swap.

    True: the share agreed is at least `bound`. False: the upper end of its Wilson interval is below `bound`, so the
    disagreement is real. None: cannot tell (fewer than `min_total` requests, or below the bound by chance perhaps).
    At the end of the settle time None is no reason to keep: roll back, or look once longer.
    """
    if total <= 0 or not 0 <= agree <= total:
        return None
    share = wilson(agree, total, level)
    if share.high < bound:
        return False
    return True if total >= min_total and share.value >= bound else None


def compare(
    fp32: NDArray[Any], int8: NDArray[Any], right: tuple[FloatArray, FloatArray] | None = None, metric: str = "top1"
) -> Accuracy:
    """Agreement of two answers per row, and accuracy where it is known.

    fp32, int8: the answers, shape (rows, ...); a row agrees when all of it is equal. right: per-row scores 0..1 of
    FP32 and INT8 against the labels. drop_high: upper end of the 95 % interval of the drop, from the paired
    differences (rows where exactly one of the two is right), so the same rows' difficulty cancels.
    """
    rows = len(fp32)
    same = (fp32 == int8).reshape(rows, -1).all(axis=1)
    interval = wilson(int(same.sum()), rows)
    if right is None:
        return Accuracy(rows=rows, agreement=interval.value, agreement_interval=interval, metric=metric)
    before, after = (np.asarray(score, dtype=np.float64) for score in right)
    gap = before - after
    error = float(gap.std(ddof=1) / math.sqrt(rows)) if rows > 1 else 1.0
    return Accuracy(
        rows=rows,
        agreement=interval.value,
        agreement_interval=interval,
        accuracy_fp32=float(before.mean()),
        accuracy_int8=float(after.mean()),
        drop_high=float(gap.mean()) + 1.645 * error,
        metric=metric,
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
    """The gates on held-back rows: how many there are, agreement, accuracy drop (with labels only)."""
    asked = limits.agreement(accuracy.drop is not None)
    found = [
        GateRow(
            gate="held-back rows",
            found=str(accuracy.rows),
            asked=f"at least {limits.min_rows}",
            passed=accuracy.rows >= limits.min_rows,
        ),
        GateRow(
            gate="agreement with FP32",
            found=f"{accuracy.agreement:.2%}",
            asked=f"at least {asked:.2%}",
            passed=accuracy.agreement >= asked - 1e-12,
        ),
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


def class_scores(outputs: Mapping[str, NDArray[Any]], *, output: str | None = None) -> NDArray[Any]:
    """The scores whose largest is the answer, shape (rows, ..., classes): `output`, or the only one that can be it.

    QuantizationRefused: no output has classes (then a metric of the user's own is needed), or several have.
    """
    floats = {k: v for k, v in outputs.items() if v.dtype.kind == "f" and v.ndim >= 2 and v.shape[-1] > 1}
    if output is not None and output not in floats:
        raise QuantizationRefused(
            f"the model has no output of class scores called {output!r}; it has {', '.join(sorted(floats)) or 'none'}"
        )
    if not floats:
        raise QuantizationRefused(
            "the model has no output of class scores (rows x classes), so top-1 means nothing: give your own metric"
        )
    if output is None and len(floats) > 1:
        raise QuantizationRefused(
            f"several outputs could be the class scores ({', '.join(sorted(floats))}): say which one is compared "
            "(--output, in services.yaml `output`)"
        )
    return floats[output if output is not None else next(iter(floats))]


def answers(outputs: Mapping[str, NDArray[Any]], *, output: str | None = None) -> NDArray[Any]:
    """The class that a model answers per row: argmax over the last axis of the class scores; -1 where one is NaN."""
    scores = class_scores(outputs, output=output)
    return np.where(np.isnan(scores).any(axis=-1), -1, scores.argmax(axis=-1))
