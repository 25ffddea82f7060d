"""From model and rows to a verdict: harmful layers are found and left out, foreign rows are found out."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.quantization.models import ZooModel
from tests.fakes.quantization import FakeClock, loaded, rows_of, spiky, tiny
from tuning.errors import QuantizationRefused
from tuning.quantization.calibration import from_arrays
from tuning.quantization.gates import GateLimits
from tuning.quantization.measure import Clocks, Effort
from tuning.quantization.pipeline import Quantized, Recipe, quantize
from tuning.quantization.sensitivity import LayerHarm, exclusions

QUICK = Effort(bursts=2, runs=3, settle_s=0.0)


def ticking() -> Clocks:
    """Every look at the clock is 1 ms later: each run takes 1 ms, so no speed-up is ever measured."""
    clock = FakeClock()

    def tick() -> float:
        clock.now_s += 0.001
        return clock.now_s

    return Clocks(tick, tick)


def run(zoo: ZooModel, recipe: Recipe, **more: object) -> Quantized:
    return quantize(loaded(zoo), rows_of(zoo), recipe, clocks=ticking(), **more)  # type: ignore[arg-type]


def test_harmful_layers_are_found_and_left_in_fp32() -> None:
    zoo = spiky()
    limits = GateLimits(min_speedup=0.5)
    whole = run(zoo, Recipe(limits=limits, exclude_layers=False, effort=QUICK))
    assert not whole.judgement.passed
    assert whole.judgement.latency == ()  # wrong answers are not worth timing
    cured = run(zoo, Recipe(limits=limits, effort=QUICK))
    assert cured.judgement.ready
    assert set(cured.artefact.excluded) == {"gemm_2", "gemm_4"}
    assert {harm.layer for harm in cured.ranking[:2]} == {"gemm_2", "gemm_4"}
    assert cured.ranking[2].snr_db > cured.ranking[1].snr_db + 10
    assert "left in FP32" in cured.judgement.notes[0]
    assert cured.evidence()["excluded_layers"] == ["gemm_2", "gemm_4"]


def test_equal_speed_is_refused_with_the_table() -> None:
    made = run(tiny(), Recipe(effort=QUICK, batches=(1, 4)))
    assert not made.judgement.passed
    assert [r.batch for r in made.judgement.latency] == [1, 4]
    assert "speed at batch 1 is 1.00x (1.00 to 1.00), asked for at least 1.10x" in made.judgement.refusal


def test_rows_from_another_distribution_are_found_out_by_live_rows() -> None:
    zoo = tiny()
    foreign = from_arrays(
        {"input": (np.random.default_rng(0).standard_normal((300, 64)) * 0.01).astype(np.float32)},
        loaded(zoo),
        source="foreign rows",
    )
    made = quantize(loaded(zoo), foreign, Recipe(effort=QUICK), live=rows_of(zoo, labels=False), clocks=ticking())
    assert not made.judgement.passed
    assert made.judgement.accuracy is not None
    assert made.judgement.accuracy.agreement < 0.9
    assert "the calibration data look different" in made.judgement.refusal
    assert made.ranking == ()  # no layer is to blame
    # Split in two, the same rows would have judged themselves: nothing but live rows can tell.
    alone = quantize(loaded(zoo), foreign, Recipe(effort=QUICK), clocks=ticking())
    assert alone.judgement.accuracy is not None
    assert alone.judgement.accuracy.agreement > made.judgement.accuracy.agreement


def test_live_rows_judge_agreement_and_held_back_labels_the_accuracy() -> None:
    zoo = tiny()
    made = run(zoo, Recipe(effort=QUICK), live=rows_of(zoo, labels=False))
    accuracy = made.judgement.accuracy
    assert accuracy is not None
    assert accuracy.rows == len(zoo.inputs)
    assert accuracy.accuracy_fp32 is not None
    assert accuracy.accuracy_fp32 > 0.8
    assert "accuracy drop" in [gate.gate for gate in made.judgement.gates]
    few = rows_of(zoo).take(np.arange(150))  # half of them would be too few to judge: all of them calibrate
    alone = quantize(loaded(zoo), few, Recipe(effort=QUICK), live=rows_of(zoo, labels=False), clocks=ticking())
    assert "accuracy drop" not in [gate.gate for gate in alone.judgement.gates]


def test_tensorrt_leaves_speed_open() -> None:
    made = run(tiny(), Recipe(target="tensorrt", effort=QUICK))
    assert made.judgement.passed
    assert not made.judgement.ready


def test_progress_reaches_the_end_and_never_goes_back() -> None:
    seen: list[tuple[str, float]] = []
    run(spiky(), Recipe(effort=QUICK), progress=lambda stage, share: seen.append((stage, share)))
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert "ranking the layers" in dict(seen)


def test_few_held_back_rows_are_refused_without_a_search() -> None:
    zoo = tiny()
    few = from_arrays({"input": zoo.inputs[:150]}, loaded(zoo), source="few")
    made = quantize(loaded(zoo), few, Recipe(effort=QUICK), clocks=ticking())
    assert "held-back rows is 75, asked for at least 100" in made.judgement.refusal
    assert made.ranking == ()


def test_no_more_rows_judge_than_asked() -> None:
    made = run(tiny(), Recipe(effort=QUICK, judge_at_most=120))
    assert made.judgement.accuracy is not None
    assert made.judgement.accuracy.rows == 120


def test_batch_sizes_must_be_sizes() -> None:
    with pytest.raises(QuantizationRefused, match="1 or more"):
        run(tiny(), Recipe(effort=QUICK, batches=(0,)))


def test_exclusions_double_and_stop_at_half() -> None:
    ranking = [LayerHarm(layer=f"l{i}", snr_db=float(i)) for i in range(12)]
    assert [len(tried) for tried in exclusions(ranking)] == [1, 2, 4, 6]
    assert list(exclusions(ranking[:1])) == []
