"""Latency of FP32 and INT8 in one interleaved run on the machine that this runs on, and their answers.

The two take turns in bursts, so that a noisy neighbour hits both. Within a burst the first runs are thrown away: the
other model has just pushed this one's weights out of the cache, which never happens in serving (measured: an MLP of
28 MB in INT8 needs 25 ms to come back to its speed after 113 MB of FP32 weights went through). Sessions have one
thread, so the thread's CPU time is the latency on a quiet core; wall time is kept beside it.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from detection.model import FloatArray
from tuning.errors import ConfigError, QuantizationRefused
from tuning.quantization import likeness
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.gates import Accuracy, LatencyRow, accuracy_of, answers, latency_row
from tuning.quantization.likeness import Kind
from tuning.quantization.onnx_model import LoadedModel, first_line, open_session, predict

Clock = Callable[[], float]
MAX_SETTLE_RUNS = 20


class Runner(Protocol):
    """One model, ready to run: a session of onnxruntime or anything shaped like it."""

    def run(self, names: Any, feeds: dict[str, NDArray[Any]]) -> Any: ...


@dataclass(frozen=True)
class Effort:
    """How long to measure. bursts x runs samples per model and batch size; settle_s of every burst is thrown away.

    budget_s: what one batch size may take; a slow model gets fewer runs per burst (never under `min_runs`).
    """

    bursts: int = 8
    runs: int = 12
    settle_s: float = 0.03
    budget_s: float = 12.0
    min_runs: int = 3


@dataclass(frozen=True)
class Clocks:
    """Both clocks answer seconds. `cpu` is the calling thread's CPU time, `wall` never goes backwards."""

    cpu: Clock = time.thread_time
    wall: Clock = time.perf_counter


class Metric(Protocol):
    """A user's own measure of right: scores per row, 0..1, shape (rows,), from outputs by name and labels."""

    def __call__(self, outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> FloatArray: ...


def metric_of(text: str) -> Metric:
    """The user's own measure named "package.module:function"; ConfigError says what cannot be found."""
    module_name, _, name = text.partition(":")
    if not module_name or not name:
        raise ConfigError(f"{text!r} names no metric: write it like my_package.metrics:within_five_percent")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"the metric {text!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ConfigError(f"{text!r} is no function")
    metric: Metric = found
    return metric


def interleave(
    fp32: Runner, int8: Runner, feeds: dict[str, NDArray[Any]], *, effort: Effort, clocks: Clocks
) -> tuple[tuple[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]:
    """((fp32 CPU, int8 CPU), (fp32 wall, int8 wall)) in seconds, each of shape (bursts, runs)."""
    pair = (fp32, int8)
    guess = [_one(runner, feeds, clocks)[1] for runner in pair for _ in (0, 1)]
    settle = [min(MAX_SETTLE_RUNS, max(2, int(np.ceil(effort.settle_s / max(s, 1e-6))))) for s in (guess[1], guess[3])]
    per_run = guess[1] + guess[3]
    spare = effort.budget_s / effort.bursts - settle[0] * guess[1] - settle[1] * guess[3]
    runs = int(np.clip(spare / max(per_run, 1e-6), effort.min_runs, effort.runs))
    cpu, wall = np.empty((2, effort.bursts, runs)), np.empty((2, effort.bursts, runs))
    for burst in range(effort.bursts):
        # Who goes first alternates, so that a drift of the machine's speed hits both alike.
        for which in (0, 1) if burst % 2 == 0 else (1, 0):
            for _ in range(settle[which]):
                pair[which].run(None, feeds)
            for i in range(runs):
                cpu[which, burst, i], wall[which, burst, i] = _one(pair[which], feeds, clocks)
    return (cpu[0], cpu[1]), (wall[0], wall[1])


def latency_table(
    fp32: Runner,
    int8: Runner,
    data: CalibrationData,
    batches: Sequence[int],
    *,
    effort: Effort | None = None,
    clocks: Clocks | None = None,
    seed: int = 0,
) -> tuple[LatencyRow, ...]:
    """One row per batch size, on real rows. Judged by CPU time, by wall time where that clock is too coarse."""
    effort, clocks = effort or Effort(), clocks or Clocks()
    table: list[LatencyRow] = []
    for batch in sorted(set(batches)):
        index = np.arange(batch) % data.rows
        feeds = {name: np.ascontiguousarray(array[index]) for name, array in data.inputs.items()}
        try:
            cpu, wall = interleave(fp32, int8, feeds, effort=effort, clocks=clocks)
        except Exception as error:  # ONNX Runtime's own kinds
            raise QuantizationRefused(
                f"the model cannot run a batch of {batch} rows: {first_line(error)}: time other sizes (--batch)"
            ) from error
        usable = bool((np.median(cpu[0]) > 0) and (np.median(cpu[1]) > 0))
        judged = cpu if usable else wall
        table.append(latency_row(batch, *judged, wall=wall, clock="cpu" if usable else "wall", seed=seed + batch))
    return tuple(table)


def compare_models(
    fp32: LoadedModel,
    int8: bytes,
    data: CalibrationData,
    *,
    metric: Metric | None = None,
    output: str | None = None,
    kind: Kind | None = None,
) -> Accuracy:
    """How alike the answers are, and (with labels) accuracy, of an INT8 model for ONNX Runtime on held-back rows."""
    before = predict(open_session(fp32.data), data.inputs)
    after = predict(open_session(int8, where=f"{fp32.name} (INT8)"), data.inputs)
    return compare_outputs(before, after, data, metric=metric, output=output, kind=kind)


def compare_outputs(
    before: dict[str, NDArray[Any]],
    after: dict[str, NDArray[Any]],
    data: CalibrationData,
    *,
    metric: Metric | None = None,
    output: str | None = None,
    kind: Kind | None = None,
) -> Accuracy:
    """The same from outputs. kind: what the output is (None: told from its name and values; labels are of classes).
    A metric of the user's own needs labels and decides agreement by equal scores."""
    if metric is not None:
        return _by_metric(before, after, data, metric)
    name = likeness.chosen(before, output)
    ours, theirs = before[name], after[name]
    _check_finite(ours)
    kind = kind or ("classes" if data.labels is not None else likeness.kind_of(name, ours))
    if kind == "values":
        return accuracy_of(likeness.values(ours, theirs), metric="values")
    if kind == "vectors":
        return accuracy_of(likeness.vectors(ours, theirs), metric="vectors")
    if ours.dtype.kind == "f" and not likeness.is_scores(ours):
        raise QuantizationRefused(
            f"the output {name} has no axis of class scores (rows x classes), so top-1 means nothing: labels need a "
            "metric of your own (--metric)"
        )
    return _by_class(ours, theirs, data)


def _by_class(before: NDArray[Any], after: NDArray[Any], data: CalibrationData) -> Accuracy:
    ours, theirs = answers(before), answers(after)
    if data.labels is None:
        found = likeness.classes(ours, theirs)
        wide = before.dtype.kind == "f" and likeness.squeezed(before).shape[-1] >= likeness.VECTOR_WIDTH
        if wide:
            flat = [likeness.squeezed(a).reshape(-1, likeness.squeezed(a).shape[-1]) for a in (before, after)]
            found = found.model_copy(update={"direction": likeness.direction(flat[0], flat[1])})
        return accuracy_of(found)
    classes = likeness.squeezed(before).shape[-1] if before.dtype.kind == "f" else int(ours.max()) + 1
    _check_labels(data.labels, ours, classes)
    right = tuple((a == data.labels).reshape(len(a), -1).mean(axis=1) for a in (ours, theirs))
    return accuracy_of(likeness.classes(ours, theirs, ours == data.labels), (right[0], right[1]))


def _by_metric(
    before: dict[str, NDArray[Any]], after: dict[str, NDArray[Any]], data: CalibrationData, metric: Metric
) -> Accuracy:
    if data.labels is None:
        raise QuantizationRefused("a metric of your own needs labels: give them in the data or with --labels")
    try:
        scores = [np.asarray(metric(outputs, data.labels), dtype=np.float64) for outputs in (before, after)]
    except Exception as error:  # the user's own code: whatever it raises is theirs to read, in one sentence
        raise QuantizationRefused(f"the metric failed: {type(error).__name__}: {first_line(error)}") from error
    if any(s.shape != (data.rows,) or not np.isfinite(s).all() for s in scores):
        raise QuantizationRefused(f"the metric must answer one finite score per row, shape ({data.rows},)")
    same = likeness.wilson(int((scores[0] == scores[1]).sum()), data.rows)
    found = likeness.Likeness(kind="own", rows=data.rows, agreement=same)
    return accuracy_of(found, (scores[0], scores[1]), getattr(metric, "__name__", "own"))


def _check_finite(fp32: NDArray[Any]) -> None:
    if fp32.dtype.kind != "f":
        return
    bad = ~np.isfinite(fp32.reshape(len(fp32), -1)).all(axis=1)
    if bad.any():
        raise QuantizationRefused(
            f"the FP32 model itself answers NaN or infinity on {int(bad.sum())} of {len(fp32)} rows: nothing to "
            "compare with"
        )


def _check_labels(labels: NDArray[Any], ours: NDArray[Any], classes: int) -> None:
    """Labels that belong to something else would make both models equally wrong, and the drop zero."""
    if labels.shape != ours.shape:
        raise QuantizationRefused(
            f"labels have the shape {labels.shape}, the model answers {ours.shape}: they do not fit"
        )
    if labels.dtype.kind not in "iufb" or not np.array_equal(labels, np.floor(labels)):
        raise QuantizationRefused(
            f"labels are {labels.dtype.name}, top-1 compares class numbers: give numbers from 0 to {classes - 1}"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise QuantizationRefused(
            f"labels go from {low} to {high}, the model's classes from 0 to {classes - 1}: they do not fit"
        )
    if not (labels == ours).any():
        raise QuantizationRefused(
            f"the FP32 model is right on none of the {len(labels)} labelled rows: the labels are not of these rows"
        )


def _one(runner: Runner, feeds: dict[str, NDArray[Any]], clocks: Clocks) -> tuple[float, float]:
    cpu, wall = clocks.cpu(), clocks.wall()
    runner.run(None, feeds)
    return clocks.cpu() - cpu, clocks.wall() - wall
