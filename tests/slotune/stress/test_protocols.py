"""What every protocol owes: whole requests that say their length, and a sentence for answers of another one."""

from __future__ import annotations

import asyncio
import json

import pytest

from detection.errors import ConfigError
from detection.http_access import address
from slotune.stress.protocols import REGISTRY, Answer, Ask, get, read_bodies

METADATA = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}, {"name": "n", "datatype": "INT64", "shape": [1]}]}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json"


def served(extensions: str = ""):
    async def talk(request: bytes) -> Answer:
        if request.startswith(b"GET /up/v2/models/m HTTP"):
            return Answer(200, HEAD, json.dumps(METADATA).encode())
        return Answer(200, HEAD, json.dumps({"extensions": [extensions]}).encode())

    return talk


def made(name: str, talk=None, **asked: object) -> list[bytes]:
    ask = Ask(address("http://host:8000/up"), **asked)
    return list(asyncio.run(get(name).requests(ask, talk or served())))


GOOD = {
    "json": ({"path": "/predict", "bodies": (b'{"n": {{number}}}',)}, b'{"y": 1}'),
    "oip": ({"model": "m"}, b'{"outputs": []}'),
    "openai": ({"model": "m"}, b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'),
}


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_requests_are_whole_and_their_answers_are_known(name):
    asked, good = GOOD[name]
    for request in made(name, count=3, headers=(("Authorization", "Bearer t"),), **asked):
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST /up/") and b"\r\nHost: host:8000\r\n" in head
        assert f"\r\nContent-Length: {len(body)}".encode() in head and b"Bearer t" in head
    assert get(name).check(Answer(200, HEAD, good)) is None
    assert get(name).check(Answer(200, HEAD, b"<html>hello</html>"))
    assert REGISTRY[name].name == name and REGISTRY[name].objectives


@pytest.mark.parametrize(
    ("name", "asked", "words"),
    [
        ("json", {"bodies": (b"{}",)}, "give --path"),
        ("json", {"path": "/x"}, "give --body"),
        ("json", {"path": "/x", "bodies": (b"{",)}, "is not JSON"),
        ("oip", {}, "give --model"),
        ("oip", {"path": "/x"}, "give --model"),
        ("openai", {}, "give --model"),
        ("openai", {"bodies": (b"[]",)}, "no JSON object"),
    ],
)
def test_what_is_missing_is_a_sentence(name, asked, words):
    with pytest.raises(ConfigError, match=words):
        made(name, **asked)


def test_tensors_are_drawn_from_the_models_own_words():
    request = made("oip", model="m", count=1)[0]
    inputs = json.loads(request.partition(b"\r\n\r\n")[2])["inputs"]
    assert [(i["name"], i["datatype"], i["shape"], len(i["data"])) for i in inputs] == [("x", "FP32", [1, 4], 4), ("n", "INT64", [1], 1)]
    head, _, body = made("oip", served("binary_tensor_data"), model="m", count=1)[0].partition(b"\r\n\r\n")
    length = int(head.partition(b"Inference-Header-Content-Length: ")[2].split(b"\r\n")[0])
    sizes = [i["parameters"]["binary_data_size"] for i in json.loads(body[:length])["inputs"]]
    assert sizes == [16, 8] and len(body) == length + 24


def test_inputs_that_cannot_be_drawn_ask_for_a_body():
    async def strings(_request: bytes) -> Answer:
        return Answer(200, HEAD, json.dumps({"inputs": [{"name": "t", "datatype": "BYTES", "shape": [1]}]}).encode())

    async def missing(_request: bytes) -> Answer:
        return Answer(404, HEAD, b"")

    with pytest.raises(ConfigError, match="'t' is BYTES: give --body"):
        made("oip", strings, model="m")
    with pytest.raises(ConfigError, match="answered 404: is --model right"):
        made("oip", missing, model="m")


def test_places_are_filled_in_and_lines_are_bodies(tmp_path):
    bodies = [r.partition(b"\r\n\r\n")[2] for r in made("json", path="/p", count=4, bodies=(b'[{{number}}, {{random}}, "{{uuid}}"]',))]
    numbers = [json.loads(b)[0] for b in bodies]
    assert numbers == [0, 1, 2, 3] and len({json.loads(b)[2] for b in bodies}) == 4
    (tmp_path / "b.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert read_bodies(tmp_path / "b.jsonl") == (b'{"a": 1}', b'{"a": 2}')
    (tmp_path / "empty.json").write_text(" \n")
    for file, words in (("empty.json", "is empty"), ("gone.json", "cannot be read")):
        with pytest.raises(ConfigError, match=words):
            read_bodies(tmp_path / file)


@pytest.mark.parametrize(
    ("pieces", "tokens", "whole"),
    [
        ([b'data: {"choices": [{"text": "a"}]}\n\nda', b'ta: {"choices": [{"text": "b"}]}\n\ndata: [DONE]\n\n'], 2, True),
        ([b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n', b'data: {"choices": [{"delta": {"content": "hi"}}]}\n\n', b"data: [DONE]\n"], 1, True),
        ([b'data: {"choices": [{"text": "a"}]}\n\n'], 1, False),
        ([b'data: {"error": {"message": "no"}}\n\ndata: [DONE]\n\n'], 0, False),
        ([b"data: {broken\n\ndata: [DONE]\n\n"], 0, False),
        ([b'data: {"choices": [], "usage": {"total_tokens": 3}}\n\ndata: [DONE]\n\n'], 0, True),
    ],
)
def test_a_stream_is_read_token_by_token(pieces, tokens, whole):
    reader = get("openai").reader()
    for piece in pieces:
        reader.feed(piece)
    assert (len(reader.times), reader.whole) == (tokens, whole)
