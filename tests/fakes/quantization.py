"""Tiny models, rows and sessions for the INT8 tests: made in milliseconds, with a task that they really solve."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quantization.models import ZooModel, mlp, outlier
from tuning.quantization.artefacts import Artefact
from tuning.quantization.calibration import CalibrationData, from_arrays
from tuning.quantization.gates import GateRow, Judgement
from tuning.quantization.onnx_model import LoadedModel, digest_of, from_proto
from tuning.quantization.pipeline import Quantized


@cache
def tiny() -> ZooModel:
    """An MLP of 64 x 2 that is right 9 times in 10."""
    return mlp(64, 2, noise=1.0, rows=900, seed=11)


@cache
def spiky() -> ZooModel:
    """An MLP with an outlier unit: INT8 of two layers ruins it."""
    return outlier(64, seed=6)


def loaded(zoo: ZooModel) -> LoadedModel:
    return from_proto(zoo.proto, name=zoo.name)


def rows_of(zoo: ZooModel, *, labels: bool = True) -> CalibrationData:
    arrays: dict[str, NDArray[Any]] = {"input": zoo.inputs}
    if labels:
        arrays["labels"] = zoo.labels
    return from_arrays(arrays, loaded(zoo), source=zoo.name)


class FakeRunner:
    """Takes as long as it is told: moves the shared clock by `cost_s(run number)`."""

    def __init__(self, name: str, clock: FakeClock, cost_s: Callable[[int], float]) -> None:
        self.name, self.clock, self.cost_s, self.runs = name, clock, cost_s, 0

    def run(self, names: Any, feeds: dict[str, NDArray[Any]]) -> Any:
        self.runs += 1
        self.clock.order.append(self.name)
        self.clock.now_s += self.cost_s(self.runs)
        return []


class FakeClock:
    """Seconds that move only when a runner runs; `order` is who ran."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now_s


def judged(passed: bool | None, data: bytes = b"int8", *, source: str = "s", calibration: str = "c") -> Quantized:
    """What a build answers, without building: one gate that passed, refused, or stayed open (None)."""
    row = GateRow(gate="agreement with FP32", found="99.9%", asked="at least 98%", passed=passed)
    artefact = Artefact("ort", data, digest_of(data), source, calibration, ("dense",), ())
    return Quantized(artefact, Judgement(passed=passed is not False, gates=(row,)))


def among_the_best_three(outputs: dict[str, NDArray[Any]], labels: NDArray[Any]) -> NDArray[np.float64]:
    """A metric of a user's own: the right class is among the three highest scores."""
    best = np.argsort(next(iter(outputs.values())), axis=1)[:, -3:]
    return (best == labels[:, None]).any(axis=1).astype(np.float64)


def feeds(rows: int, width: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((rows, width), dtype=np.float32)
