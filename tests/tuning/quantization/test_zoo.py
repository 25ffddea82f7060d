"""The benchmark's models through the whole road: judged for ONNX Runtime, built for TensorRT in FP32 and INT8.

The speeds asked for here are the product's own gate; the larger figures are the benchmark's, on a quiet machine.
"""

from __future__ import annotations

from functools import cache

import pytest

from benchmarks.quantization.models import ZOO, ZooModel, depthwise
from tuning.quantization.artefacts import Quantiser
from tuning.quantization.calibration import CalibrationData, from_arrays, split
from tuning.quantization.measure import Effort
from tuning.quantization.onnx_model import LoadedModel, from_proto
from tuning.quantization.pipeline import Recipe, quantize
from tuning.quantization.tensorrt_engine import Profile, build_engine

pytestmark = pytest.mark.server

SHRINKS = {"conv": 2.5, "mlp": 2.5, "transformer": 2.5}
FASTER = ("conv", "mlp", "transformer")
QUICK = Recipe(batches=(1, 8), calibrate_at_most=64, judge_at_most=500, effort=Effort(bursts=6, runs=8))


@cache
def prepared(name: str) -> tuple[ZooModel, LoadedModel, CalibrationData]:
    zoo = ZOO[name]()
    model = from_proto(zoo.proto, name=name)
    return zoo, model, from_arrays({"input": zoo.inputs, "labels": zoo.labels}, model, source=name)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_engines_build_in_fp32_and_int8_and_shrink(name: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    _, model, data = prepared(name)
    few, _ = split(data, calibrate_at_most=32)
    with Quantiser(model, few, "tensorrt") as quantiser:
        int8 = quantiser.make()
    sizes = [
        len(build_engine(onnx, model, precision=p, profile=Profile(1, 8, 32), compute_capability="8.9").data)
        for p, onnx in (("fp32", model.data), ("int8", int8.data))
    ]
    assert sizes[0] / sizes[1] >= SHRINKS.get(name, 0)


@pytest.mark.parametrize("name", FASTER)
def test_answers_stay_and_int8_is_faster(name: str) -> None:
    _, model, data = prepared(name)
    made = quantize(model, data, QUICK)
    accuracy = made.judgement.accuracy
    assert accuracy is not None
    assert accuracy.accuracy_fp32 is not None
    assert accuracy.accuracy_fp32 > 0.9
    assert accuracy.agreement >= (0.99 if name == "mlp" else 0.98)
    assert made.judgement.ready, made.judgement.refusal


def test_depthwise_is_refused_because_it_is_slower() -> None:
    zoo = depthwise()
    model = from_proto(zoo.proto, name=zoo.name)
    data = from_arrays({"input": zoo.inputs, "labels": zoo.labels}, model, source=zoo.name)
    made = quantize(model, data, QUICK)
    assert not made.judgement.passed
    assert {g.gate for g in made.judgement.gates if not g.passed} == {"speed at batch 1", "speed at batch 8"}
