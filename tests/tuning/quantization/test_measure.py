"""Timing takes turns, throws the cold runs away, and stays within its budget - shown on a clock that we move."""

from __future__ import annotations

import numpy as np
import pytest

from tests.fakes.quantization import FakeClock, FakeRunner, rows_of, tiny
from tuning.errors import QuantizationRefused
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.measure import Clocks, Effort, compare_outputs, interleave, latency_table

EFFORT = Effort(bursts=4, runs=5, settle_s=0.03)


def still() -> float:
    return 0.0


def test_bursts_alternate_who_goes_first() -> None:
    clock = FakeClock()
    pair = FakeRunner("f", clock, lambda run: 0.01), FakeRunner("i", clock, lambda run: 0.01)
    (fp32, int8), _ = interleave(*pair, {}, effort=EFFORT, clocks=Clocks(clock, clock))
    assert fp32.shape == int8.shape == (4, 5)
    # 3 runs of 10 ms settle a burst; the first four runs are the look at how long one takes.
    assert "".join(clock.order[4:]) == ("f" * 8 + "i" * 8 + "i" * 8 + "f" * 8) * 2


def test_cold_runs_do_not_count() -> None:
    clock = FakeClock()
    cold = {"f": 0, "i": 0}

    def cost(name: str, warm_s: float) -> float:
        # The first two runs after the other model ran are ten times slower.
        previous = clock.order[-2] if len(clock.order) > 1 else ""
        cold[name] = cold[name] + 1 if previous == name else 1
        return warm_s * (10 if cold[name] <= 2 else 1)

    pair = FakeRunner("f", clock, lambda run: cost("f", 0.004)), FakeRunner("i", clock, lambda run: cost("i", 0.001))
    (fp32, int8), _ = interleave(*pair, {}, effort=EFFORT, clocks=Clocks(clock, clock))
    assert np.allclose(fp32, 0.004)
    assert np.allclose(int8, 0.001)


def test_a_slow_model_stays_within_its_budget() -> None:
    clock = FakeClock()
    pair = FakeRunner("f", clock, lambda run: 1.0), FakeRunner("i", clock, lambda run: 0.5)
    effort = Effort(bursts=4, runs=100, budget_s=60.0)
    interleave(*pair, {}, effort=effort, clocks=Clocks(clock, clock))
    assert clock.now_s < 60 + 3 + 1  # and the look at the beginning
    assert pair[0].runs > 4 * effort.min_runs


def test_the_table_has_real_speedups_and_falls_back_to_wall_time() -> None:
    for clocks_of, kind in ((lambda c: Clocks(c, c), "cpu"), (lambda c: Clocks(still, c), "wall")):
        clock = FakeClock()
        pair = FakeRunner("f", clock, lambda run: 0.009), FakeRunner("i", clock, lambda run: 0.003)
        table = latency_table(*pair, rows_of(tiny()), [8, 1, 8], effort=EFFORT, clocks=clocks_of(clock))
        assert [r.batch for r in table] == [1, 8]
        assert table[0].clock == kind
        assert table[0].speedup.value == pytest.approx(3.0)
        assert table[0].fp32_p95_ms == pytest.approx(9.0)


def data(labels: list[int] | None) -> CalibrationData:
    return CalibrationData({"x": np.zeros((3, 1))}, None if labels is None else np.array(labels), "d")


OURS = {"y": np.eye(3)}
THEIRS = {"y": np.eye(3)[[0, 1, 1]]}


def test_top1_with_and_without_labels() -> None:
    bare = compare_outputs(OURS, THEIRS, data(None))
    assert (bare.agreement, bare.accuracy_fp32) == (pytest.approx(2 / 3), None)
    labelled = compare_outputs(OURS, THEIRS, data([0, 1, 1]))
    assert labelled.accuracy_fp32 == pytest.approx(2 / 3)
    assert labelled.accuracy_int8 == pytest.approx(1.0)
    with pytest.raises(QuantizationRefused, match="do not fit"):
        compare_outputs(OURS, THEIRS, CalibrationData({"x": np.zeros((3, 1))}, np.zeros((3, 2)), "d"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.array(["cat", "dog", "cat"]), "labels are str96, top-1 compares class numbers"),
        (np.array([0.5, 1.0, 2.0]), "labels are float64, top-1 compares class numbers"),
        (np.array([1, 2, 3]), "labels go from 1 to 3, the model's classes from 0 to 2"),
        (np.array([-1, 1, 2]), "labels go from -1 to 2"),
        (np.array([1, 2, 0]), "right on none of the 3 labelled rows"),
    ],
)
def test_labels_of_something_else_are_no_drop_of_zero(labels: np.ndarray, words: str) -> None:
    with pytest.raises(QuantizationRefused, match=words):
        compare_outputs(OURS, THEIRS, CalibrationData({"x": np.zeros((3, 1))}, labels, "d"))


def test_a_nan_is_no_answer() -> None:
    broken = {"y": np.where(np.eye(3) * [1, 0, 0] > 0, np.nan, np.eye(3))}
    with pytest.raises(QuantizationRefused, match="FP32 model itself answers NaN or infinity on 1 of 3 rows"):
        compare_outputs(broken, OURS, data(None))
    assert compare_outputs(OURS, broken, data(None)).agreement == pytest.approx(2 / 3)


def test_a_batch_that_the_model_cannot_take_is_named() -> None:
    class OnlyOne(FakeRunner):
        def run(self, names: object, feeds: dict[str, np.ndarray]) -> object:
            if len(feeds["input"]) > 1:
                raise RuntimeError("Got invalid dimensions for input: got 8, expected 1")
            return super().run(names, feeds)

    clock = FakeClock()
    pair = OnlyOne("f", clock, lambda run: 0.009), OnlyOne("i", clock, lambda run: 0.003)
    with pytest.raises(QuantizationRefused, match="cannot run a batch of 8 rows: Got invalid dimensions"):
        latency_table(*pair, rows_of(tiny()), [1, 8], effort=EFFORT, clocks=Clocks(clock, clock))


def test_a_metric_of_ones_own() -> None:
    def closeness(outputs: dict[str, np.ndarray], labels: np.ndarray) -> np.ndarray:
        return (np.abs(outputs["y"].sum(axis=1) - labels) < 0.5).astype(float)

    found = compare_outputs(OURS, THEIRS, data([1, 1, 5]), metric=closeness)
    assert (found.metric, found.accuracy_fp32) == ("closeness", pytest.approx(2 / 3))
    with pytest.raises(QuantizationRefused, match="needs labels"):
        compare_outputs(OURS, THEIRS, data(None), metric=closeness)
    with pytest.raises(QuantizationRefused, match="one finite score per row"):
        compare_outputs(OURS, THEIRS, data([1, 1, 1]), metric=lambda outputs, labels: np.zeros(2))


def test_embeddings_and_numbers_are_judged_as_what_they_are() -> None:
    rng = np.random.default_rng(2)
    rows = CalibrationData({"x": np.zeros((300, 1), np.float32)}, None, "d")
    vectors = rng.standard_normal((300, 64))
    found = compare_outputs({"embedding": vectors}, {"embedding": vectors[::-1]}, rows)
    assert (found.metric, found.agreement < 0.2) == ("vectors", True)
    prices = rng.normal(50, 2, (300, 1))
    assert compare_outputs({"price": prices}, {"price": prices + 0.01}, rows).metric == "values"
    told = compare_outputs({"out": vectors}, {"out": vectors}, rows, kind="vectors")
    assert told.likeness is not None and told.likeness.kind == "vectors"


def test_wide_scores_are_also_judged_by_their_direction() -> None:
    rng = np.random.default_rng(2)
    rows = CalibrationData({"x": np.zeros((300, 1), np.float32)}, None, "d")
    scores = rng.standard_normal((300, 40))
    tops = np.eye(40)[rng.integers(0, 2, 300)] * 1000  # two places are the largest by turns
    ruined = rng.standard_normal((300, 40)) * 300 + tops * 3
    found = compare_outputs({"out": scores + tops}, {"out": ruined + tops}, rows)
    assert found.likeness is not None and found.likeness.direction is not None
    assert compare_outputs({"out": scores + tops}, {"out": scores + tops}, rows).likeness.direction == pytest.approx(1.0)  # type: ignore[union-attr]
