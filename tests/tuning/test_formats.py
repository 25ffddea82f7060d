"""Figures for people: never rounded into something that did not happen."""

import pytest

from tuning.formats import change, ms, per_hour


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "no data"), (0.0421, "0.0421 ms"), (25.13, "25.1 ms"), (4310.4, "4310 ms"), (11_243.0, "11.2 s")],
)
def test_a_latency(value: float | None, text: str) -> None:
    assert ms(value) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.7, "-30%"),
        (1.0, "+0%"),
        (1.25, "+25%"),
        (0.009, "-99.1%"),
        (0.0033, "-99.7%"),
        (0.0005, "-99.95%"),
        (1e-6, "-99.99%"),
        (0.0, "-100%"),
    ],
)
def test_a_change_never_falls_by_all_of_it(ratio: float, text: str) -> None:
    assert change(ratio) == text


def test_no_price_is_told_from_a_small_one() -> None:
    assert [per_hour(cost) for cost in (0.0, 1.2, -0.5)] == ["none", "+1.20/h", "-0.50/h"]
