"""The same work is done once, and nothing is published that did not pass every gate."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fakes.quantization import judged, loaded, rows_of, tiny
from tuning.errors import QuantizationRefused
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.ensure import ensure_int8, load_engine, publish_engine, publish_source
from tuning.quantization.gates import GateLimits, GateRefused
from tuning.quantization.onnx_model import LoadedModel, digest_of
from tuning.quantization.pipeline import Quantized, Recipe
from tuning.quantization.repository import Repository
from tuning.quantization.tensorrt_engine import Engine, EngineFacts


class Builder:
    """A build that answers at once and counts."""

    def __init__(self, passed: bool | None = True) -> None:
        self.passed, self.calls = passed, 0

    def __call__(
        self, model: LoadedModel, data: CalibrationData, recipe: Recipe, live: CalibrationData | None
    ) -> Quantized:
        self.calls += 1
        return judged(self.passed, b"int8" + data.digest.encode(), source=model.digest, calibration=data.digest)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path, "ranker")
    publish_source(made, tmp_path / "ranker.onnx", loaded(tiny()))
    return made


def test_made_once(repository: Repository) -> None:
    build, model, data = Builder(), loaded(tiny()), rows_of(tiny())
    first = ensure_int8(repository, model, data, Recipe(), key="p1", make=build)
    again = ensure_int8(repository, model, data, Recipe(), key="p2", make=build)
    assert (first.version.number, first.made) == (2, True)
    assert (again.version.number, again.made, build.calls) == (2, False, 1)
    assert again.evidence["gates"] == first.evidence["gates"]
    assert (repository.folder / "config.pbtxt").is_file()


def test_a_task_that_is_run_again_finds_its_own_work_though_the_rows_moved_on(repository: Repository) -> None:
    build, model, data = Builder(), loaded(tiny()), rows_of(tiny())
    other = rows_of(tiny(), labels=False)
    ensure_int8(repository, model, data, Recipe(), key="p1", make=build)
    assert ensure_int8(repository, model, other, Recipe(), key="p1", make=build).version.number == 2
    assert ensure_int8(repository, model, other, Recipe(), key="p2", make=build).version.number == 3


def test_stricter_limits_judge_anew(repository: Repository) -> None:
    build, model, data = Builder(), loaded(tiny()), rows_of(tiny())
    ensure_int8(repository, model, data, Recipe(), make=build)
    ensure_int8(repository, model, data, Recipe(limits=GateLimits(min_speedup=3.0)), make=build)
    assert build.calls == 2


@pytest.mark.parametrize("passed", [False, None])
def test_refused_or_unmeasured_is_not_published(repository: Repository, passed: bool | None) -> None:
    with pytest.raises(GateRefused, match="INT8 of ranker is refused") as caught:
        ensure_int8(repository, loaded(tiny()), rows_of(tiny()), Recipe(), make=Builder(passed))
    assert [v.precision for v in repository.versions()] == ["fp32"]
    gates = caught.value.evidence["gates"]
    assert isinstance(gates, list)
    assert gates[0]["gate"] == "agreement with FP32"


def test_the_source_is_published_once(repository: Repository, tmp_path: Path) -> None:
    again = publish_source(repository, tmp_path / "ranker.onnx", loaded(tiny()))
    assert (again.number, again.precision) == (1, "fp32")
    assert len(repository.versions()) == 1


def test_an_engine_is_published_and_loaded_only_where_it_fits(repository: Repository) -> None:
    data = b"a serialized engine"
    facts = EngineFacts(
        runtime="tensorrt",
        tensorrt_version="10.3",
        compute_capability="8.9",
        source_digest="s",
        calibration_digest="c",
        precision="int8",
        batch=(1, 8, 32),
        digest=digest_of(data),
    )
    version = publish_engine(repository, Engine(data, facts))
    assert (Path(version.path) / "model.plan").read_bytes() == data
    assert publish_engine(repository, Engine(data, facts)).number == version.number
    assert load_engine(version, tensorrt_version="10.3", compute_capability="89", source_digest="s") == data
    with pytest.raises(
        QuantizationRefused, match=r"TensorRT is 10\.4, the engine is for 10\.3; compute capability is 9\.0"
    ):
        load_engine(version, tensorrt_version="10.4", compute_capability="9.0", source_digest="s")
    (Path(version.path) / "model.plan").write_bytes(data[:-1])
    with pytest.raises(QuantizationRefused, match="changed or damaged"):
        load_engine(version, tensorrt_version="10.3", compute_capability="8.9", source_digest="s")
    with pytest.raises(QuantizationRefused, match="version 1 is no TensorRT engine"):
        load_engine(repository.versions()[0], tensorrt_version="1", compute_capability="8.9", source_digest="s")
