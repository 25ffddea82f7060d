"""Models that are not like the zoo's: INT8 of them is right, or a sentence says why there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.fakes.quantization import feeds
from tuning.errors import QuantizationRefused
from tuning.quantization.artefacts import Artefact, Quantiser
from tuning.quantization.calibration import from_arrays
from tuning.quantization.measure import compare_models
from tuning.quantization.onnx_model import from_proto, load_model, open_session, predict

node, info = helper.make_node, helper.make_tensor_value_info
ROWS = feeds(256, 32)
WEIGHTS = {"a": feeds(32, 64, seed=1), "b": feeds(64, 10, seed=2)}
MIDDLE = [node("MatMul", ["input", "a"], ["x"]), node("Relu", ["x"], ["y"])]
LAST = [node("MatMul", ["y", "b"], ["scores"])]


def model(
    nodes: Sequence[onnx.NodeProto],
    *more_outputs: onnx.ValueInfoProto,
    kind: int = TensorProto.FLOAT,
    weights: dict[str, NDArray[np.floating]] | None = None,
    opset: int = 17,
    ir_version: int = 9,
    weights_as_inputs: bool = False,
) -> onnx.ModelProto:
    arrays = weights or WEIGHTS
    inputs = [info("input", kind, ["N", 32])]
    if weights_as_inputs:
        inputs += [info(name, kind, array.shape) for name, array in arrays.items()]
    scores = info("scores", kind, ["N", 10])
    constants = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", inputs, [scores, *more_outputs], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def made_from(proto: onnx.ModelProto, rows: NDArray[np.floating] = ROWS) -> Artefact:
    source = from_proto(proto, name="odd")
    with Quantiser(source, from_arrays({"input": rows}, source, source="rows"), "ort") as quantiser:
        return quantiser.make()


@pytest.mark.parametrize("opset", [7, 8, 10, 11, 13])
def test_old_models_that_list_their_weights_as_inputs(opset: int) -> None:
    proto = model([*MIDDLE, *LAST], opset=opset, ir_version=3, weights_as_inputs=True)
    source = from_proto(proto, name="old")
    assert [spec.name for spec in source.inputs] == ["input"]
    data = from_arrays({"input": ROWS}, source, source="rows")
    assert compare_models(source, made_from(proto).data, data).agreement > 0.9


@pytest.mark.parametrize(("kind", "name"), [(TensorProto.FLOAT16, "float16"), (TensorProto.DOUBLE, "double")])
def test_weights_of_another_type_are_named(kind: int, name: str) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    proto = model([*MIDDLE, *LAST], kind=kind, weights={k: v.astype(dtype) for k, v in WEIGHTS.items()})
    with pytest.raises(QuantizationRefused, match=f"the weights of MatMul_0 in odd are {name}"):
        made_from(proto, ROWS.astype(dtype))


def test_a_model_that_is_quantised_already() -> None:
    once = onnx.load_from_string(made_from(model([*MIDDLE, *LAST])).data)
    with pytest.raises(QuantizationRefused, match=r"already quantised \(it holds DequantizeLinear, QuantizeLinear\)"):
        made_from(once)


def test_what_stands_beside_the_scores_is_left_out() -> None:
    loss = node("ReduceMean", ["scores"], ["loss"], keepdims=0)
    found = node("NonZero", ["y"], ["found"])
    proto = model(
        [*MIDDLE, *LAST, loss, found],
        info("loss", TensorProto.FLOAT, []),
        info("found", TensorProto.INT64, [2, "k"]),
    )
    outputs = predict(open_session(from_proto(proto, name="odd").data), {"input": ROWS})
    assert {name: array.shape for name, array in outputs.items()} == {"scores": (256, 10)}
    assert made_from(proto).layers == ("MatMul_0", "MatMul_2")


def test_rows_that_are_not_the_first_dimension_are_found_out() -> None:
    proto = model([node("ReduceMean", ["input"], ["scores"], axes=[0], keepdims=1)])
    proto.graph.output[0].CopyFrom(info("scores", TensorProto.FLOAT, [1, 32]))
    with pytest.raises(QuantizationRefused, match="has a row for each input row: slotune needs rows as first"):
        predict(open_session(from_proto(proto, name="odd").data), {"input": ROWS})


def test_several_outputs_need_a_name() -> None:
    proto = model([*MIDDLE, *LAST], info("y", TensorProto.FLOAT, ["N", 64]))
    source, int8 = from_proto(proto, name="odd"), made_from(proto)
    data = from_arrays({"input": ROWS}, source, source="rows")
    with pytest.raises(QuantizationRefused, match=r"several outputs could be the class scores \(scores, y\)"):
        compare_models(source, int8.data, data)
    with pytest.raises(QuantizationRefused, match="no output of numbers called 'z'"):
        compare_models(source, int8.data, data, output="z")
    assert compare_models(source, int8.data, data, output="scores").agreement > 0.9


def test_a_branch_inside_the_model_stays_as_it_is() -> None:
    def branch(op: str) -> onnx.GraphProto:
        return helper.make_graph([node(op, ["x"], [op])], op, [], [info(op, TensorProto.FLOAT, ["N", 64])])

    nodes = [
        node("MatMul", ["input", "a"], ["x"]),
        node("ReduceSum", ["x"], ["sum"], keepdims=0),
        node("Greater", ["sum", "zero"], ["positive"]),
        node("If", ["positive"], ["y"], then_branch=branch("Relu"), else_branch=branch("Sigmoid")),
        *LAST,
    ]
    proto = model(nodes, weights={**WEIGHTS, "zero": np.array(0, np.float32)})
    source = from_proto(proto, name="odd")
    data = from_arrays({"input": ROWS}, source, source="rows")
    assert compare_models(source, made_from(proto).data, data).agreement > 0.9


def test_weights_larger_than_two_gigabytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    onnx.save(model([*MIDDLE, *LAST]), str(path), save_as_external_data=True, location="w.bin", size_threshold=0)
    proto = onnx.load(str(path), load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == "length").value = str(3 << 30)
    onnx.save(proto, str(path))
    with pytest.raises(QuantizationRefused, match="larger than 2 GB"):
        load_model(path)


def test_weights_behind_links_are_read_as_a_model_cache_has_them(tmp_path: Path) -> None:
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    folder.mkdir(parents=True)
    onnx.save(model([*MIDDLE, *LAST]), str(blobs / "0a"), save_as_external_data=True, location="1b", size_threshold=0)
    proto = onnx.load(str(blobs / "0a"), load_external_data=False)
    for tensor in proto.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = "model.onnx_data"
    onnx.save(proto, str(blobs / "0a"))
    (folder / "model.onnx").symlink_to("../../blobs/0a")
    (folder / "model.onnx_data").symlink_to("../../blobs/1b")
    answers = [
        predict(open_session(source.data), {"input": ROWS})["scores"]
        for source in (load_model(folder / "model.onnx"), from_proto(model([*MIDDLE, *LAST]), name="model"))
    ]
    assert np.array_equal(*answers)
    (blobs / "1b").unlink()
    with pytest.raises(QuantizationRefused, match=r"weights in model\.onnx_data beside it, which is a link to a file that is"):
        load_model(folder / "model.onnx")
    (folder / "model.onnx_data").unlink()
    with pytest.raises(QuantizationRefused, match=r"weights in model\.onnx_data beside it, which is missing: copy both"):
        load_model(folder / "model.onnx")


def test_weights_are_never_looked_for_elsewhere(tmp_path: Path) -> None:
    onnx.save(model([*MIDDLE, *LAST]), str(tmp_path / "m.onnx"), save_as_external_data=True, location="w", size_threshold=0)
    proto = onnx.load(str(tmp_path / "m.onnx"), load_external_data=False)
    next(e for e in proto.graph.initializer[0].external_data if e.key == "location").value = "../../etc/passwd"
    onnx.save(proto, str(tmp_path / "m.onnx"))
    with pytest.raises(QuantizationRefused, match="looks for its weights outside its own folder"):
        load_model(tmp_path / "m.onnx")


def test_sequences_and_text_beside_the_scores_are_left_out() -> None:
    proto = model([*MIDDLE, *LAST, node("SplitToSequence", ["scores"], ["parts"])])
    proto.graph.output.append(helper.make_tensor_sequence_value_info("parts", TensorProto.FLOAT, None))
    source = from_proto(proto, name="odd")
    assert [spec.name for spec in source.outputs] == ["scores"]
    data = from_arrays({"input": ROWS}, source, source="rows")
    assert compare_models(source, made_from(proto).data, data).agreement > 0.9
    del proto.graph.output[0]
    with pytest.raises(QuantizationRefused, match="answers only sequences or maps"):
        from_proto(proto, name="odd")


def test_a_model_that_takes_text_is_named() -> None:
    proto = model([*MIDDLE, *LAST, node("Identity", ["id"], ["same"])], info("same", TensorProto.STRING, ["N"]))
    proto.graph.input.append(info("id", TensorProto.STRING, ["N"]))
    with pytest.raises(QuantizationRefused, match=r"odd takes text \(id\)"):
        from_proto(proto, name="odd")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL])
def test_a_mask_that_is_always_one_calibrates_as_the_others_do(kind: int) -> None:
    cast = [node("Cast", ["mask"], ["m"], to=TensorProto.FLOAT), node("Mul", ["input", "m"], ["masked"])]
    nodes = [*cast, node("MatMul", ["masked", "a"], ["x"]), MIDDLE[1], *LAST]
    proto = model(nodes)
    proto.graph.input.append(info("mask", kind, ["N", 32]))
    source = from_proto(proto, name="odd")
    ones = np.ones(ROWS.shape, np.float32 if kind == TensorProto.FLOAT else np.int64)
    data = from_arrays({"input": ROWS, "mask": ones}, source, source="rows")
    with Quantiser(source, data, "ort") as quantiser:
        assert compare_models(source, quantiser.make().data, data).agreement > 0.9
    with pytest.raises(QuantizationRefused, match="nothing to calibrate on"):
        from_arrays({"input": np.ones_like(ROWS), "mask": ones}, source, source="rows")
