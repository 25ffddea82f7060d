"""What computes a batch: ONNX Runtime on one thread, or an emulated accelerator that waits instead of computing."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from demo.server.protocol import BadRequest, TensorSpec

_ONNX_TYPES = {
    "tensor(float)": "FP32", "tensor(double)": "FP64", "tensor(float16)": "FP16", "tensor(int64)": "INT64",
    "tensor(int32)": "INT32", "tensor(uint8)": "UINT8", "tensor(int8)": "INT8",
}  # fmt: skip
DEFAULT_INPUT = TensorSpec("features", "FP32", 64)
DEFAULT_OUTPUT = TensorSpec("logits", "FP32", 10)


class Loaded(Protocol):
    """One loaded version. `infer` gives the output rows of a batch and the seconds that computing took."""

    input: TensorSpec
    output: TensorSpec

    async def infer(self, rows: np.ndarray) -> tuple[np.ndarray, float]: ...


class Engine(Protocol):
    """Loads versions. `emulated` is True when no number of it comes from computing."""

    emulated: bool

    def load(self, path: Path | None, precision: str) -> Loaded:
        """Blocking; called in a thread of its own. Raises BadRequest with the reason."""
        ...


class OnnxEngine:
    """ONNX Runtime on the CPU: every session computes on the ONE thread of this engine."""

    emulated = False

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")

    def load(self, path: Path | None, precision: str) -> Loaded:
        import onnxruntime as ort

        if path is None or not path.is_file():
            raise BadRequest(f"there is no model file at {path}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as failure:  # ORT raises classes of its own without a common base
            first = (str(failure).splitlines() or ["no reason given"])[0]
            raise BadRequest(f"ONNX Runtime cannot load {path.name}: {first[:300]}") from None
        loaded = _OnnxModel(session, self._thread)
        session.run(None, {loaded.input.name: np.zeros((1, loaded.input.width), np.float32)})  # warm before it serves
        return loaded

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


class _OnnxModel:
    def __init__(self, session: Any, thread: ThreadPoolExecutor) -> None:
        self._session, self._thread = session, thread
        self.input = _spec(session.get_inputs())
        self.output = _spec(session.get_outputs())

    async def infer(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, rows)

    def _run(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        started = time.perf_counter()
        out = self._session.run(None, {self.input.name: rows})[0]
        return out, time.perf_counter() - started


def _spec(tensors: list[Any]) -> TensorSpec:
    if len(tensors) != 1 or len(tensors[0].shape) != 2 or not isinstance(tensors[0].shape[1], int):
        raise BadRequest("this server takes models with one input and one output of shape [rows, width]")
    if tensors[0].type not in _ONNX_TYPES:
        raise BadRequest(f"tensor {tensors[0].name!r} has the unsupported type {tensors[0].type}")
    return TensorSpec(tensors[0].name, _ONNX_TYPES[tensors[0].type], tensors[0].shape[1])


@dataclass(frozen=True)
class Emulation:
    """Time of a batch of b rows: (alpha_ms + beta_ms * b) / (int8_factor if INT8), times a log-normal jitter."""

    alpha_ms: float = 20.0
    beta_ms: float = 1.0
    jitter: float = 0.0
    int8_factor: float = 4.0


class EmulatedEngine:
    """Waits as long as an accelerator of these figures would compute; answers zeros. Never mistaken for a measurement:
    the gauge inference_emulated is 1 and the metadata say so."""

    emulated = True

    def __init__(self, emulation: Emulation, seed: int = 0) -> None:
        self._emulation = emulation
        self._random = random.Random(seed)

    def load(self, path: Path | None, precision: str) -> Loaded:
        factor = self._emulation.int8_factor if precision == "int8" else 1.0
        return _EmulatedModel(self._emulation, factor, self._random)

    def close(self) -> None:
        """Nothing to close."""


class _EmulatedModel:
    input = DEFAULT_INPUT
    output = DEFAULT_OUTPUT

    def __init__(self, emulation: Emulation, factor: float, rng: random.Random) -> None:
        self._emulation, self._factor, self._random = emulation, factor, rng

    async def infer(self, rows: np.ndarray) -> tuple[np.ndarray, float]:
        e = self._emulation
        seconds = (e.alpha_ms + e.beta_ms * len(rows)) / self._factor / 1000
        if e.jitter:
            seconds *= self._random.lognormvariate(0.0, e.jitter)
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        return np.zeros((len(rows), self.output.width), np.float32), time.perf_counter() - started
