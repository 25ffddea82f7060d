"""Where the minutes over the SLO go, on hand-made runs."""

from __future__ import annotations

import pytest

from benchmarks.control import minutes
from benchmarks.control.runs import Action

ONE = Action(960.0, "replicas", "3 -> 6", effect_s=60.0)
BACK = Action(1100.0, "replicas", "6 -> 5", effect_s=60.0, undo=True)
TWO = Action(1200.0, "precision", "int8", effect_s=140.0)


@pytest.mark.parametrize(
    ("at_s", "actions", "spoke_s", "phase"),
    [
        (930.0, [ONE], 940.0, minutes.UNSEEN),
        (940.0, [ONE], 940.0, minutes.UNDECIDED),
        (1500.0, [], 940.0, minutes.UNDECIDED),
        (1500.0, [], None, minutes.UNSEEN),
        (960.0, [ONE], 940.0, minutes.FIRST),
        (1019.0, [ONE], 940.0, minutes.FIRST),
        (1020.0, [ONE], 940.0, minutes.BETWEEN),
        (1150.0, [ONE, BACK], 940.0, minutes.BETWEEN),
        (1339.0, [ONE, BACK, TWO], 940.0, minutes.LATER),
        (1340.0, [ONE, BACK, TWO], 940.0, minutes.AFTER),
    ],
)
def test_the_phase_of_a_stretch_over_the_slo(at_s, actions, spoke_s, phase):
    assert minutes.spent([at_s], 30.0, actions, spoke_s) == {phase: 0.5}


def test_sums_hold_every_phase_in_its_order():
    found = minutes.total([{minutes.FIRST: 1.04}, {minutes.FIRST: 1.0, minutes.UNSEEN: 0.5}])
    assert list(found) == list(minutes.PHASES)
    assert found[minutes.FIRST] == 2.0 and found[minutes.UNSEEN] == 0.5 and found[minutes.AFTER] == 0.0
