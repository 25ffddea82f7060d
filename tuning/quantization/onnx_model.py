"""An ONNX model on its way into quantisation: its bytes, what it takes, what it gives, and who it is (its digest)."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.outside_text import printable
from tuning.errors import QuantizationRefused

Arrays = Mapping[str, NDArray[Any]]
MAX_BYTES = 2_000_000_000


@dataclass(frozen=True)
class TensorSpec:
    """One input or output. dtype: numpy's name ("float32"). shape: None where the model leaves a dimension open."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]

    def text(self) -> str:
        dims = "x".join("?" if d is None else str(d) for d in self.shape)
        return f"{self.name}: {self.dtype} [{dims}]"


@dataclass(frozen=True)
class LoadedModel:
    """A checked ONNX model. digest: sha256 of the serialized bytes. data: those bytes, external data pulled in."""

    name: str
    data: bytes
    digest: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def fixed_batch(self) -> int | None:
        """The batch size that the model insists on, None when its first dimension is open."""
        sizes = {spec.shape[0] for spec in self.inputs if spec.shape}
        fixed = {size for size in sizes if size is not None}
        return fixed.pop() if len(fixed) == 1 and None not in sizes else None


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load_model(path: Path) -> LoadedModel:
    """Read and check an ONNX file.

    QuantizationRefused: the file is missing, is no ONNX model, is structurally broken, is larger than 2 GB, has no
    batch dimension, or holds an operator that ONNX Runtime cannot run on this machine.
    """
    import onnx

    if not path.is_file():
        raise QuantizationRefused(f"there is no model at {path}: give the path of an .onnx file")
    try:
        proto = onnx.load(str(path), load_external_data=False)
        _check_size(path.stat().st_size + _external_bytes(proto), str(path))
        _pull_in(proto, path)
    except QuantizationRefused:
        raise
    except Exception as error:  # protobuf's DecodeError, onnx's own errors: all mean the same to a user
        raise QuantizationRefused(
            f"{path} is not a readable ONNX model (corrupt or cut short): {first_line(error)}"
        ) from error
    return from_proto(proto, name=path.stem, where=str(path))


def from_proto(proto: Any, *, name: str, where: str = "") -> LoadedModel:
    """The same checks for a model in memory. `proto`: onnx.ModelProto."""
    import onnx

    where = where or name
    if not proto.graph.node:
        raise QuantizationRefused(f"{where} is not a usable ONNX model: its graph is empty (corrupt or cut short)")
    _check_size(proto.ByteSize(), where)
    proto = _named(proto)
    data = proto.SerializeToString(deterministic=True)
    try:
        onnx.checker.check_model(proto)
    except Exception as error:
        raise QuantizationRefused(f"{where} is not a valid ONNX model: {first_line(error)}") from error
    constants = {tensor.name for tensor in proto.graph.initializer}
    model = LoadedModel(
        name=name,
        data=data,
        digest=digest_of(data),
        inputs=tuple(_spec(value) for value in proto.graph.input if value.name not in constants),
        outputs=tuple(_spec(value) for value in proto.graph.output if value.type.HasField("tensor_type")),
    )
    if not model.inputs or not all(spec.shape for spec in model.inputs):
        raise QuantizationRefused(
            f"{where} has an input without a batch dimension: slotune needs rows as first dimension"
        )
    texts = [spec.name for spec in model.inputs if spec.dtype == "object"]
    if texts:
        raise QuantizationRefused(
            f"{where} takes text ({', '.join(texts)}): slotune feeds numbers only; export it from behind the text input"
        )
    if not model.outputs:
        raise QuantizationRefused(
            f"{where} answers only sequences or maps: slotune compares tensors; export it without (ZipMap off)"
        )
    open_session(model.data, where=where)
    return model


def open_session(data: bytes, *, where: str = "the model", threads: int = 1) -> Any:
    """An onnxruntime.InferenceSession on the CPU with `threads` threads, or a sentence why there is none."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        text = first_line(error)
        if (
            "NOT_IMPLEMENTED" in str(error)
            or "is not a registered function/op" in str(error)
            or "No Op registered" in str(error)
        ):
            raise QuantizationRefused(f"{where} holds an operator that ONNX Runtime cannot run here: {text}") from error
        raise QuantizationRefused(f"ONNX Runtime cannot load {where}: {text}") from error


def predict(session: Any, rows: Arrays, *, batch: int = 32) -> dict[str, NDArray[Any]]:
    """All rows through the session in batches; outputs by name, shape (rows, ...).

    A model with a fixed batch size gets padded batches of that size. Outputs without a row per input row (a scalar
    beside the scores, a list of detections) are left out; QuantizationRefused when there is no other.
    """
    names = [output.name for output in session.get_outputs()]
    first = session.get_inputs()[0].shape[0]
    size = first if isinstance(first, int) else batch
    total = len(next(iter(rows.values())))
    parts: list[list[NDArray[Any] | None]] = []
    for start in range(0, total, size):
        feeds = {name: array[start : start + size] for name, array in rows.items()}
        short = size - len(next(iter(feeds.values()))) if isinstance(first, int) else 0
        if short:
            feeds = {name: np.concatenate([a, np.repeat(a[-1:], short, axis=0)]) for name, a in feeds.items()}
        try:
            answers = session.run(names, feeds)
        except Exception as error:
            raise QuantizationRefused(f"the model cannot run on the given rows: {first_line(error)}") from error
        taken = len(next(iter(feeds.values())))
        parts.append([np.asarray(answer)[: size - short] if _per_row(answer, taken) else None for answer in answers])
    stacked = {name: _stack([part[i] for part in parts]) for i, name in enumerate(names)}
    found = {name: array for name, array in stacked.items() if array is not None}
    if not found:
        raise QuantizationRefused(
            f"none of the model's outputs ({', '.join(names)}) has a row for each input row: "
            "slotune needs rows as first dimension"
        )
    return found


def _per_row(answer: Any, rows: int) -> bool:
    return isinstance(answer, np.ndarray) and answer.ndim > 0 and len(answer) == rows


def _stack(parts: list[Any]) -> NDArray[Any] | None:
    """The batches of one output behind each other; None when it has no row per input row, or rows of other lengths
    in each batch."""
    if any(part is None for part in parts) or len({part.shape[1:] for part in parts}) != 1:
        return None
    return np.concatenate(parts)


def first_line(error: BaseException) -> str:
    """The first telling line of a library's error, without codes and C++ signatures, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = re.sub(
        r"\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+:\d+ [^)]*\) ", "", lines[0] if lines else ""
    )
    return (line.strip() or type(error).__name__)[:300]


def _check_size(size_bytes: int, where: str) -> None:
    if size_bytes > MAX_BYTES:
        raise QuantizationRefused(f"{where} is larger than 2 GB, which ONNX cannot hold in one file: not supported")


def _external_bytes(proto: Any) -> int:
    """What the weights beside the file will take, before they are read: larger than the memory is no crash."""
    sizes = (int(e.value) for t in proto.graph.initializer for e in t.external_data if e.key == "length")
    return sum(sizes)


def _pull_in(proto: Any, path: Path) -> None:
    """Read the weights beside the model. onnx refuses links, as a model cache has them: what they lead to is copied.

    QuantizationRefused: a file is missing or lies elsewhere than below the model's own folder.
    """
    import onnx

    places = {e.value for t in proto.graph.initializer for e in t.external_data if e.key == "location"}
    for place in sorted(places):
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise QuantizationRefused(f"{path} looks for its weights outside its own folder: export it anew")
        if not (path.parent / place).is_file():
            what = "a link to a file that is not there" if (path.parent / place).is_symlink() else "missing"
            raise QuantizationRefused(
                f"{path} keeps its weights in {printable(place, 80)} beside it, which is {what}: copy both files"
            )
    _check_size(sum((path.parent / place).stat().st_size for place in places), str(path))
    if not any(_linked(path.parent, place) for place in places):
        onnx.load_external_data_for_model(proto, str(path.parent))
        return
    with tempfile.TemporaryDirectory(prefix="slotune-weights-") as folder:
        for place in places:
            copy = Path(folder, place)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / place, copy)
        onnx.load_external_data_for_model(proto, folder)


def _linked(folder: Path, place: str) -> bool:
    """Whether a file is a link, has another name as well, or lies in a linked folder."""
    file = folder / place
    return file.is_symlink() or file.stat().st_nlink > 1 or any((folder / p).is_symlink() for p in Path(place).parents)


def _named(proto: Any) -> Any:
    """Give nameless nodes a name that depends on their place only: layers are reported and excluded by name."""
    import onnx

    if all(node.name for node in proto.graph.node) and len({n.name for n in proto.graph.node}) == len(proto.graph.node):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    taken: set[str] = set()
    for index, node in enumerate(copy.graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}"
        taken.add(node.name)
    return copy


def _spec(value: Any) -> TensorSpec:
    import onnx

    tensor = value.type.tensor_type
    dims = tuple(int(d.dim_value) if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    except (KeyError, ValueError, TypeError) as error:
        raise QuantizationRefused(
            f"{value.name} has a type that slotune cannot feed (not a tensor of numbers)"
        ) from error
    return TensorSpec(value.name, dtype, dims)
