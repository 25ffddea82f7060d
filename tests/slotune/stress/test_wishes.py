"""What may be written on the command line, and the sentence for what may not."""

from __future__ import annotations

import pytest

from detection.errors import ConfigError
from detection.model import Slo
from slotune.stress import wishes
from slotune.stress.protocols import REGISTRY, get


@pytest.mark.parametrize(
    ("to", "first", "present", "start", "most"),
    [
        ("200/s", "", None, 20.0, 200.0),
        ("200", "5/s", None, 5.0, 200.0),
        ("10x", "", 30.0, 33.0, 300.0),
        ("10x", "4/s", None, 4.0, 40.0),
        ("100/s", "", 5.0, 10.0, 100.0),
        ("31/s", "", 30.0, 30.5, 31.0),
        ("100/s", "", 0.0, 10.0, 100.0),
    ],
)
def test_rates(to, first, present, start, most):
    found = wishes.rates(to, first, present)
    assert found[:2] == (pytest.approx(start), pytest.approx(most))
    assert present is None or found[0] > present
    assert 1.05 <= found[2] <= 1.5


@pytest.mark.parametrize(
    ("to", "first", "present", "words"),
    [
        ("", "", None, "give --to, the rate that is never passed"),
        ("10x", "", None, "nobody knows it"),
        ("10x", "", 0.0, "it gets none"),
        ("25/s", "", 30.0, "does not lie above what the service gets already"),
        ("0.5x", "", 30.0, "does not lie above what the service gets already"),
        ("fast", "", None, "'fast' is not a number"),
        ("-3/s", "", None, "is not a number above 0"),
        ("nan", "", None, "is not a number above 0"),
        ("100/s", "200/s", None, "does not lie below --to"),
        ("100/s", "10/s", 30.0, "lies below what the service gets already"),
        ("90000x", "", 30.0, "this generator ends at"),
    ],
)
def test_rates_that_make_no_sense_end_in_a_sentence(to, first, present, words):
    with pytest.raises(ConfigError, match=words.replace("--", "--")):
        wishes.rates(to, first, present)


def test_limits_are_those_of_the_slo_as_far_as_the_protocol_measures_them():
    slo = Slo(p95_ms=100.0, ttft_p95_ms=500.0)
    assert wishes.limits((), slo, get("oip")) == {"p95_ms": 100.0}
    assert wishes.limits((), slo, get("openai")) == {"p95_ms": 100.0, "ttft_p95_ms": 500.0}
    assert wishes.limits(("2s",), slo, get("openai")) == {"ttft_p95_ms": 2000.0}
    assert wishes.limits(("ttft_p95=500ms", "itl_p95=50ms"), None, get("openai")) == {"ttft_p95_ms": 500.0, "itl_p95_ms": 50.0}


@pytest.mark.parametrize(
    ("given", "slo", "protocol", "words"),
    [
        ((), None, "oip", "give --slo"),
        ((), Slo(ttft_p95_ms=500.0), "oip", "measures none of what the service promises"),
        (("100",), None, "oip", "'100' is not a latency"),
        (("ttft_p95=1s",), None, "json", "is nothing that json measures"),
    ],
)
def test_limits_that_cannot_be_measured_end_in_a_sentence(given, slo, protocol, words):
    with pytest.raises(ConfigError, match=words):
        wishes.limits(given, slo, get(protocol))


def test_shares_and_stops():
    assert wishes.share("5%", "x") == wishes.share("0.05", "x") == 0.05
    assert wishes.times_or_ms("3x", 100.0, "x") == wishes.times_or_ms("300ms", 100.0, "x") == 3.0
    for text in ("0%", "120%", "few"):
        with pytest.raises(ConfigError, match="is not a share"):
            wishes.share(text, "--stop-errors")
    with pytest.raises(ConfigError, match="below the objective itself"):
        wishes.times_or_ms("50ms", 100.0, "--stop-p95")


def test_an_unknown_protocol_is_told_with_the_known_ones():
    with pytest.raises(ConfigError, match="json, oip, openai"):
        get("grpc")
    assert list(REGISTRY) == sorted(REGISTRY)
