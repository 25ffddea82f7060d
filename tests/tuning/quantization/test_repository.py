"""Publishing is all or nothing, the same build is published once, and damage is noticed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tuning.errors import QuantizationRefused, Temporary
from tuning.quantization.onnx_model import TensorSpec, digest_of
from tuning.quantization.repository import Manifest, Repository, config_pbtxt, problems, read_manifest

DATA = b"an int8 model" * 1000


def manifest(data: bytes = DATA, *, precision: str = "int8", calibration: str = "c") -> Manifest:
    return Manifest(
        model="ranker",
        precision=precision,
        file="model.onnx",
        digest=digest_of(data),
        source_digest="s",
        calibration_digest=calibration,
    )


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path, "ranker")
    made.publish(b"fp32", manifest(b"fp32", precision="fp32"))
    return made


def hidden(repository: Repository) -> list[str]:
    return [p.name for p in repository.folder.iterdir() if p.name.startswith(".publishing")]


def test_versions_count_up_and_carry_their_manifest(repository: Repository) -> None:
    version = repository.publish(DATA, manifest())
    assert (version.number, version.precision) == (2, "int8")
    assert (repository.folder / "2" / "model.onnx").read_bytes() == DATA
    assert read_manifest(repository.folder / "2") == manifest()
    assert [v.number for v in repository.versions()] == [1, 2]
    assert problems(repository.folder / "2") == ()


def test_the_same_build_is_published_once(repository: Repository) -> None:
    first = repository.publish(DATA, manifest())
    later = manifest().model_copy(update={"judgement": {"timed": "again"}, "made_for": "another change"})
    assert repository.publish(DATA, later).number == first.number
    assert repository.publish(DATA, manifest(calibration="other")).number == 3


def test_a_killed_publish_leaves_nothing_and_the_next_one_works(repository: Repository) -> None:
    def dies_at(count: int) -> Callable[[int], None]:
        left = [count]

        def fsync(handle: int) -> None:
            left[0] -= 1
            if left[0] == 0:
                os._exit(9)  # as SIGKILL does: no clean-up runs
            os.fsync(handle)

        return fsync

    # Model, manifest, folder: killed at each of these nobody sees a version. The fourth flush comes after the rename.
    for step, seen in ((1, [1]), (2, [1]), (3, [1]), (4, [1, 2])):
        child = os.fork()
        if child == 0:
            Repository(repository.root, "ranker", fsync=dies_at(step)).publish(DATA, manifest())
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        assert [v.number for v in repository.versions()] == seen
        if step < 4:
            assert hidden(repository)
    assert repository.publish(DATA, manifest()).number == 2
    assert hidden(repository) == []
    assert problems(repository.folder / "2") == ()


def test_a_full_disk_is_temporary_and_leaves_nothing(tmp_path: Path) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    repository = Repository(tmp_path, "ranker", fsync=full)
    with pytest.raises(Temporary, match="No space left on device"):
        repository.publish(DATA, manifest())
    assert repository.versions() == ()
    assert hidden(repository) == []


def test_two_builds_do_not_publish_at_once(repository: Repository) -> None:
    handle = os.open(repository.folder / ".lock", os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(Temporary, match="another build is publishing"):
        repository.publish(DATA, manifest())
    os.close(handle)
    assert repository.publish(DATA, manifest()).number == 2


def test_old_versions_go_but_never_what_serves_nor_the_way_back(repository: Repository) -> None:
    for i in range(5):
        data = DATA + bytes([i])
        repository.publish(data, manifest(data), keep=3, protect=[2])
    # 1 is the only FP32 version, 2 serves, 6 is new.
    assert [v.number for v in repository.versions()] == [1, 2, 6]


def test_damage_is_noticed_and_a_damaged_version_is_not_reused(repository: Repository) -> None:
    version = repository.publish(DATA, manifest())
    file = Path(version.path) / "model.onnx"
    file.write_bytes(DATA[:-1])
    assert "changed or damaged" in problems(Path(version.path))[0]
    assert repository.find_made(source_digest="s", calibration_digest="c", recipe={}) is None
    assert repository.publish(DATA, manifest()).number == 3
    file.unlink()
    assert "is missing" in problems(Path(version.path))[0]
    (Path(version.path) / "manifest.json").write_text("{")
    assert "no readable manifest" in problems(Path(version.path))[0]


def test_a_manifest_of_other_bytes_is_refused(repository: Repository) -> None:
    with pytest.raises(QuantizationRefused, match="digest in the manifest"):
        repository.publish(b"other", manifest())


def test_found_by_rows_or_by_the_change_that_had_it_made(repository: Repository) -> None:
    repository.publish(DATA, manifest().model_copy(update={"made_for": "plan-1"}))
    find = repository.find_made
    assert find(source_digest="s", calibration_digest="c", recipe={}) is not None
    assert find(source_digest="s", calibration_digest="x", recipe={}, made_for="plan-1") is not None
    assert find(source_digest="s", calibration_digest="x", recipe={}, made_for="") is None
    assert find(source_digest="x", calibration_digest="c", recipe={}) is None
    assert find(source_digest="s", calibration_digest="c", recipe={"seed": 1}) is None


def test_versions_of_others_are_fp32_and_other_folders_are_no_versions(tmp_path: Path) -> None:
    for name in ("1", "10", "9", "notes", ".publishing-x"):
        (tmp_path / "m" / name).mkdir(parents=True)
    found = Repository(tmp_path, "m").versions()
    assert [(v.number, v.precision) for v in found] == [(1, "fp32"), (9, "fp32"), (10, "fp32")]
    assert Repository(tmp_path, "absent").versions() == ()
    with pytest.raises(QuantizationRefused, match="no usable model name"):
        Repository(tmp_path, "../m")


def test_triton_configuration(repository: Repository) -> None:
    specs = (TensorSpec("x", "float32", (None, 8, None)),), (TensorSpec("y", "int64", (None, 10)),)
    text = config_pbtxt("ranker", *specs, platform="onnxruntime_onnx", max_batch=8, serve=[1])
    assert '  { name: "x" data_type: TYPE_FP32 dims: [ 8, -1 ] }' in text
    assert '  { name: "y" data_type: TYPE_INT64 dims: [ 10 ] }' in text
    assert "version_policy { specific { versions: [ 1 ] } }" in text  # publishing alone moves no traffic
    repository.publish(DATA, manifest(), config=text)
    path = repository.folder / "config.pbtxt"
    assert path.read_text() == text
    path.write_text("the user's own")
    repository.publish(DATA, manifest(calibration="d"), config=text)
    assert path.read_text() == "the user's own"
    with pytest.raises(QuantizationRefused, match="no type for"):
        config_pbtxt("m", (TensorSpec("x", "complex64", (None,)),), (), platform="p", max_batch=1, serve=[1])
