"""What is ordinary is no alarm, however small the budget would set a threshold: worked examples."""

from __future__ import annotations

import numpy as np
import pytest

from detection.fitting import nominal_factor, ordinary


@pytest.mark.parametrize(
    ("signals", "step_s", "expected"),
    [
        # 7 x 2,016 judgements a week: one in 14,112 normal values is above 3.81 standard deviations
        pytest.param(7, 300.0, 3.81 / 3, id="seven signals every five minutes"),
        pytest.param(2, 300.0, 3.48 / 3, id="two"),
        pytest.param(19, 300.0, 4.04 / 3, id="nineteen"),
        pytest.param(7, 60.0, 4.18 / 3, id="every minute"),
        # 336 judgements: one in 336 is above 2.75, which the nominal three are beyond already
        pytest.param(2, 3600.0, 1.0, id="hourly: never below the nominal threshold"),
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
