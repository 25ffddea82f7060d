"""What a learned policy sees: ratios, whatever the size of the service; gaps are 0; nothing leaves its range."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.policies import TWICE_THE_LOAD, seen
from tuning.planning.features import CLIP, FEATURES, QUANTITIES, vector


def value(name: str, **known: float) -> float:
    return float(vector(seen(**known))[0, FEATURES.index(name)])


@pytest.mark.parametrize(
    ("feature", "known", "expected"),
    [
        ("P95 over its limit, log", {}, math.log(4)),
        ("arrivals over the calm, log", {}, math.log(2)),
        ("growth of arrivals a minute", {"slope": 1.0}, 60 / 200),
        ("slowness, log", {"slow": 2.0}, math.log(2)),
        ("time of a full batch over the limit, log", {}, math.log(0.28)),
        ("time of the largest batch over the limit, log", {}, math.log(0.84)),
        ("share of a full batch that grows with its rows", {}, 8 / 28),
        ("load, log", {}, math.log(200 * 0.028 / 4 / 2)),
        ("load with the largest batch, log", {}, math.log(200 * 0.084 / 32 / 2)),
        ("load, log", {"slow": 2.0}, math.log(200 * 0.056 / 4 / 2)),
        ("room for batches, log", {}, math.log(8) / 2),
        ("room for replicas, log", {}, math.log(4)),
        ("batch wait over the limit", {"timeout_ms": 50.0}, 0.5),
        ("replicas missing, log", {"replicas": 1.0}, math.log(2)),
        ("backlog, minutes", {"backlog": 200 / 0.7 * 60}, 1.0),
        ("batch was tried", {"tried_batch_size": 1.0}, 1.0),
    ],
)
def test_each_says_what_its_name_says(feature, known, expected):
    assert value(feature, **known) == pytest.approx(expected)


def test_a_service_ten_times_as_large_looks_the_same():
    large = {"arrivals": 2000.0, "base_qps": 1000.0, "alpha_ms": 2.0, "beta_ms": 0.2, "limit_ms": 10.0, "p95_ms": 40.0}
    assert vector(seen(**large)) == pytest.approx(vector(seen()))


def test_what_is_not_known_is_zero():
    nothing = {name: np.array([math.nan]) for name in QUANTITIES}
    assert (vector(nothing) == 0.0).all()
    assert value("load, log", alpha_ms=math.nan) == 0.0


def test_many_services_at_once_are_as_one_by_one():
    one, other = seen(), seen(p95_ms=50.0, batch=1.0, replicas=5.0)
    both = {name: np.concatenate([one[name], other[name]]) for name in QUANTITIES}
    assert vector(both) == pytest.approx(np.concatenate([vector(one), vector(other)]))


@given(st.dictionaries(st.sampled_from(sorted(TWICE_THE_LOAD)), st.floats(allow_nan=True, allow_infinity=True)))
def test_whatever_is_measured_it_is_finite_and_within_its_range(known):
    found = vector(seen(**known))
    assert found.shape == (1, len(FEATURES)) and np.isfinite(found).all() and (np.abs(found) <= CLIP).all()
