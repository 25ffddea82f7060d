"""What is ordinary is no alarm, however small the budget would set a threshold: worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from detection.fitting import nominal_factor, ordinary


@pytest.mark.parametrize(
    ("signals", "step_s", "expected"),
    [
        # 7 x 2,016 judgements in each of 13 weeks: one in 183,456 normal values is above 4.40 standard deviations
        pytest.param(7, 300.0, 4.40 / 3, id="seven signals every five minutes"),
        pytest.param(2, 300.0, 4.12 / 3, id="two"),
        pytest.param(19, 300.0, 4.61 / 3, id="nineteen"),
        pytest.param(7, 60.0, 4.74 / 3, id="every minute"),
        # 728 judgements: one in 728 is above 2.99, which the nominal three are beyond already
        pytest.param(2, 21_600.0, 1.0, id="four times a day: never below the nominal threshold"),
    ],
)
def test_many_signals_looked_at_often_pass_three_standard_deviations_by_chance(
    signals: int, step_s: float, expected: float
) -> None:
    assert nominal_factor(signals, step_s) == pytest.approx(expected, abs=0.005)


def test_ordinary_is_the_usual_and_so_many_of_its_deviations() -> None:
    # 0, 1, ..., 100: the middle is 50, and 5 % to 95 % are 90 wide, which is 3.29 standard deviations
    scores = np.stack([np.arange(101), np.full(101, 2.0), np.full(101, np.nan)]).astype(np.float32)
    found = ordinary(scores, 4.0)
    assert found[:2] == pytest.approx([50 + 4 * 90 / 3.29, 2.0])
    assert np.isnan(found[2])
