"""Calibration data are read, checked, and refused with a sentence."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.fakes.quantization import feeds, loaded, rows_of, tiny
from tuning.errors import QuantizationRefused
from tuning.quantization.calibration import (
    CalibrationData,
    TrafficDrift,
    check_fresh,
    check_range,
    compare_with_live,
    from_arrays,
    load_calibration,
    split,
)
from tuning.quantization.onnx_model import from_proto

DAY_S = 86_400.0


def test_npz_with_labels_and_recording_time(tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, input=feeds(100, 64), labels=np.arange(100), recorded_at_s=1234.0)
    data = load_calibration(file, loaded(tiny()))
    assert (data.rows, data.recorded_at_s) == (100, 1234.0)
    assert data.labels is not None
    assert data.labels[5] == 5


def test_the_only_input_may_have_any_name_and_wider_floats(tmp_path: Path) -> None:
    file = tmp_path / "rows.npz"
    np.savez(file, anything=feeds(100, 64).astype(np.float64))
    data = load_calibration(file, loaded(tiny()))
    assert data.inputs["input"].dtype == np.float32


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    first, second = feeds(40, 64, 1), feeds(40, 64, 2)
    np.savez(tmp_path / "b.npz", input=second)
    np.savez(tmp_path / "a.npz", input=first)
    data = load_calibration(tmp_path, loaded(tiny()))
    assert np.array_equal(data.inputs["input"], np.concatenate([first, second]))


def test_labels_from_their_own_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", feeds(100, 64))
    np.save(tmp_path / "y.npy", np.ones(100, np.int64))
    data = load_calibration(tmp_path / "x.npy", loaded(tiny()), labels=tmp_path / "y.npy")
    assert data.labels is not None
    with pytest.raises(QuantizationRefused, match="no labels at"):
        load_calibration(tmp_path / "x.npy", loaded(tiny()), labels=tmp_path / "z.npy")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"input": feeds(100, 63)}, "has the shape"),
        ({"input": feeds(100, 64).reshape(100, 8, 8)}, "has the shape"),
        ({"input": np.ones((100, 64), np.uint8)}, "is uint8, the model takes float32"),
        ({"input": feeds(10, 64)}, "holds 10 rows; at least 64"),
        ({"input": np.zeros((100, 64), np.float32)}, "nothing to calibrate on"),
        ({"input": np.where(np.eye(100, 64) > 0, np.nan, 1).astype(np.float32)}, "64 values that are NaN or infinite"),
        ({"input": feeds(100, 64) * np.float64(1e300)}, "too large for float32"),
        ({"other": feeds(100, 64), "more": feeds(100, 64)}, "no array for the model's input input"),
        ({"input": feeds(100, 64), "labels": np.ones(99)}, "99 labels for 100 rows"),
        ({"input": feeds(100, 64), "labels": np.array(3)}, "labels is a single value"),
        ({"input": feeds(100, 64), "labels": np.where(np.arange(100) < 2, np.nan, 1)}, "labels holds 2 values that"),
        ({"input": feeds(100, 64), "recorded_at_s": np.array(["yesterday"])}, "recorded_at_s must be numbers"),
        ({"input": feeds(100, 64), "recorded_at_s": np.array([1.0, np.nan])}, "recorded_at_s must be numbers"),
        ({}, "it holds nothing"),
    ],
)
def test_what_does_not_fit_is_refused(arrays: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(QuantizationRefused, match=words):
        from_arrays(arrays, loaded(tiny()), source="rows.npz")


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    model = loaded(tiny())
    bad = {
        "text.npz": b"not a zip",
        "cut.npz": b"PK\x03\x04" + bytes(20),
        "pickle.npz": pickle.dumps({"input": 1}),
        "empty.npy": b"",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(QuantizationRefused, match="not a readable"):
            load_calibration(tmp_path / name, model)
    with pytest.raises(QuantizationRefused, match="there is no calibration data at"):
        load_calibration(tmp_path / "absent", model)
    (tmp_path / "folder").mkdir()
    with pytest.raises(QuantizationRefused, match=r"holds no \.npz"):
        load_calibration(tmp_path / "folder", model)


def zipped(path: Path, member: bytes) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("input.npy", member)
    return path.read_bytes()


def test_damaged_archives_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "whole.npz", input=feeds(100, 64))
    torn = bytearray((tmp_path / "whole.npz").read_bytes())
    torn[len(torn) // 2 : len(torn) // 2 + 200] = bytes(200)
    locked = bytearray(zipped(tmp_path / "scratch.npz", b"x"))
    locked[6] |= 1  # "encrypted", in the member's own header
    locked[locked.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**13, 64)})
    for content, words in (
        (bytes(torn), "not a readable"),
        (bytes(locked), "not a readable"),
        (zipped(tmp_path / "scratch.npz", header.getvalue()), "not a readable|more than fits into memory"),
    ):
        (tmp_path / "rows.npz").write_bytes(content)
        with pytest.raises(QuantizationRefused, match=words):
            load_calibration(tmp_path / "rows.npz", loaded(tiny()))


def test_whole_numbers_that_the_model_cannot_hold_are_refused() -> None:
    graph = helper.make_graph(
        [helper.make_node("Identity", ["tokens"], ["y"])],
        "g",
        [helper.make_tensor_value_info("tokens", TensorProto.INT32, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, ["N", 4])],
    )
    model = from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), name="ids")
    tokens = np.full((100, 4), 7)
    assert from_arrays({"tokens": tokens}, model, source="rows.npz").inputs["tokens"].dtype == np.int32
    tokens[3, 3] = 2**32 + 7  # would wrap to 7
    with pytest.raises(QuantizationRefused, match="too large for int32"):
        from_arrays({"tokens": tokens}, model, source="rows.npz")


def test_arrays_of_objects_are_never_unpickled(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str, str]]:
            return Path.write_text, (tmp_path / "sprung", "x")

    np.savez(tmp_path / "trap.npz", input=np.array([Trap()], dtype=object))
    with pytest.raises(QuantizationRefused, match="plain arrays"):
        load_calibration(tmp_path / "trap.npz", loaded(tiny()))
    assert not (tmp_path / "sprung").exists()


def test_different_files_of_a_folder_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", input=feeds(40, 64))
    np.savez(tmp_path / "b.npz", image=feeds(40, 64))
    with pytest.raises(QuantizationRefused, match=r"b\.npz holds other arrays than a\.npz"):
        load_calibration(tmp_path, loaded(tiny()))


def test_age_and_drift() -> None:
    data = CalibrationData({"input": feeds(100, 64)}, None, "d", recorded_at_s=0.0, source="rows")
    check_fresh(data, now_s=7 * DAY_S, max_age_s=8 * DAY_S)
    with pytest.raises(QuantizationRefused, match=r"recorded 9\.0 days ago, more than the 8\.0 days"):
        check_fresh(data, now_s=9 * DAY_S, max_age_s=8 * DAY_S)
    unknown = CalibrationData({"input": feeds(100, 64)}, None, "d")
    check_fresh(unknown, now_s=1e12, max_age_s=DAY_S)


@pytest.mark.parametrize(
    ("recorded_days", "psi", "refused"),
    [(0.0, 0.4, True), (None, 0.4, True), (0.0, 0.2, False), (9.5, 0.4, False)],
    ids=["from before", "nobody knows when", "within what its own days show", "from the days that drifted"],
)
def test_rows_from_before_the_traffic_drifted(recorded_days: float | None, psi: float, refused: bool) -> None:
    recorded_at_s = None if recorded_days is None else recorded_days * DAY_S
    data = CalibrationData({"input": feeds(100, 64)}, None, "d", recorded_at_s=recorded_at_s, source="rows")
    drift = TrafficDrift(psi=psi, limit=0.25, seen_s=10 * DAY_S, words="accuracy has drifted: PSI 0.40")
    if not refused:
        check_fresh(data, now_s=10 * DAY_S, max_age_s=30 * DAY_S, drift=drift)
        return
    with pytest.raises(QuantizationRefused, match=r"traffic has drifted since rows .*PSI 0\.40.*record it anew"):
        check_fresh(data, now_s=10 * DAY_S, max_age_s=30 * DAY_S, drift=drift)


def test_range() -> None:
    data = CalibrationData({"input": np.linspace(0, 255, 6400).reshape(100, 64)}, None, "d", source="rows")
    check_range(data, {"input": (0.0, 255.0)})
    with pytest.raises(QuantizationRefused, match=r"99\.6% .*outside 0\.\.1.*pre-processing"):
        check_range(data, {"input": (0.0, 1.0)})
    with pytest.raises(QuantizationRefused, match="no input of the model"):
        check_range(data, {"image": (0.0, 1.0)})


def test_split_is_disjoint_complete_and_the_same_each_time() -> None:
    data = rows_of(tiny())
    ours, held = split(data, held_back=0.5, calibrate_at_most=256)
    again, _ = split(data, held_back=0.5, calibrate_at_most=256)
    assert ours.digest == again.digest
    assert ours.rows == 256
    assert ours.rows + held.rows == data.rows
    both = np.concatenate([ours.inputs["input"], held.inputs["input"]])
    assert len(np.unique(both, axis=0)) == data.rows
    assert split(data, seed=1)[0].digest != ours.digest


def test_digest_depends_on_rows_and_labels() -> None:
    data, bare = rows_of(tiny()), rows_of(tiny(), labels=False)
    assert data.digest == rows_of(tiny()).digest
    assert data.digest != bare.digest


def test_live_rows_far_away_show() -> None:
    ours = CalibrationData({"input": feeds(200, 64)}, None, "a")
    near = compare_with_live(ours, CalibrationData({"input": feeds(200, 64, 9)}, None, "b"))
    far = compare_with_live(ours, CalibrationData({"input": feeds(200, 64, 9) + 20}, None, "c"))
    assert near.outside < 0.01
    assert near.shift < 0.1
    assert far.outside > 0.99
    assert far.shift == pytest.approx(20, rel=0.1)
    assert "99" in far.text() or "100" in far.text()
