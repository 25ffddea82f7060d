"""FP32 ONNX -> INT8 ONNX, in the format that the runtime needs. Measured: the wrong one is slower than FP32.

ort       ONNX Runtime on x86: QUInt8 asymmetric activations, QInt8 symmetric per-channel weights. With QInt8
          activations the runtime leaves DequantizeLinear-Conv/MatMul unfused (a transformer: 3 times SLOWER than FP32).
tensorrt  QInt8 symmetric activations and weights, biases left in float: TensorRT's parser refuses the INT32 biases
          that ONNX Runtime's quantiser makes by default, and asymmetric zero points.

The same model and rows give the same bytes in every process: names depend on places only, initializers are sorted,
nothing in the file says when, where or by whom it was made.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from tuning.errors import ConfigError, QuantizationRefused
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.onnx_model import LoadedModel, digest_of, first_line

Target = Literal["ort", "tensorrt"]
TARGETS: tuple[str, ...] = get_args(Target)
LAYER_OPS = ("Conv", "Gemm", "MatMul")
TENSORRT_OPS = ("Add", "Conv", "Gemm", "MatMul")
QUANTISED_OPS = ("Quant", "Dequant", "QLinear", "MatMulInteger", "ConvInteger", "DynamicQuant", "QGemm", "MatMulNBits")
"""How the names of operators begin that only an already quantised model has."""
PER_CHANNEL_OPSET = 13
SUFFIX: dict[Target, str] = {"ort": "ort-int8", "tensorrt": "trt-int8"}


@dataclass(frozen=True)
class Artefact:
    """An INT8 model. data: serialized ONNX. layers: what is INT8; excluded: what was left in FP32 on purpose."""

    target: Target
    data: bytes
    digest: str
    source_digest: str
    calibration_digest: str
    layers: tuple[str, ...]
    excluded: tuple[str, ...]


class Quantiser:
    """Makes INT8 artefacts of one model from one set of rows; the ranges are measured once and used for each.

    A context manager, because it works in a temporary folder. QuantizationRefused: the model has no layer that INT8
    could speed up, or ONNX Runtime's quantiser cannot handle it.
    """

    def __init__(self, model: LoadedModel, data: CalibrationData, target: Target, *, batch: int = 32) -> None:
        if target not in TARGETS:
            raise ConfigError(f"{target!r} is no target of quantisation; known: {', '.join(TARGETS)}")
        self.model, self.data, self.target, self.batch = model, data, target, batch
        self._folder = _folder()
        self._prepared: Path | None = None
        self._layers: tuple[str, ...] = ()
        self._after: dict[str, tuple[str, ...]] = {}

    def __enter__(self) -> Quantiser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.cleanup()

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers with weights that can be INT8 (Conv, Gemm, MatMul), in the graph's order."""
        self._prepare()
        return self._layers

    def make(self, *, exclude: Sequence[str] = (), only: Sequence[str] | None = None) -> Artefact:
        """The artefact with the layers `exclude` left in FP32 (or `only` those quantised, for ranking)."""
        prepared = self._prepare()
        out = Path(self._folder.name) / "int8.onnx"
        try:
            with _quiet():
                self._quantise(prepared, out, self._with_companions(exclude), None if only is None else list(only))
            data = _canonical(out)
        except QuantizationRefused:
            raise
        except Exception as error:
            raise QuantizationRefused(
                f"{self.model.name} cannot be quantised for {self.target}: {first_line(error)}"
            ) from error
        done = tuple(n for n in self._layers if n not in exclude and (only is None or n in only))
        return Artefact(
            self.target, data, digest_of(data), self.model.digest, self.data.digest, done, tuple(sorted(exclude))
        )

    def _prepare(self) -> Path:
        """Fold and infer shapes once (a tensor of unknown shape cannot be quantised)."""
        if self._prepared is not None:
            return self._prepared
        import onnx
        from onnxruntime.quantization.shape_inference import quant_pre_process

        # As a file: for a model in memory the pre-processing moves weights into a side file that it then cannot read.
        source, path = Path(self._folder.name) / "source.onnx", Path(self._folder.name) / "prepared.onnx"
        try:
            source.write_bytes(_recent(self.model.data))
            with _quiet():
                quant_pre_process(str(source), str(path), skip_symbolic_shape=True)
            graph = onnx.load(str(path)).graph
        except Exception as error:
            raise QuantizationRefused(f"{self.model.name} cannot be prepared for INT8: {first_line(error)}") from error
        self._layers = _layers(onnx.load_from_string(self.model.data).graph, graph, self.model.name)
        self._after = {name: _followers(graph, name) for name in self._layers}
        self._prepared = path
        return path

    def _with_companions(self, exclude: Sequence[str]) -> list[str]:
        """The excluded layers and what works on their results before the next layer (Relu, Add, ...): left in INT8
        those would round the very values that were to stay exact."""
        return sorted({*exclude, *(name for layer in exclude for name in self._after.get(layer, ()))})

    def _quantise(self, prepared: Path, out: Path, exclude: list[str], only: list[str] | None) -> None:
        from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
        from onnxruntime.quantization.registry import QDQRegistry

        tensorrt = self.target == "tensorrt"
        options: dict[str, Any] = {"WeightSymmetric": True, "ActivationSymmetric": tensorrt}
        if tensorrt:
            options["QuantizeBias"] = False
            # Inputs of a layer only: a Q/DQ pair behind a layer would stand between it and the Relu it fuses with.
            options["OpTypesToExcludeOutputQuantization"] = list(TENSORRT_OPS)
        quantize_static(
            str(prepared),
            str(out),
            _Rows(self.data, self.batch if self.model.fixed_batch is None else self.model.fixed_batch),
            quant_format=QuantFormat.QDQ,
            # A sorted list: the quantiser's own default is list(set(...)), another order in every process.
            op_types_to_quantize=list(TENSORRT_OPS) if tensorrt else sorted(QDQRegistry),
            per_channel=True,
            activation_type=QuantType.QInt8 if tensorrt else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=exclude,
            nodes_to_quantize=only or [],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options=options,
            calibration_cache_path=str(Path(self._folder.name) / "ranges.json"),
        )


def _folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="slotune-int8-")
    except OSError as error:
        raise QuantizationRefused(
            f"there is no folder for temporary files: {first_line(error)}; set TMPDIR to one that can be written"
        ) from error


def _recent(data: bytes) -> bytes:
    """The model in operator set 13 when it is older: the first that can scale weights per channel."""
    import onnx

    model = onnx.load_from_string(data)
    if all(opset.domain or opset.version >= PER_CHANNEL_OPSET for opset in model.opset_import):
        return data
    newer: bytes = onnx.version_converter.convert_version(model, PER_CHANNEL_OPSET).SerializeToString()
    return newer


def _layers(source: Any, prepared: Any, name: str) -> tuple[str, ...]:
    """Names of the layers that can be INT8, or a sentence why there is none. source, prepared: GraphProto."""
    import onnx

    done = sorted({node.op_type for node in source.node if node.op_type.startswith(QUANTISED_OPS)})
    if done:
        raise QuantizationRefused(
            f"{name} is already quantised (it holds {', '.join(done)}): give the FP32 model that it was made from"
        )
    kinds = {tensor.name: tensor.data_type for tensor in source.initializer}
    for node in source.node:
        kind = kinds.get(node.input[1]) if node.op_type in LAYER_OPS else None
        if kind not in (None, onnx.TensorProto.FLOAT):
            raise QuantizationRefused(
                f"the weights of {node.name} in {name} are {onnx.TensorProto.DataType.Name(kind).lower()}: "
                "INT8 is made from the FP32 model"
            )
    weights = {tensor.name for tensor in prepared.initializer}
    layers = [node for node in prepared.node if node.op_type in LAYER_OPS and set(node.input[1:2]) & weights]
    if not layers:
        raise QuantizationRefused(f"{name} has no Conv, Gemm or MatMul with weights: INT8 would bring nothing")
    return tuple(node.name for node in layers)


def _followers(graph: Any, layer: str) -> tuple[str, ...]:
    """Names of the nodes reached from a layer's outputs without passing another layer."""
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    start = next(node for node in graph.node if node.name == layer)
    waiting, found = list(start.output), set[str]()
    while waiting:
        for node in users.get(waiting.pop(), ()):
            if node.op_type not in LAYER_OPS and node.name not in found:
                found.add(node.name)
                waiting.extend(node.output)
    return tuple(sorted(found))


class _Rows:
    """onnxruntime's CalibrationDataReader over rows in batches; a last short batch is dropped."""

    def __init__(self, data: CalibrationData, batch: int) -> None:
        self._feeds = self._batches(data, batch)

    @staticmethod
    def _batches(data: CalibrationData, batch: int) -> Iterator[dict[str, NDArray[Any]]]:
        for start in range(0, max(1, data.rows - data.rows % batch), batch):
            yield {name: array[start : start + batch] for name, array in data.inputs.items()}

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        return next(self._feeds, None)

    def __iter__(self) -> _Rows:
        return self

    def __next__(self) -> dict[str, NDArray[Any]]:
        return next(self._feeds)


def _canonical(path: Path) -> bytes:
    """The file's model with everything removed that does not change what it computes, in a fixed order."""
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    initializers = sorted(graph.initializer, key=lambda tensor: tensor.name)
    infos = sorted(graph.value_info, key=lambda info: info.name)
    nodes = _topological(graph)
    for field, values in (("initializer", initializers), ("value_info", infos), ("node", nodes)):
        copies = [type(value).FromString(value.SerializeToString(deterministic=True)) for value in values]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)
    for node in graph.node:
        node.ClearField("doc_string")
    for name in ("doc_string", "producer_version", "metadata_props"):
        model.ClearField(name)
    opsets = sorted((o.domain, o.version) for o in model.opset_import)
    model.ClearField("opset_import")
    model.opset_import.extend(onnx.helper.make_opsetid(domain, version) for domain, version in opsets)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _topological(graph: Any) -> list[Any]:
    """Nodes in the one topological order that takes the smallest first output name among those that are ready."""
    import heapq

    made = {output: node for node in graph.node for output in node.output}
    waiting = {id(node): {name for name in node.input if name in made} for node in graph.node}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in waiting[id(node)]:
            users.setdefault(name, []).append(node)
    ready = [(node.output[0], i, node) for i, node in enumerate(graph.node) if not waiting[id(node)]]
    heapq.heapify(ready)
    order: list[Any] = []
    while ready:
        _, index, node = heapq.heappop(ready)
        order.append(node)
        for output in node.output:
            for user in users.get(output, ()):
                left = waiting[id(user)]
                left.discard(output)
                if not left:
                    heapq.heappush(ready, (user.output[0], index, user))
    return order


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantiser talks through the root logger; a user reads our table instead."""
    root = logging.getLogger()
    before, root.disabled = root.disabled, True
    try:
        yield
    finally:
        root.disabled = before


def output_noise_db(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Signal-to-noise ratio of `other` against `reference` in dB (higher is closer); inf when equal."""
    signal = float(np.mean(np.square(np.asarray(reference, dtype=np.float64))))
    noise = float(np.mean(np.square(np.asarray(reference, dtype=np.float64) - np.asarray(other, dtype=np.float64))))
    return float("inf") if noise == 0 else float(10 * np.log10(max(signal, 1e-300) / noise))
