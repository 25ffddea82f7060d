"""A serialized TensorRT engine from an ONNX model, and the manifest that keeps it from being loaded elsewhere.

Works with `tensorrt` (on a machine with the GPU) and with `tensorrt_rtx` (the same API; it builds for a named compute
capability on a machine WITHOUT a GPU). Networks are strongly typed: the precision is what the QDQ nodes say, nothing is
guessed. An engine of TensorRT-RTX is for the TensorRT-RTX runtime, not for Triton's tensorrt_plan platform.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from detection.model import Value
from tuning.errors import QuantizationRefused
from tuning.quantization.onnx_model import LoadedModel, digest_of, first_line

PACKAGES = ("tensorrt", "tensorrt_rtx")
DEFAULT_WORKSPACE = 1 << 30
MAX_WORKSPACE = 1 << 50
ENGINE_PLAN, ENGINE_FACTS = "model.plan", "engine.json"
BuildProgress = Callable[[str, float], None]
"""progress(phase, share of the phase done 0..1)."""


class EngineFacts(Value):
    """What an engine was built from and for. compute_capability: "8.9"; batch: (smallest, best, largest)."""

    runtime: str
    tensorrt_version: str
    compute_capability: str
    source_digest: str
    calibration_digest: str = ""
    precision: str
    batch: tuple[int, int, int]
    digest: str


@dataclass(frozen=True)
class Engine:
    """A serialized engine with its facts. timing_cache: hand it to the next build here, it is then faster."""

    data: bytes
    facts: EngineFacts
    timing_cache: bytes = b""


@dataclass(frozen=True)
class Profile:
    """The batch sizes that the engine has to take, and the one that it is tuned for."""

    smallest: int = 1
    best: int = 8
    largest: int = 32

    def check(self) -> None:
        if not 1 <= self.smallest <= self.best <= self.largest:
            raise QuantizationRefused(
                f"the engine's batch sizes must satisfy 1 <= smallest <= best <= largest, got "
                f"{self.smallest}, {self.best}, {self.largest}"
            )


def find_tensorrt() -> ModuleType:
    """The TensorRT package that is installed, the full one first; QuantizationRefused names how to get one."""
    for name in PACKAGES:
        try:
            return importlib.import_module(name)
        except (ImportError, OSError):
            continue
    raise QuantizationRefused(
        "TensorRT is not installed here: install slotune[tensorrt] on a machine with the GPU, "
        "or slotune[tensorrt-rtx] anywhere"
    )


def capability_of(text: str) -> str:
    """ "8.9" from "8.9", "89" or "sm_89"; QuantizationRefused for anything else."""
    found = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", text.strip().lower())
    if not found:
        raise QuantizationRefused(f"{text!r} is no compute capability: write it like 8.9")
    return f"{found[1]}.{found[2]}"


def limit_of(text: str) -> int:
    """Bytes from "512MiB", "2GiB" or a plain number of bytes."""
    found = re.fullmatch(r"(\d+)\s*(kib|mib|gib)?", text.strip().lower())
    if not found or int(found[1]) == 0:
        raise QuantizationRefused(f"{text!r} is no memory limit: write it like 512MiB or 2GiB")
    size = int(found[1]) * {None: 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}[found[2]]
    if size > MAX_WORKSPACE:
        raise QuantizationRefused(f"{text!r} is more memory than any machine has: write it like 2GiB")
    return size


def build_engine(
    onnx_data: bytes,
    source: LoadedModel,
    *,
    precision: str,
    profile: Profile | None = None,
    compute_capability: str | None = None,
    calibration_digest: str = "",
    workspace_bytes: int = DEFAULT_WORKSPACE,
    timing_cache: bytes = b"",
    progress: BuildProgress | None = None,
    trt: ModuleType | None = None,
) -> Engine:
    """Build an engine from `onnx_data` (the FP32 model or a "tensorrt" artefact of `source`).

    compute_capability: needed by TensorRT-RTX without a GPU; full TensorRT builds for the GPU that is there, and a
    different wish is refused. QuantizationRefused carries the parser's words (which node, which operator, why).
    """
    trt = trt or find_tensorrt()
    profile = profile or Profile()
    profile.check()
    logger = _logger(trt)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, logger, onnx_data, source.name)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace_bytes)
    capability = _set_capability(trt, config, compute_capability)
    batch = _add_profile(builder, network, config, profile, logger)
    monitor = None if progress is None else _monitor(trt, progress)
    if monitor is not None:
        config.progress_monitor = monitor
    cache = _add_cache(trt, config, timing_cache)
    built = builder.build_serialized_network(network, config)
    if monitor is not None and monitor.failed is not None:
        raise monitor.failed
    if built is None:
        raise QuantizationRefused(f"TensorRT cannot build {source.name}: {logger.why()}")
    data = bytes(built)
    facts = EngineFacts(
        runtime=trt.__name__,
        tensorrt_version=str(trt.__version__),
        compute_capability=capability,
        source_digest=source.digest,
        calibration_digest=calibration_digest,
        precision=precision,
        batch=batch,
        digest=digest_of(data),
    )
    return Engine(data, facts, _cache_bytes(cache))


def check_engine(
    data: bytes,
    facts: EngineFacts,
    *,
    tensorrt_version: str,
    compute_capability: str,
    source_digest: str,
    calibration_digest: str,
    runtime: str | None = None,
) -> None:
    """Before an engine is loaded: QuantizationRefused that lists every way in which it does not fit this place."""
    pairs = [
        ("its bytes", digest_of(data)[:12], facts.digest[:12]),
        ("TensorRT", tensorrt_version, facts.tensorrt_version),
        ("compute capability", capability_of(compute_capability), facts.compute_capability),
        ("model", source_digest[:12], facts.source_digest[:12]),
        ("calibration data", calibration_digest[:12], facts.calibration_digest[:12]),
        ("runtime", runtime or facts.runtime, facts.runtime),
    ]
    wrong = [f"{what} is {here}, the engine is for {there}" for what, here, there in pairs if here != there]
    if wrong:
        raise QuantizationRefused(f"this engine must not be loaded here: {'; '.join(wrong)}")


def engine_files(engine: Engine) -> dict[str, bytes]:
    """Name and content of an engine's files; the manifest last, so that a plan without one is unfinished."""
    facts = json.dumps(engine.facts.model_dump(mode="json"), indent=2, sort_keys=True) + "\n"
    return {ENGINE_PLAN: engine.data, ENGINE_FACTS: facts.encode()}


def read_engine(folder: Path) -> tuple[bytes, EngineFacts]:
    """What was written from `engine_files`; QuantizationRefused when a part is missing or unreadable."""
    try:
        facts = EngineFacts.model_validate_json((folder / ENGINE_FACTS).read_bytes())
        return (folder / ENGINE_PLAN).read_bytes(), facts
    except (OSError, ValueError) as error:
        raise QuantizationRefused(f"{folder} holds no complete engine (model.plan and engine.json)") from error


def device_capability() -> str | None:
    """Compute capability of the first GPU of this machine through its driver, None without one."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return None
    # 75 and 76: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR.
    if driver.cuDeviceGetAttribute(ctypes.byref(major), 75, device):
        return None
    if driver.cuDeviceGetAttribute(ctypes.byref(minor), 76, device):
        return None
    return f"{major.value}.{minor.value}"


def _set_capability(trt: ModuleType, config: Any, wanted: str | None) -> str:
    here = device_capability()
    text = wanted if wanted is not None else here
    if text is None:
        raise QuantizationRefused("there is no GPU here: name the compute capability to build for, e.g. 8.9")
    capability = capability_of(text)
    if not hasattr(config, "set_compute_capability"):
        if here != capability:
            raise QuantizationRefused(
                f"full TensorRT builds for the GPU that is there ({here or 'none'}), not for {capability}: "
                "build on such a GPU"
            )
        return capability
    name = f"SM{capability.replace('.', '')}"
    known = trt.ComputeCapability.__members__
    if name not in known:
        names = ", ".join(f"{k[2:-1]}.{k[-1]}" for k in known if k.startswith("SM"))
        raise QuantizationRefused(f"{trt.__name__} {trt.__version__} cannot build for {capability}; it knows {names}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(known[name], 0)
    return capability


def _parse(trt: ModuleType, network: Any, logger: Any, data: bytes, name: str) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse(data):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    words = []
    for error in errors[:3]:
        node = f" at node {error.node_name()} ({error.node_operator()})" if error.node_name() else ""
        code = str(error.code()).rpartition(".")[2].lower().replace("_", " ")
        words.append(f"{code}{node}: {first_line(Exception(error.desc()))}")
    raise QuantizationRefused(f"TensorRT cannot read {name}: {'; '.join(words) or logger.why()}")


def _add_profile(builder: Any, network: Any, config: Any, profile: Profile, logger: Any) -> tuple[int, int, int]:
    """One optimisation profile over the batch dimension; a model with a fixed batch needs none."""
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    fixed = {int(tensor.shape[0]) for tensor in inputs if -1 not in tuple(tensor.shape)}
    if len(fixed) == 1 and all(-1 not in tuple(tensor.shape) for tensor in inputs):
        size = fixed.pop()
        if (profile.smallest, profile.largest) != (size, size):
            raise QuantizationRefused(
                f"the model takes batches of exactly {size} rows: ask for the profile {size}, {size}, {size}"
            )
        return size, size, size
    added = builder.create_optimization_profile()
    for tensor in inputs:
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise QuantizationRefused(
                f"{tensor.name} has more open dimensions than the batch ({list(shape)}): fix them first"
            )
        sizes = (profile.smallest, profile.best, profile.largest)
        added.set_shape(tensor.name, *((size, *shape[1:]) for size in sizes))
    if not added or config.add_optimization_profile(added) < 0:
        raise QuantizationRefused(f"TensorRT does not take the batch sizes {profile}: {logger.why()}")
    return profile.smallest, profile.best, profile.largest


def _add_cache(trt: ModuleType, config: Any, data: bytes) -> Any:
    """A timing cache, from `data` where it is one of this TensorRT and GPU; TensorRT-RTX times nothing: None."""
    if trt.__name__ != "tensorrt":
        return None
    cache = config.create_timing_cache(data)
    if cache is None and data:
        cache = config.create_timing_cache(b"")
    if cache is not None and not config.set_timing_cache(cache, False):
        return None
    return cache


def _cache_bytes(cache: Any) -> bytes:
    return bytes(cache.serialize()) if cache is not None else b""


def _logger(trt: ModuleType) -> Any:
    class Words(trt.ILogger):  # type: ignore[misc,name-defined]
        """Keeps TensorRT's errors instead of printing them."""

        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            # Without a GPU every start says so (CUDA error 35); it is no reason for anything.
            if severity <= trt.ILogger.ERROR and "CUDA" not in message and "cuda" not in message:
                self.errors.append(message)

        def why(self) -> str:
            return first_line(Exception(self.errors[-1])) if self.errors else "it gave no reason"

    return Words()


def _monitor(trt: ModuleType, progress: BuildProgress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc,name-defined]
        """Hands TensorRT's phases on. What the callback raises ends the build and is kept: TensorRT would lose it."""

        def __init__(self) -> None:
            super().__init__()
            self.steps: dict[str, int] = {}
            self.failed: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = max(1, steps)
            self._tell(phase, 0.0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, min(1.0, (step + 1) / self.steps.get(phase, 1)))
            return self.failed is None

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, 1.0)

        def _tell(self, phase: str, share: float) -> None:
            try:
                if self.failed is None:
                    progress(phase, share)
            except BaseException as error:  # raised again when the build has ended
                self.failed = error

    return Monitor()
