from __future__ import annotations

import json

import numpy as np
import pytest

from demo.server.protocol import BadRequest, TensorSpec, decode_answer, encode_answer, encode_request, parse_request

SPEC = TensorSpec("features", "FP32", 4)
OUT = TensorSpec("logits", "FP32", 3)
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def _json(**tensor: object) -> bytes:
    given = {"name": "features", "datatype": "FP32", "shape": [2, 4], "data": ROWS.tolist(), **tensor}
    return json.dumps({"id": "7", "inputs": [given]}).encode()


def test_binary_request_round_trip():
    body, length = encode_request("features", ROWS)
    rows, request_id, binary = parse_request(body, str(length), SPEC)
    assert np.array_equal(rows, ROWS)
    assert request_id is None
    assert binary


@pytest.mark.parametrize("data", [ROWS.tolist(), ROWS.ravel().tolist()], ids=["nested", "flat"])
def test_json_request(data: list[object]):
    rows, request_id, binary = parse_request(_json(data=data), None, SPEC)
    assert np.array_equal(rows, ROWS)
    assert request_id == "7"
    assert not binary


@pytest.mark.parametrize("binary", [True, False])
def test_answer_round_trip(binary: bool):
    rows = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    body, headers = encode_answer("ranker", "2", "7", OUT, rows, binary=binary)
    length = headers.get("Inference-Header-Content-Length")
    assert (length is not None) == binary
    document = json.loads(body[: int(length)] if length else body)
    assert (document["model_version"], document["id"]) == ("2", "7")
    assert np.allclose(decode_answer(body, length), rows)


@pytest.mark.parametrize(
    ("body", "length", "says"),
    [
        (b"", None, "not JSON"),
        (b"[" * 100_000, None, "not JSON"),
        (b"[]", None, "JSON object"),
        (b"{}", None, "'inputs'"),
        (_json(name="x"), None, "unknown input 'x'"),
        (_json(datatype="INT64"), None, "FP32"),
        (_json(shape=[2, 5]), None, "shape"),
        (_json(shape=[0, 4]), None, "shape"),
        (_json(shape=[True, 4]), None, "shape"),
        (_json(shape=[3, 4]), None, "8 values"),
        (_json(data=[["a"] * 4] * 2), None, "not numbers"),
        (_json(data=[[1], [1, 2]]), None, "not numbers"),
        (encode_request("features", ROWS)[0], None, "not JSON"),
        (encode_request("features", ROWS)[0], "x", "whole number"),
        (encode_request("features", ROWS)[0], "999999", "999999"),
        (encode_request("features", ROWS)[0][:-4], str(encode_request("features", ROWS)[1]), "28 came"),
        (_json(parameters={"binary_data_size": 32}), None, "needs the header"),
        (_json(parameters={"binary_data_size": "32"}), None, "whole number"),
    ],
)
def test_garbage_is_refused_with_a_sentence(body: bytes, length: str | None, says: str):
    with pytest.raises(BadRequest, match=says):
        parse_request(body, length, SPEC)
