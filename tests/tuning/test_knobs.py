"""When two values of a knob are one."""

from __future__ import annotations

import math

import pytest

from tuning.knobs import same, same_knobs
from tuning.model import Setting


@pytest.mark.parametrize(
    ("one", "other", "agree"),
    [
        (8, 8.0, True),
        (3, "3", True),
        ("3", 3, True),
        ("2.5", 2.5, True),
        (0.1 + 0.2, 0.3, True),
        (5e6, 5e6 + 1, True),
        (5.0, 5.001, False),
        (3, "4", False),
        (3, "three", False),
        ("1", "1.0", False),
        ("fp32", "fp32", True),
        ("fp32", "int8", False),
        (1, True, True),
        (1, "true", False),
        (math.nan, math.nan, False),
        (8, None, False),
        (10**400, 10**400, True),
    ],
)
def test_same(one: object, other: object, agree: bool) -> None:
    assert same(one, other) is agree
    assert same(other, one) is agree


def test_every_wanted_knob_has_to_be_found() -> None:
    assert same_knobs({"batch_size": 8}, {"batch_size": 8.0, "x": 1})
    assert not same_knobs({"batch_size": 8}, {})
    assert same_knobs({"min_replicas": 1, "replicas": 5}, {"min_replicas": 1, "replicas": 2})
    assert not same_knobs({"replicas": 5}, {"replicas": 2})
    assert not same_knobs({"version": "1"}, {"version": "2"})


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan"), 10**400])
def test_no_lever_can_be_set_to_what_is_no_finite_number(value):
    with pytest.raises(ValueError, match="values"):
        Setting(lever="batch_size", values={"batch_size": value})


@pytest.mark.parametrize("value", [0, -1, 2**63 - 1, 0.5, "fp32", ""])
def test_what_a_lever_can_be_set_to_comes_back_as_it_was(value):
    made = Setting(lever="x", values={"x": value})
    assert Setting.model_validate_json(made.model_dump_json()) == made and type(made.values["x"]) is type(value)
