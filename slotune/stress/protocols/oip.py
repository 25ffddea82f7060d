"""Open Inference Protocol v2 (Triton, MLServer, KServe, the demo): POST /v2/models/NAME/infer.

Without --body the tensors are drawn from what the model says of its inputs (GET /v2/models/NAME). They go as raw bytes
where the server says that it takes them ("binary_tensor_data"), as JSON otherwise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np

from detection.errors import ConfigError
from slotune.stress.protocols._port import Answer, Ask, Reader, Talk, bodies, request

_TYPES = {
    "BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_HEADER_LENGTH = "Inference-Header-Content-Length"
_LARGEST = 1 << 24


class OpenInference:
    """One request, one answer."""

    name = "oip"
    objectives: tuple[str, ...] = ("p95_ms",)
    streams = False

    async def requests(self, ask: Ask, talk: Talk) -> Sequence[bytes]:
        if not ask.model and not ask.path:
            raise ConfigError("with --protocol oip give --model, the name of the model")
        path = ask.path or f"/v2/models/{quote(ask.model, safe='')}/infer"
        if ask.bodies:
            return [request(ask, "POST", path, body) for body in bodies(ask)]
        if not ask.model:
            raise ConfigError("with --protocol oip give --model, or --body FILE beside --path")
        inputs = _inputs(ask, await talk(request(ask, "GET", f"/v2/models/{quote(ask.model, safe='')}")))
        binary = b"binary_tensor_data" in (await talk(request(ask, "GET", "/v2"))).body
        rng = np.random.default_rng(ask.seed)
        made = [_drawn(inputs, rng, binary=binary) for _ in range(ask.count)]
        if not binary:
            return [request(ask, "POST", path, text) for text, _ in made]
        return [
            request(ask, "POST", path, text + raw, "application/octet-stream", [(_HEADER_LENGTH, str(len(text)))])
            for text, raw in made
        ]

    def reader(self) -> Reader:
        raise NotImplementedError("answers of this protocol are not streamed")

    def check(self, answer: Answer) -> str | None:
        head = answer.head.lower()
        start = head.find(_HEADER_LENGTH.lower().encode() + b":")
        text = answer.body
        if start >= 0:
            length = head[start + len(_HEADER_LENGTH) + 1 :].split(b"\r\n")[0].strip()
            text = text[: int(length)] if length.isdigit() else text
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            return "its answer is not JSON, so no Open Inference Protocol"
        if not isinstance(document, dict) or not isinstance(document.get("outputs"), list):
            return "its answer has no `outputs`, so is no Open Inference Protocol"
        return None


def _inputs(ask: Ask, answer: Answer) -> list[dict[str, Any]]:
    """[{"name", "datatype", "shape"}] with every open dimension 1."""
    where = f"{ask.address}/v2/models/{ask.model}"
    if answer.status != 200:
        raise ConfigError(f"answered {answer.status}: is --model right?", where=where)
    try:
        inputs = json.loads(answer.body)["inputs"]
        known: list[dict[str, Any]] = [
            {"name": str(one["name"]), "datatype": str(one["datatype"]), "shape": [int(n) for n in one["shape"]]}
            for one in inputs
        ]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConfigError("says nothing of the model's inputs: give --body FILE", where=where) from None
    for one in known:
        if one["datatype"] not in _TYPES:
            raise ConfigError(f"the input {one['name']!r} is {one['datatype']}: give --body FILE", where=where)
        one["shape"] = [n if n > 0 else 1 for n in one["shape"]]
        if math.prod(one["shape"]) > _LARGEST:
            raise ConfigError(f"the input {one['name']!r} is too large to be drawn: give --body FILE", where=where)
    return known


def _drawn(inputs: Sequence[dict[str, Any]], rng: np.random.Generator, *, binary: bool) -> tuple[bytes, bytes]:
    """(JSON part, raw tensors) with random values: standard normal, whole numbers 0 .. 100."""
    tensors, raw = [], b""
    for one in inputs:
        kind = np.dtype(_TYPES[one["datatype"]])
        drawn = rng.standard_normal(one["shape"]) if kind.kind == "f" else rng.integers(0, 100, one["shape"])
        values = np.ascontiguousarray(drawn.astype(kind) if kind.kind != "b" else drawn > 50)
        if binary:
            raw += values.tobytes()
            tensors.append({**one, "parameters": {"binary_data_size": values.nbytes}})
        else:
            tensors.append({**one, "data": values.ravel().tolist()})
    document: dict[str, object] = {"inputs": tensors}
    if binary:
        document["parameters"] = {"binary_data_output": True}
    return json.dumps(document).encode(), raw
