"""Open Inference Protocol v2 on the wire: JSON tensors and the binary tensor extension.

The binary extension puts the raw little-endian tensors behind the JSON part; the header
`Inference-Header-Content-Length` says how long the JSON part is. Parsing must stay cheap: the JSON part of a client's
requests is nearly always the same bytes, so what it says is cached by those bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

HEADER_LENGTH = "Inference-Header-Content-Length"
DTYPES: dict[str, str] = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


class BadRequest(ValueError):
    """The request cannot be understood; the text is the sentence for the caller."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor of a model: name, protocol datatype, width (the shape is [rows, width])."""

    name: str
    datatype: str
    width: int

    def metadata(self) -> dict[str, object]:
        return {"name": self.name, "datatype": self.datatype, "shape": [-1, self.width]}


@dataclass(frozen=True, slots=True)
class _Head:
    """What the JSON part says about the one input. nbytes: size of its binary tensor, None when it is in `data`."""

    request_id: str | None
    shape: tuple[int, ...]
    nbytes: int | None
    data: Any
    binary_output: bool


def parse_request(body: bytes, json_length: str | None, spec: TensorSpec) -> tuple[np.ndarray, str | None, bool]:
    """Body -> (rows [n, width], request id, whether the answer shall be binary). Raises BadRequest."""
    if json_length is None:
        head = _parse_head.__wrapped__(body, spec)  # JSON data differ each time: not worth a cache
    else:
        split = _header_length(json_length, len(body))
        head = _parse_head(body[:split], spec)
    if head.nbytes is None:
        rows = _from_json(head, spec)
    else:
        if json_length is None:
            raise BadRequest(f"binary_data_size needs the header {HEADER_LENGTH}")
        rows = _from_binary(body, split, head, spec)
    return rows, head.request_id, head.binary_output


def _header_length(text: str, size: int) -> int:
    try:
        length = int(text)
    except ValueError:
        raise BadRequest(f"{HEADER_LENGTH} must be a whole number, not {text[:40]!r}") from None
    if not 0 < length <= size:
        raise BadRequest(f"{HEADER_LENGTH} is {length}, but the body has {size} bytes")
    return length


@lru_cache(maxsize=256)
def _parse_head(text: bytes, spec: TensorSpec) -> _Head:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise BadRequest("the body is not JSON") from None
    if not isinstance(document, dict):
        raise BadRequest("the body must be a JSON object")
    inputs = document.get("inputs")
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise BadRequest(f"'inputs' must be a list with the one tensor {spec.name!r}")
    tensor = inputs[0]
    if tensor.get("name") != spec.name:
        raise BadRequest(f"unknown input {str(tensor.get('name'))[:40]!r}; the model's input is {spec.name!r}")
    if tensor.get("datatype") != spec.datatype:
        given = str(tensor.get("datatype"))[:40]
        raise BadRequest(f"input {spec.name!r} must have datatype {spec.datatype}, not {given!r}")
    nbytes = (tensor.get("parameters") or {}).get("binary_data_size")
    if nbytes is not None and not isinstance(nbytes, int):
        raise BadRequest("binary_data_size must be a whole number of bytes")
    if nbytes is None and "data" not in tensor:
        raise BadRequest(f"input {spec.name!r} has neither 'data' nor 'binary_data_size'")
    request_id = document.get("id")
    return _Head(
        request_id=None if request_id is None else str(request_id)[:200],
        shape=_shape(tensor.get("shape"), spec),
        nbytes=nbytes,
        data=tensor.get("data"),
        binary_output=_wants_binary(document),
    )


def _shape(shape: object, spec: TensorSpec) -> tuple[int, ...]:
    right = (
        isinstance(shape, list)
        and len(shape) == 2
        and all(isinstance(n, int) and not isinstance(n, bool) for n in shape)
        and shape[0] >= 1
        and shape[1] == spec.width
    )
    if not right:
        raise BadRequest(f"input {spec.name!r} must have shape [rows, {spec.width}], not {str(shape)[:60]}")
    return tuple(shape)  # type: ignore[arg-type]


def _wants_binary(document: dict[str, Any]) -> bool:
    if (document.get("parameters") or {}).get("binary_data_output") is True:
        return True
    outputs = document.get("outputs") or []
    return bool(outputs) and all(
        isinstance(o, dict) and (o.get("parameters") or {}).get("binary_data") is True for o in outputs
    )


def _from_json(head: _Head, spec: TensorSpec) -> np.ndarray:
    try:
        rows = np.asarray(head.data, dtype=DTYPES[spec.datatype])
    except (TypeError, ValueError):
        raise BadRequest(f"the data of input {spec.name!r} are not numbers of one shape") from None
    if rows.size != head.shape[0] * head.shape[1]:
        raise BadRequest(f"input {spec.name!r} has {rows.size} values, its shape says {list(head.shape)}")
    return rows.reshape(head.shape)


def _from_binary(body: bytes, offset: int, head: _Head, spec: TensorSpec) -> np.ndarray:
    dtype = np.dtype(DTYPES[spec.datatype])
    expected = head.shape[0] * head.shape[1] * dtype.itemsize
    if head.nbytes != expected or len(body) - offset != expected:
        raise BadRequest(
            f"input {spec.name!r} of shape {list(head.shape)} takes {expected} bytes; binary_data_size says "
            f"{head.nbytes} and {len(body) - offset} came"
        )
    return np.frombuffer(body, dtype, offset=offset).reshape(head.shape)


def encode_answer(
    model: str, version: str, request_id: str | None, spec: TensorSpec, rows: np.ndarray, *, binary: bool
) -> tuple[bytes, dict[str, str]]:
    """Output rows -> (body, headers of the answer)."""
    output: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(rows.shape)}
    document: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": [output]}
    if request_id is not None:
        document["id"] = request_id
    if not binary:
        output["data"] = rows.ravel().tolist()
        return json.dumps(document).encode(), {"Content-Type": "application/json"}
    raw = np.ascontiguousarray(rows, DTYPES[spec.datatype]).tobytes()
    output["parameters"] = {"binary_data_size": len(raw)}
    text = json.dumps(document).encode()
    return text + raw, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(text))}


def encode_request(name: str, rows: np.ndarray) -> tuple[bytes, int]:
    """FP32 rows [n, width] -> (body, length of the JSON part) of a binary request: the client's side."""
    raw = np.ascontiguousarray(rows, "<f4").tobytes()
    tensor = {
        "name": name,
        "datatype": "FP32",
        "shape": list(rows.shape),
        "parameters": {"binary_data_size": len(raw)},
    }
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return text + raw, len(text)


def decode_answer(body: bytes, json_length: str | None) -> np.ndarray:
    """The first output of an answer as an array: the client's side."""
    split = int(json_length) if json_length else len(body)
    output = json.loads(body[:split])["outputs"][0]
    dtype = DTYPES[output["datatype"]]
    flat = np.frombuffer(body, dtype, offset=split) if json_length else np.asarray(output["data"], dtype)
    return flat.reshape(output["shape"])
