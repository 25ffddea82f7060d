"""Calibration data: rows of a model's inputs, from a .npz / .npy file or a folder of them, checked before use.

Keys of a .npz are the model's input names; "labels" holds the right classes, "recorded_at_s" when the rows were
recorded (epoch seconds). A model with one input also takes an array of any other name. Pickles are never loaded.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuning.errors import QuantizationRefused
from tuning.quantization.calibration_files import LABELS, RECORDED, read_labels, read_npz, read_rows
from tuning.quantization.onnx_model import Arrays, LoadedModel, TensorSpec

MIN_ROWS = 64
DRIFT_DAYS_S = 2 * 86_400.0
"""A drift figure compares the two newest days with those before: rows from within those days show the new traffic."""


@dataclass(frozen=True)
class CalibrationData:
    """Rows that fit a model. inputs[name]: shape (rows, ...). labels: shape (rows,) or None. digest: of all of it."""

    inputs: Arrays
    labels: NDArray[Any] | None
    digest: str
    recorded_at_s: float | None = None
    source: str = ""

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    def take(self, index: NDArray[np.intp]) -> CalibrationData:
        labels = None if self.labels is None else self.labels[index]
        inputs = {name: array[index] for name, array in self.inputs.items()}
        return replace(self, inputs=inputs, labels=labels, digest=_digest(inputs, labels))


@dataclass(frozen=True)
class Drift:
    """How far live rows are from the calibration rows.

    outside: share of live values beyond the calibrated range (INT8 clips them). shift: the largest difference of an
    input's mean in standard deviations of the calibration rows. worst: the input's name.
    """

    outside: float
    shift: float
    worst: str

    def text(self) -> str:
        return (
            f"{self.outside:.1%} of the live values of {self.worst} lie outside the range of the calibration data, "
            f"and its mean is {self.shift:.1f} standard deviations away"
        )


def load_calibration(
    path: Path, model: LoadedModel, *, labels: Path | None = None, min_rows: int = MIN_ROWS
) -> CalibrationData:
    """Read calibration rows for a model and check them; QuantizationRefused says what does not fit."""
    arrays = read_rows(path)
    if labels is not None:
        arrays[LABELS] = read_labels(labels)
    return from_arrays(arrays, model, source=str(path), min_rows=min_rows)


def from_bytes(data: bytes, model: LoadedModel, *, source: str, min_rows: int = MIN_ROWS) -> CalibrationData:
    """The same for a .npz in memory (what a server's recorder answers)."""
    return from_arrays(read_npz(io.BytesIO(data), source), model, source=source, min_rows=min_rows)


def from_arrays(arrays: Arrays, model: LoadedModel, *, source: str, min_rows: int = MIN_ROWS) -> CalibrationData:
    """Check arrays against the model's inputs: names, dtype, shape, size, NaN and inf, and that they vary at all."""
    rest = {name: array for name, array in arrays.items() if name not in (LABELS, RECORDED)}
    if len(model.inputs) == 1 and len(rest) == 1 and model.inputs[0].name not in rest:
        rest = {model.inputs[0].name: next(iter(rest.values()))}
    missing = [spec.name for spec in model.inputs if spec.name not in rest]
    if missing:
        raise QuantizationRefused(
            f"{source} has no array for the model's input {', '.join(missing)} "
            f"(it holds {', '.join(sorted(rest)) or 'nothing'})"
        )
    inputs = {spec.name: _fit(rest[spec.name], spec, source) for spec in model.inputs}
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) != 1:
        raise QuantizationRefused(f"the inputs in {source} have different numbers of rows: {counts}")
    rows = next(iter(counts.values()))
    if rows < min_rows:
        raise QuantizationRefused(
            f"{source} holds {rows} rows; at least {min_rows} are needed to calibrate and to hold some back"
        )
    moves = any(bool((array != array[:1]).any()) for array in inputs.values())
    if not moves and any(array.dtype.kind == "f" for array in inputs.values()):
        name, array = next(iter(inputs.items()))
        one = bool((array == array.flat[0]).all())
        same = f"every value of {name} is {float(array.flat[0]):g}" if one else "every row is the same"
        raise QuantizationRefused(f"{source}: {same}: nothing to calibrate on")
    labels = _fit_labels(arrays.get(LABELS), rows, source)
    return CalibrationData(inputs, labels, _digest(inputs, labels), _recorded(arrays.get(RECORDED), source), source)


def check_range(data: CalibrationData, bounds: dict[str, tuple[float, float]]) -> None:
    """Refuse values outside the range that the model was made for, e.g. {"image": (0.0, 1.0)}: unscaled pixels."""
    for name, (low, high) in sorted(bounds.items()):
        array = data.inputs.get(name)
        if array is None:
            raise QuantizationRefused(f"a value range is given for {name}, which is no input of the model")
        outside = float(np.mean((array < low) | (array > high)))
        if outside > 0:
            raise QuantizationRefused(
                f"{outside:.1%} of the values of {name} in {data.source} lie outside {low:g}..{high:g} "
                f"(they span {float(array.min()):g}..{float(array.max()):g}): is the pre-processing missing?"
            )


@dataclass(frozen=True)
class TrafficDrift:
    """A drift figure of a service. psi: population stability index against its own past days, limit: what those days
    reach; seen_s: end of the two days that drifted (epoch seconds); words: for the refusal."""

    psi: float
    limit: float
    seen_s: float
    words: str


def check_fresh(data: CalibrationData, *, now_s: float, max_age_s: float, drift: TrafficDrift | None = None) -> None:
    """Refuse rows that are too old, or from before the traffic drifted away from them.

    Rows without a recording time pass the age check, and count as recorded before any drift. None: no drift is known.
    """
    if data.recorded_at_s is not None and now_s - data.recorded_at_s > max_age_s:
        days = (now_s - data.recorded_at_s) / 86_400
        raise QuantizationRefused(
            f"{data.source} was recorded {days:.1f} days ago, more than the {max_age_s / 86_400:.1f} days allowed: "
            "record it anew"
        )
    if drift is None or drift.psi <= drift.limit:
        return
    if data.recorded_at_s is None or data.recorded_at_s < drift.seen_s - DRIFT_DAYS_S:
        raise QuantizationRefused(
            f"traffic has drifted since {data.source} was recorded ({drift.words}): record it anew"
        )


def compare_with_live(data: CalibrationData, live: CalibrationData) -> Drift:
    """How far `live` rows are from the calibration rows; the worst input counts."""
    found: list[tuple[float, float, str]] = []
    for name in sorted(data.inputs):
        ours = np.asarray(data.inputs[name], dtype=np.float64)
        theirs = np.asarray(live.inputs[name], dtype=np.float64)
        outside = float(np.mean((theirs < ours.min()) | (theirs > ours.max())))
        spread = float(ours.std()) or 1.0
        found.append((outside, abs(float(theirs.mean() - ours.mean())) / spread, name))
    outside, shift, name = max(found)
    return Drift(outside, shift, name)


def split(
    data: CalibrationData, *, held_back: float = 0.5, calibrate_at_most: int = 256, seed: int = 0
) -> tuple[CalibrationData, CalibrationData]:
    """(calibration rows, held-back rows), disjoint, shuffled by `seed`: the same data are split the same way."""
    order = np.random.default_rng(seed).permutation(data.rows)
    count = min(calibrate_at_most, max(1, round(data.rows * (1 - held_back))))
    return data.take(np.sort(order[:count])), data.take(np.sort(order[count:]))


def _fit(array: NDArray[Any], spec: TensorSpec, source: str) -> NDArray[Any]:
    wanted = np.dtype(spec.dtype)
    exact = array.dtype.kind in "biu" and wanted.kind in "biu"  # whether the values fit is checked below
    if array.dtype.kind != wanted.kind and not exact:
        raise QuantizationRefused(
            f"{source}: {spec.name} is {array.dtype.name}, the model takes {spec.dtype}: pre-process it first"
        )
    row, want = array.shape[1:], spec.shape[1:]
    if array.ndim != len(spec.shape) or any(w is not None and w != g for w, g in zip(want, row, strict=False)):
        raise QuantizationRefused(
            f"{source}: {spec.name} has the shape {list(array.shape)}, the model takes {spec.text()}"
        )
    if array.size == 0:
        raise QuantizationRefused(f"{source}: {spec.name} is empty")
    if wanted.kind == "f":
        bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
        if bad:
            raise QuantizationRefused(f"{source}: {spec.name} holds {bad} values that are NaN or infinite")
    with np.errstate(over="ignore"):
        fitted = np.ascontiguousarray(array.astype(wanted))
    if not (np.isfinite(fitted).all() if wanted.kind == "f" else np.array_equal(fitted, array)):
        raise QuantizationRefused(f"{source}: {spec.name} holds values too large for {spec.dtype}")
    return fitted


def _fit_labels(labels: NDArray[Any] | None, rows: int, source: str) -> NDArray[Any] | None:
    if labels is None:
        return None
    if labels.ndim == 0:
        raise QuantizationRefused(f"{source}: labels is a single value; give one per row")
    if len(labels) != rows:
        raise QuantizationRefused(f"{source}: {len(labels)} labels for {rows} rows")
    if labels.dtype.kind == "f" and np.isnan(labels).any():
        raise QuantizationRefused(f"{source}: labels holds {int(np.isnan(labels).sum())} values that are NaN")
    return labels


def _recorded(when: NDArray[Any] | None, source: str) -> float | None:
    """The newest recording time, epoch seconds; None when the file says none."""
    if when is None or not np.size(when):
        return None
    if np.asarray(when).dtype.kind not in "iuf" or not np.isfinite(when).all():
        raise QuantizationRefused(f"{source}: {RECORDED} must be numbers: when the rows were recorded, epoch seconds")
    return float(np.max(when))


def _digest(inputs: Arrays, labels: NDArray[Any] | None) -> str:
    found = hashlib.sha256()
    parts = [*sorted(inputs.items()), *([(LABELS, labels)] if labels is not None else [])]
    for name, array in parts:
        found.update(f"{name}\x1f{array.dtype.str}\x1f{array.shape}\x1f".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
