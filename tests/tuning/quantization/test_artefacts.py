"""Each runtime gets the format that it needs, and the same model and rows give the same bytes in every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.quantization.models import Graph, conv
from tests.fakes.quantization import feeds, loaded, rows_of, spiky, tiny
from tuning.errors import ConfigError, QuantizationRefused
from tuning.quantization.artefacts import Artefact, Quantiser, Target
from tuning.quantization.calibration import from_arrays, split
from tuning.quantization.measure import compare_models
from tuning.quantization.onnx_model import from_proto, load_model, open_session, predict

DIGESTS = """
from tests.fakes.quantization import loaded, rows_of, tiny
from benchmarks.quantization.models import conv
from tuning.quantization.artefacts import Quantiser
from tuning.quantization.calibration import split
for zoo in (tiny(), conv(16, (8, 16), 1)):
    for target in ("ort", "tensorrt"):
        with Quantiser(loaded(zoo), split(rows_of(zoo))[0], target) as quantiser:
            print(quantiser.make().digest)
"""


def make(target: Target, exclude: tuple[str, ...] = ()) -> Artefact:
    with Quantiser(loaded(tiny()), split(rows_of(tiny()))[0], target) as quantiser:
        return quantiser.make(exclude=exclude)


def zero_points(artefact: Artefact, *, of_weights: bool) -> list[onnx.TensorProto]:
    model = onnx.load_from_string(artefact.data)
    found = {t.name: t for t in model.graph.initializer}
    names = {
        node.input[2]
        for node in model.graph.node
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and (node.input[0] in found) == of_weights
    }
    return [found[name] for name in sorted(names)]


def test_onnx_runtime_gets_unsigned_activations_and_signed_weights_per_channel() -> None:
    artefact = make("ort")
    activations, weights = zero_points(artefact, of_weights=False), zero_points(artefact, of_weights=True)
    assert {t.data_type for t in activations} == {TensorProto.UINT8}
    int8 = [t for t in weights if t.data_type == TensorProto.INT8]
    assert {numpy_helper.to_array(t).size for t in int8} == {64, 10}  # one per output of a layer
    assert all((numpy_helper.to_array(t) == 0).all() for t in int8)


def test_tensorrt_gets_signed_symmetric_everything_and_no_integer_bias() -> None:
    artefact = make("tensorrt")
    everything = zero_points(artefact, of_weights=False) + zero_points(artefact, of_weights=True)
    assert {t.data_type for t in everything} == {TensorProto.INT8}
    assert all((numpy_helper.to_array(t) == 0).all() for t in everything)
    kinds = {t.data_type for t in onnx.load_from_string(artefact.data).graph.initializer}
    assert TensorProto.INT32 not in kinds


def test_int8_still_answers_alike() -> None:
    _, held = split(rows_of(tiny()))
    for target in ("ort", "tensorrt"):
        found = compare_models(loaded(tiny()), make(target).data, held)
        assert found.accuracy_fp32 is not None
        assert found.accuracy_fp32 > 0.85
        assert found.agreement > 0.97


@pytest.mark.server
def test_the_same_bytes_in_every_process(tmp_path: Path) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", DIGESTS],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ".", "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for seed in ("1", "2")
    ]
    assert len(runs[0]) == 4
    assert runs[0] == runs[1]


def test_an_excluded_layer_stays_exact_with_what_follows_it() -> None:
    zoo = spiky()
    with Quantiser(loaded(zoo), split(rows_of(zoo))[0], "ort") as quantiser:
        first, second = quantiser.layers[1], quantiser.layers[2]
        artefact = quantiser.make(exclude=[first, second])
    graph = onnx.load_from_string(artefact.data).graph
    by_name = {node.name: node for node in graph.node}
    made = {output: node.op_type for node in graph.node for output in node.output}
    assert made[by_name[second].input[0]] == "Relu"  # not a DequantizeLinear
    assert by_name[first].input[1] in {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    assert artefact.excluded == tuple(sorted([first, second]))
    assert set(artefact.layers) == set(quantiser.layers) - {first, second}


def test_a_model_with_a_fixed_batch_is_calibrated_and_run() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(tiny().proto)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    model = from_proto(proto, name="fixed")
    assert model.fixed_batch == 4
    data = from_arrays({"input": tiny().inputs[:101]}, model, source="rows")
    with Quantiser(model, data, "ort") as quantiser:
        made = quantiser.make()
    outputs = predict(open_session(made.data), data.inputs)
    assert next(iter(outputs.values())).shape == (101, 10)


def test_nothing_to_quantise() -> None:
    graph = Graph(("batch", 8), 0)
    model = from_proto(graph.model(graph.relu("input"), 8, "relu"), name="relu")
    data = from_arrays({"input": feeds(100, 8)}, model, source="rows")
    with Quantiser(model, data, "ort") as quantiser, pytest.raises(QuantizationRefused, match="bring nothing"):
        quantiser.make()
    with pytest.raises(ConfigError, match="known: ort, tensorrt"):
        Quantiser(model, data, "gpu")  # type: ignore[arg-type]


def test_a_residual_convolution_is_quantised_whole() -> None:
    zoo = conv(16, (8, 16), 1)
    with Quantiser(loaded(zoo), split(rows_of(zoo))[0], "ort") as quantiser:
        made = quantiser.make()
    assert len(made.layers) == 8
    assert len(made.data) < 0.6 * len(loaded(zoo).data)


def single(op: str, domain: str = "") -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["input"], ["y"], name="odd", domain=domain)],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["b", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 8])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_unusable_models_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(QuantizationRefused, match="there is no model at"):
        load_model(tmp_path / "absent.onnx")
    whole = loaded(tiny()).data
    for name, content in (
        ("noise.onnx", b"\xff\x00junk" * 50),
        ("cut.onnx", whole[: len(whole) // 2]),
        ("empty.onnx", b""),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(QuantizationRefused, match="corrupt or cut short"):
            load_model(tmp_path / name)
    with pytest.raises(QuantizationRefused, match=r"MyOp"):
        from_proto(single("MyOp", "my.ops"), name="odd")
    with pytest.raises(QuantizationRefused, match="Nonsense"):
        from_proto(single("Nonsense"), name="odd")


def test_nameless_layers_get_names_by_their_place() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(tiny().proto)
    for node in proto.graph.node:
        node.name = ""
    model = from_proto(proto, name="nameless")
    assert [n.name for n in onnx.load_from_string(model.data).graph.node][:2] == ["Gemm_0", "Relu_1"]
    assert not proto.graph.node[0].name  # the caller's model is left alone


def test_weights_beside_the_model_are_part_of_its_digest(tmp_path: Path) -> None:
    for name, scale in (("a", 1.0), ("b", 2.0)):
        proto = onnx.ModelProto()
        proto.CopyFrom(tiny().proto)
        weight = proto.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(scale), weight.name))
        (tmp_path / name).mkdir()
        onnx.save(
            proto, str(tmp_path / name / "m.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0
        )
    first, second = load_model(tmp_path / "a" / "m.onnx"), load_model(tmp_path / "b" / "m.onnx")
    assert first.digest != second.digest
    (tmp_path / "a" / "w.bin").unlink()
    with pytest.raises(QuantizationRefused, match=r"a/m\.onnx"):
        load_model(tmp_path / "a" / "m.onnx")
