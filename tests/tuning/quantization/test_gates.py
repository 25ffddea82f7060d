"""The gates are pure: tables in, verdicts out."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tuning.model import Interval
from tuning.quantization.gates import (
    Accuracy,
    GateLimits,
    LatencyRow,
    accuracy_of,
    answers,
    judge,
    judge_accuracy,
    latency_row,
)
from tuning.quantization.likeness import ClassKept, Likeness, classes, wilson


def accuracy(agree: int, rows: int = 1000, fp32: float | None = None, int8: float | None = None) -> Accuracy:
    interval = wilson(agree, rows)
    return Accuracy(
        rows=rows, agreement=agree / rows, agreement_interval=interval, accuracy_fp32=fp32, accuracy_int8=int8
    )


def row(batch: int, low: float, value: float, high: float) -> LatencyRow:
    return LatencyRow(
        batch=batch,
        fp32_p50_ms=value,
        fp32_p95_ms=value,
        int8_p50_ms=1.0,
        int8_p95_ms=1.0,
        speedup=Interval(value=value, low=low, high=high, level=0.95),
        fp32_wall_p50_ms=value,
        int8_wall_p50_ms=1.0,
        samples=96,
    )


def test_wilson_against_published_values() -> None:
    # Newcombe 1998, table I: 81 of 263, and 0 of 20, 95 %.
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    none = wilson(0, 20)
    assert (none.low, round(none.high, 4)) == (0.0, 0.1611)
    assert wilson(0, 0) == Interval(value=0.0, low=0.0, high=1.0, level=0.95)


def test_everything_passes() -> None:
    judged = judge(accuracy(995, fp32=0.95, int8=0.945), [row(1, 2.0, 2.5, 3.0)], GateLimits())
    assert judged.passed
    assert judged.ready
    assert judged.refusal == ""


@pytest.mark.parametrize(
    ("found", "latency", "gate"),
    [
        (accuracy(960, fp32=0.95, int8=0.95), [row(1, 2, 2, 2)], "agreement with FP32"),
        (accuracy(995, fp32=0.95, int8=0.939), [row(1, 2, 2, 2)], "accuracy drop"),
        (accuracy(99, rows=99), [row(1, 2, 2, 2)], "held-back rows"),
        (accuracy(1000), [row(1, 2, 2, 2), row(8, 0.9, 1.2, 1.5)], "speed at batch 8"),
        (accuracy(1000), [], "speed"),
    ],
)
def test_each_gate_refuses_alone(found: Accuracy, latency: list[LatencyRow], gate: str) -> None:
    judged = judge(found, latency, GateLimits())
    assert not judged.passed
    assert [g.gate for g in judged.gates if not g.passed] == [gate]
    assert judged.refusal.startswith(gate)


def test_speed_is_judged_by_the_lower_end() -> None:
    assert not judge(accuracy(1000), [row(1, 1.09, 1.5, 1.9)], GateLimits()).passed
    assert judge(accuracy(1000), [row(1, 1.10, 1.5, 1.9)], GateLimits()).passed


def test_without_labels_agreement_bounds_the_drop() -> None:
    limits = GateLimits(max_accuracy_drop=0.02)
    assert all(g.passed for g in judge_accuracy(accuracy(980), limits))
    assert not all(g.passed for g in judge_accuracy(accuracy(979), limits))
    assert limits.agreement(labelled=True) == pytest.approx(0.94)


def test_unmeasured_speed_stays_open() -> None:
    judged = judge(accuracy(1000), [], GateLimits(), unmeasured="no GPU here")
    assert judged.passed
    assert not judged.ready
    assert judged.gates[-1].found == "not measured: no GPU here"


def test_paired_difference() -> None:
    truth = np.zeros(1000, np.int64)
    fp32, int8 = truth.copy(), truth.copy()
    fp32[:50] = 1  # wrong 50 times
    int8[:40], int8[50:70] = 1, 1  # wrong 60 times, 40 of them the same rows
    found = accuracy_of(classes(fp32, int8), ((fp32 == truth).astype(float), (int8 == truth).astype(float)))
    assert found.agreement == pytest.approx(0.97)
    assert found.drop == pytest.approx(0.01)
    # 30 discordant rows: standard error of the mean difference = sqrt(30/1000 - 0.01^2) / sqrt(999).
    assert found.drop_high == pytest.approx(0.01 + 1.645 * np.sqrt(0.0299 / 999), rel=1e-6)


def test_latency_interval_is_seeded_and_covers() -> None:
    rng = np.random.default_rng(3)
    fp32 = 0.010 * rng.lognormal(0, 0.05, (8, 12)) * rng.lognormal(0, 0.1, (8, 1))
    int8 = 0.004 * rng.lognormal(0, 0.05, (8, 12)) * rng.lognormal(0, 0.1, (8, 1))
    found = latency_row(4, fp32, int8, wall=(fp32, int8), seed=5)
    assert found == latency_row(4, fp32, int8, wall=(fp32, int8), seed=5)
    assert found.speedup.low < 2.5 < found.speedup.high
    # Bursts that differ widen the interval more than runs that differ: runs of a burst are no independent samples.
    even = latency_row(4, np.sort(fp32, axis=None).reshape(12, 8).T, int8, wall=(fp32, int8), seed=5)
    assert found.speedup.high - found.speedup.low > even.speedup.high - even.speedup.low


def test_evidence_is_json() -> None:
    judged = judge(accuracy(995, fp32=0.95, int8=0.94), [row(1, 2.0, 2.5, 3.0)], GateLimits(), notes=["note"])
    again = json.loads(json.dumps(judged.evidence(), allow_nan=False))
    assert [g["gate"] for g in again["gates"]] == [
        "held-back rows", "agreement with FP32", "accuracy drop", "speed at batch 1"]  # fmt: skip
    assert again["latency"][0]["speedup"]["low"] == 2.0


def test_answers_are_the_largest_scores_or_whole_numbers() -> None:
    assert answers(np.eye(3)).tolist() == [0, 1, 2]
    assert answers(np.array([[1.0, np.nan]])).tolist() == [-1]
    assert answers(np.array([5, 7])).tolist() == [5, 7]
    assert answers(np.eye(3).reshape(3, 3, 1, 1)).tolist() == [0, 1, 2]


def test_classes_that_cannot_be_judged_are_counted() -> None:
    found = like("classes", beyond_chance=0.99, worst=(kept(50, 50),), unjudged=3)
    assert "; 3 with fewer than 5 rows are not judged" in judge_accuracy(found, GateLimits())[-1].found


def like(kind: str, **figures: object) -> Accuracy:
    agreement = wilson(995, 1000)
    return accuracy_of(Likeness(kind=kind, rows=1000, agreement=agreement, **figures))  # type: ignore[arg-type]


def kept(of: int, rows: int, label: int = 7) -> ClassKept:
    return ClassKept(label=label, rows=rows, kept=wilson(of, rows))


@pytest.mark.parametrize(
    ("found", "failed"),
    [
        (like("classes", beyond_chance=0.99, worst=(kept(500, 500),)), []),
        (like("classes", beyond_chance=0.89), ["agreement beyond chance"]),
        (like("classes", beyond_chance=None), ["agreement beyond chance"]),
        (like("classes", beyond_chance=0.99, worst=(kept(0, 8),)), ["each class kept"]),
        (like("classes", beyond_chance=0.99, worst=(kept(7, 8),)), []),  # one of eight may be chance
        (like("classes", beyond_chance=0.99, direction=0.94), ["direction of the scores"]),
        (like("vectors", neighbours=wilson(90, 100), direction=0.99), []),
        (like("vectors", neighbours=wilson(79, 100), direction=0.99), ["10 nearest kept, beyond chance"]),
        (like("vectors", neighbours=wilson(90, 100), chance_neighbours=0.6, direction=0.99), ["10 nearest kept, beyond chance"]),
        (like("vectors", neighbours=wilson(90, 100), direction=0.9), ["direction of the vectors"]),
        (like("values", error=0.1, error_high=0.3), []),
        (like("values", error=0.11, error_high=0.3), ["error (share of the spread)"]),
        (like("values", error=0.1, error_high=0.31), ["99 % of the errors (share of the spread)"]),
    ],
)  # fmt: skip
def test_the_gates_of_each_kind_of_answer(found: Accuracy, failed: list[str]) -> None:
    rows = judge_accuracy(found, GateLimits(min_agreement=0.98))
    assert [row.gate for row in rows if not row.passed] == failed


def test_what_a_lost_class_looks_like_to_a_reader() -> None:
    (row,) = [r for r in judge_accuracy(like("classes", beyond_chance=0.99, worst=(kept(0, 8),)), GateLimits(min_agreement=0.98)) if r.gate == "each class kept"]
    assert (row.found, row.asked) == ("class 7: 0.0% of 8 rows (0.0% to 32.4%)", "90% within the interval")
