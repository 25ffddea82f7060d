"""What a control endpoint may answer: finite, bounded values, or a sentence."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tuning.actuators import _answers as answers
from tuning.actuators.http_config import HttpConfig
from tuning.errors import ControlRefused, ControlUnreachable

DIGITS = b"1" + b"0" * 400
RANKER = service("batch_size", "http_config", connection="c", request_timeout_s=5.0)


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [
        (8, 8, 8.0),
        (8.0, 8, 8.0),
        (8.5, None, 8.5),
        (0, 0, 0.0),
        (-1, None, None),
        (True, None, None),
        ("8", None, None),
        (None, None, None),
        (math.inf, None, None),
        (math.nan, None, None),
        (2**53, 2**53, 2.0**53),
        (2**53 + 1, None, None),
        (10**400, None, None),
        (1e300, None, None),
    ],
)
def test_numbers(value: object, whole: int | None, number: float | None) -> None:
    assert answers.whole(value) == whole
    assert answers.number(value) == number


@pytest.mark.parametrize(
    ("value", "version"),
    [
        ("7", "7"), (7, "7"), ("007", "7"), ("\u00b2", None), ("\u0661", None), ("9" * 19, None), ("-1", None), ("1.0", None),
        ("", None), ([1], None), (True, None), ("7\n", None),
    ],
)  # fmt: skip
def test_versions(value: object, version: str | None) -> None:
    assert answers.version(value) == version


@pytest.mark.parametrize("deep", [b"[" * 100_000, b"[" * 80 + b"]" * 80, b'{"a":' * 70 + b"1" + b"}" * 70])
def test_depth_is_bounded(deep: bytes) -> None:
    with pytest.raises(answers.Unusable, match="deeper than 64"):
        answers.parse(deep)
    assert answers.parse(b"[" * 60 + b"]" * 60) is not None


@given(st.binary(max_size=400))
def test_bytes_are_a_value_or_a_sentence(data: bytes) -> None:
    try:
        answers.parse(data)
    except answers.Unusable as error:
        assert str(error)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_comes_through(value: object) -> None:
    assert json.dumps(answers.parse(json.dumps(value).encode())) == json.dumps(value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"batch_size": 1e309}', r"no usable batch_size \(inf\)"),
        (b'{"batch_size": ' + DIGITS + b"}", r"no usable batch_size \(inf\)"),
        (b'{"batch_size": 9007199254740993}', r"no usable batch_size \(9007199254740993\)"),
        (b'{"batch_size": 8, "batch_timeout_ms": 1e309}', r"no usable batch_timeout_ms \(inf\)"),
        (b'{"batch_size": 8, "batch_timeout_ms": NaN}', r"no usable batch_timeout_ms \(nan\)"),
        (b'{"batch_size": 8, "batch_timeout_ms": -1}', r"no usable batch_timeout_ms \(-1\)"),
        (b'{"batch_size": 8, "batch_timeout_ms": "2"}', r"no usable batch_timeout_ms \('2'\)"),
        (b'{"batch_size": 8, "batch_timeout_ms": ' + DIGITS + b"}", r"no usable batch_timeout_ms \(inf\)"),
        (b'{"batch_size": 8, "batch_timeout_ms": true}', r"no usable batch_timeout_ms \(True\)"),
        (b'{"batch_size": "\\ud800"}', r"no usable batch_size \('\\ud800'\)"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b"\xff\xfe\xfa", "not JSON"),
        (b'{"batch_size": 8', "not JSON"),
    ],
)
def test_what_cannot_be_used_is_named(body: bytes, words: str) -> None:
    time = FakeTime()
    with config_endpoint() as endpoint:
        endpoint.plan = [("GET", body)]
        with pytest.raises(ControlRefused, match=words) as caught:
            HttpConfig(FakeConnections({"c": endpoint.url}), time.clock, time.sleep).read(RANKER)
    str(caught.value).encode()


@pytest.mark.parametrize(
    ("body", "values"),
    [
        (b'{"batch_size": 8, "batch_timeout_ms": null}', {"batch_size": 8}),
        (b'{"batch_size": 8.0, "other": 1e309, "more": "\\ud800"}', {"batch_size": 8}),
        (b'\xef\xbb\xbf{"batch_size": 8, "batch_timeout_ms": 0}', {"batch_size": 8, "batch_timeout_ms": 0.0}),
    ],
)
def test_what_stands_beside_the_setting_matters_nothing(body: bytes, values: dict[str, object]) -> None:
    time = FakeTime()
    with config_endpoint() as endpoint:
        endpoint.plan = [("GET", body)]
        setting = HttpConfig(FakeConnections({"c": endpoint.url}), time.clock, time.sleep).read(RANKER)
    assert setting.values == values
    assert type(setting).model_validate_json(setting.model_dump_json()) == setting


@pytest.mark.parametrize(("status", "error"), [(302, ControlRefused), (503, ControlUnreachable), (404, ControlRefused)])
def test_a_status_is_a_sentence(status: int, error: type[Exception]) -> None:
    time = FakeTime()
    with config_endpoint() as endpoint:
        endpoint.plan = [("GET", status)]
        with pytest.raises(error, match=f"answered {status}"):
            HttpConfig(FakeConnections({"c": endpoint.url}), time.clock, time.sleep).read(RANKER)
