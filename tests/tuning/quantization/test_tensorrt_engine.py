"""Real TensorRT-RTX builds without a GPU, the parser's words, and the manifest that is checked at load."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.quantization.models import Graph
from tests.fakes.quantization import loaded, rows_of, tiny
from tuning.errors import QuantizationRefused
from tuning.quantization import tensorrt_engine as te
from tuning.quantization.artefacts import Quantiser
from tuning.quantization.calibration import split

pytest.importorskip("tensorrt_rtx", reason="slotune[tensorrt-rtx] is not installed")

SMALL = te.Profile(1, 4, 8)


def build(data: bytes, **more: object) -> te.Engine:
    options = {"precision": "fp32", "compute_capability": "8.9", "profile": SMALL, **more}
    return te.build_engine(data, loaded(tiny()), **options)  # type: ignore[arg-type]


def test_fp32_and_int8_build_with_progress_and_facts() -> None:
    seen: list[tuple[str, float]] = []
    model = loaded(tiny())
    with Quantiser(model, split(rows_of(tiny()))[0], "tensorrt") as quantiser:
        artefact = quantiser.make()
    fp32 = build(model.data)
    int8 = build(
        artefact.data,
        precision="int8",
        calibration_digest=artefact.calibration_digest,
        progress=lambda phase, share: seen.append((phase, share)),
    )
    assert int8.facts.batch == (1, 4, 8)
    assert int8.facts.compute_capability == "8.9"
    assert (int8.facts.source_digest, int8.facts.precision) == (model.digest, "int8")
    assert int8.facts.digest != fp32.facts.digest
    assert len(seen) > 5
    assert all(0 <= share <= 1 for _, share in seen)
    assert build(model.data, timing_cache=fp32.timing_cache).data == fp32.data


def test_an_engine_is_written_read_and_checked(tmp_path: Path) -> None:
    engine = build(loaded(tiny()).data, calibration_digest="c" * 64)
    for name, content in te.engine_files(engine).items():
        (tmp_path / name).write_bytes(content)
    data, facts = te.read_engine(tmp_path)
    here = {
        "tensorrt_version": facts.tensorrt_version,
        "compute_capability": "8.9",
        "source_digest": loaded(tiny()).digest,
        "calibration_digest": "c" * 64,
        "runtime": facts.runtime,
    }
    te.check_engine(data, facts, **here)
    wrong = {
        "tensorrt_version": ("9.9", "TensorRT is 9.9"),
        "compute_capability": ("8.6", "compute capability is 8.6, the engine is for 8.9"),
        "source_digest": ("f" * 64, "model is ffffffffffff"),
        "calibration_digest": ("0" * 64, "calibration data is 000000000000"),
        "runtime": ("tensorrt", "runtime is tensorrt"),
    }
    for key, (value, words) in wrong.items():
        with pytest.raises(QuantizationRefused, match=words):
            te.check_engine(data, facts, **{**here, key: value})
    with pytest.raises(QuantizationRefused, match="its bytes"):
        te.check_engine(data[:-1], facts, **here)
    (tmp_path / "engine.json").unlink()
    with pytest.raises(QuantizationRefused, match="no complete engine"):
        te.read_engine(tmp_path)


def test_what_the_progress_raises_ends_the_build() -> None:
    seen: list[str] = []

    def press_stop(phase: str, share: float) -> None:
        seen.append(phase)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(loaded(tiny()).data, progress=press_stop)
    assert len(seen) == 1


def odd(op: str, domain: str = "") -> bytes:
    graph = helper.make_graph(
        [helper.make_node(op, ["input"], ["y"], name="the_odd_one", domain=domain)],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["b", 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    return helper.make_model(graph, opset_imports=opsets).SerializeToString()


def test_the_parsers_words_name_node_and_operator() -> None:
    with pytest.raises(QuantizationRefused, match=r"TensorRT cannot read mlp: .*the_odd_one \(Det\)"):
        build(odd("Det"))
    with pytest.raises(QuantizationRefused, match=r"the_odd_one \(MyOp\).*[Pp]lugin"):
        build(odd("MyOp", "my.ops"))
    whole = loaded(tiny()).data
    for broken in (b"junk" * 100, whole[: len(whole) // 2]):
        with pytest.raises(QuantizationRefused, match="Failed to parse the ONNX model"):
            build(broken)


def test_onnx_runtimes_artefact_is_not_for_tensorrt() -> None:
    with Quantiser(loaded(tiny()), split(rows_of(tiny()))[0], "ort") as quantiser:
        artefact = quantiser.make()
    with pytest.raises(QuantizationRefused, match="TensorRT cannot"):
        build(artefact.data)


@pytest.mark.parametrize("sizes", [(4, 2, 8), (0, 1, 2), (1, 9, 8)])
def test_a_wrong_profile(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(QuantizationRefused, match="smallest <= best <= largest"):
        build(loaded(tiny()).data, profile=te.Profile(*sizes))


def test_batches_that_the_model_fixes() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(tiny().proto)
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    data = proto.SerializeToString()
    with pytest.raises(QuantizationRefused, match="batches of exactly 4 rows"):
        build(data)
    assert build(data, profile=te.Profile(4, 4, 4)).facts.batch == (4, 4, 4)


def test_another_open_dimension_is_named() -> None:
    graph = Graph(("batch", "length", 8), 0)
    proto = graph.model(graph.matmul("input", 8, 8), 8, "open")
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    with pytest.raises(QuantizationRefused, match="input has more open dimensions"):
        build(proto.SerializeToString())


def test_too_little_workspace_is_said() -> None:
    with pytest.raises(QuantizationRefused, match="workspace"):
        build(loaded(tiny()).data, workspace_bytes=1024)


def test_compute_capabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [te.capability_of(t) for t in ("8.9", "89", "sm_89", " SM120 ")] == ["8.9", "8.9", "8.9", "12.0"]
    for text in ("ada", "", "8.9.1", "8"):
        with pytest.raises(QuantizationRefused, match=r"write it like 8\.9"):
            te.capability_of(text)
    with pytest.raises(QuantizationRefused, match=r"cannot build for 3\.0; it knows .*8\.9"):
        build(loaded(tiny()).data, compute_capability="3.0")


def test_full_tensorrt_builds_only_for_the_gpu_that_is_there() -> None:
    config = SimpleNamespace()  # full TensorRT's configuration has no set_compute_capability
    with pytest.raises(QuantizationRefused, match="full TensorRT builds for the GPU that is there"):
        te._set_capability(SimpleNamespace(__name__="tensorrt"), config, "1.0")  # type: ignore[arg-type]


@pytest.mark.parametrize(("text", "size"), [("1GiB", 2**30), ("512 MiB", 2**29), ("4096", 4096), ("2kib", 2048)])
def test_memory_limits(text: str, size: int) -> None:
    assert te.limit_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "much", "1GB", "-1"])
def test_no_memory_limit(text: str) -> None:
    with pytest.raises(QuantizationRefused, match="no memory limit"):
        te.limit_of(text)


class FakeCache:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data


class FakeConfig:
    """Full TensorRT's configuration, as far as timing caches go: takes caches of its own making only."""

    def __init__(self) -> None:
        self.cache: FakeCache | None = None

    def create_timing_cache(self, data: bytes) -> FakeCache | None:
        return FakeCache(data or b"fresh") if data in (b"", b"mine") else None

    def set_timing_cache(self, cache: FakeCache, ignore_mismatch: bool) -> bool:
        assert ignore_mismatch is False
        self.cache = cache
        return True


@pytest.mark.parametrize(("given", "used"), [(b"mine", b"mine"), (b"of another GPU", b"fresh"), (b"", b"fresh")])
def test_full_tensorrt_takes_its_own_timing_cache_only(given: bytes, used: bytes) -> None:
    config = FakeConfig()
    cache = te._add_cache(SimpleNamespace(__name__="tensorrt"), config, given)  # type: ignore[arg-type]
    assert te._cache_bytes(cache) == used
    assert config.cache is cache
