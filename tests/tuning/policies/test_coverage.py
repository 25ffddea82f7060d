"""When predictions no longer hold as promised, and when they do again: beyond chance, and by enough verdicts."""

from __future__ import annotations

import numpy as np
import pytest

from tuning.policies.coverage import ENOUGH, coverage

GOOD = [True] * 9 + [False]


def test_too_few_verdicts_say_nothing():
    assert not coverage([False] * (ENOUGH - 1)).asks and coverage([]).share is None


@pytest.mark.parametrize(
    ("inside", "of", "asks", "which"),
    [(9, 15, True, "narrow"), (11, 15, False, ""), (0, 15, True, "narrow"), (29, 29, False, ""), (100, 100, True, "wide"),
     (97, 100, False, ""), (16, 20, False, "")],
)  # fmt: skip
def test_it_asks_where_the_share_is_out_of_the_band_and_not_by_chance(inside, of, asks, which):
    # spread evenly, so that no stretch of it is worse than the whole
    held = [(i + 1) * inside // of > i * inside // of for i in range(of)]
    found = coverage(held)
    assert (found.asks, found.off) == (asks, which)


def test_it_acts_again_when_enough_predictions_since_then_hold():
    broken = [False] * ENOUGH
    held = coverage([*GOOD * 3, *broken])
    assert held.asks and held.off == "narrow"
    few = coverage([*GOOD * 3, *broken, *GOOD])
    assert few.asks and few.turned == held.turned
    assert few.of > len(GOOD) and few.share < 0.85, "what it was held back for is told until there is more"
    again = coverage([*GOOD * 3, *broken, *GOOD * 3])
    assert not again.asks and again.turned > held.turned


def test_intervals_as_promised_seldom_hold_a_lever_back_and_broken_ones_soon_do():
    rng = np.random.default_rng(3)
    promised = [coverage((rng.random(60) < 0.92).tolist()).turned > 0 for _ in range(300)]
    broken = [coverage((rng.random(60) < 0.6).tolist()).asks for _ in range(300)]
    assert np.mean(promised) < 0.05 and np.mean(broken) > 0.9
