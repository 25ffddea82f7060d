"""When a change that restarts servers waits for another look, and by how much the model is off: tables of values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuning.model import Interval
from tuning.planning import passing as ps
from tuning.planning.ports import Predicted
from tuning.planning.settings import PlanningSettings

SETTINGS = PlanningSettings(headroom=0.9)
TTFT, ITL = "ttft_p95_ms", "itl_p95_ms"
LIMITS = {TTFT: 500.0, ITL: 50.0}
NONE = np.empty(0)
FALLS = np.array([900.0, 1200.0, 1500.0, 1000.0, 600.0])
GONE = np.array([9.0, 12.0, 4.0, 0.0, 0.0, 0.0])


def shows(ttft: float = 300.0, itl: float = 20.0, *, meets: float = 0.8, load: float = 0.5) -> Predicted:
    shown = {name: Interval(value=v, low=0.7 * v, high=1.5 * v) for name, v in ((TTFT, ttft), (ITL, itl))}
    return Predicted(shown, meets, 1.0, 1.0, load, 0.0, load)


@pytest.mark.parametrize(
    ("p95", "falling"),
    [
        ([900.0, 1500.0, 1000.0, 600.0], True),
        ([900.0, 1500.0, 600.0, 600.0], True),
        ([900.0, 1500.0, 590.0, 600.0], False),
        ([900.0, 1500.0, 1100.0, 1051.0], False),
        ([1500.0, 1000.0, 600.0], False),
        ([], False),
    ],
)
def test_a_percentile_falls_when_it_has_left_its_maximum_and_goes_on(p95, falling):
    assert ps.falls(np.array(p95)) is falling


@pytest.mark.parametrize(
    ("p95", "age_s", "luck"),
    [
        ([5000.0] * 4, 60.0, True),
        ([5000.0] * 4, 61.0, False),
        ([550.0] * 4, 300.0, True),
        ([551.0] * 4, 300.0, False),
        ([550.0] * 4, 301.0, False),
        ([], 61.0, False),
    ],
)
def test_luck_is_what_broke_a_moment_ago_or_narrowly(p95, age_s, luck):
    assert ps.may_be_luck(np.array(p95), 500.0, age_s, 30.0) is luck


@pytest.mark.parametrize(
    ("changed_s", "at_s", "fresh"),
    [
        (-math.inf, 1300.0, False),
        (1000.0, 1300.0, False),  # before the incident was opened: not for it
        (1000.1, 1300.0, True),
        (1200.0, 1500.0, True),
        (1200.0, 1500.1, False),
    ],
)
def test_a_change_is_fresh_for_ten_rate_windows(changed_s, at_s, fresh):
    assert ps.just_changed(1000.0, changed_s, at_s, 30.0) is fresh


@pytest.mark.parametrize(
    ("stay", "luck", "waits"),
    [
        (shows(meets=0.7), True, True),
        (shows(meets=0.69), True, False),
        (shows(ttft=451.0, meets=0.9), True, False),
        (shows(itl=45.1, meets=0.9), True, False),
        (shows(ttft=450.0, meets=0.9), True, True),
        (shows(meets=1.0), False, False),
    ],
)
def test_a_restart_waits_where_luck_may_have_broken_what_the_present_setting_is_likely_to_keep(stay, luck, waits):
    reason = ps.before_a_restart(stay, LIMITS, SETTINGS, NONE, NONE, luck)
    assert bool(reason) is waits
    if waits:
        assert reason.startswith("hold: the present setting is predicted to do") and f"{stay.meets:.0%}" in reason


@pytest.mark.parametrize(
    ("meets", "p95", "depth", "waits"),
    [
        (0.35, FALLS, GONE, True),
        (0.34, FALLS, GONE, False),
        (0.35, np.array([600.0, 900.0, 1500.0, 1200.0]), GONE, False),
        (0.35, FALLS, np.array([9.0, 12.0, 4.0, 2.0, 1.0, 0.0]), False),
        (0.35, FALLS, np.array([0.0, 0.9, 0.0, 0.0, 0.0]), False),
        (0.35, FALLS, NONE, False),
    ],
)
def test_a_restart_waits_where_the_queue_is_gone_and_p95_falls_behind_it(meets, p95, depth, waits):
    reason = ps.before_a_restart(shows(ttft=2000.0, meets=meets), LIMITS, SETTINGS, p95, depth, False)
    assert bool(reason) is waits
    if waits:
        assert "the queue is gone and P95 falls (from 1500 ms to 600 ms)" in reason, reason


@pytest.mark.parametrize(
    ("stay", "now_ms", "depth", "log"),
    [
        (shows(400.0), 600.0, NONE, math.log(1.5)),
        (shows(400.0), 600.0, np.array([0.0, 5.0, 1.0, 0.0]), math.log(1.5)),
        (shows(400.0), 900.0, NONE, math.log(2.0)),
        (shows(400.0), 500.0, NONE, None),
        (shows(500.0), 600.0, NONE, None),
        (shows(400.0, load=0.9), 600.0, NONE, None),
        (shows(400.0), 600.0, np.array([1.1, 1.2, 5.0]), None),
        (shows(400.0), None, NONE, None),
    ],
)
def test_what_the_present_setting_shows_corrects_what_is_predicted_of_the_next(stay, now_ms, depth, log):
    found = ps.off(stay, TTFT, now_ms, 500.0, depth)
    assert found == ({} if log is None else {TTFT: pytest.approx(log)})


@pytest.mark.parametrize(
    ("option", "nothing"),
    [
        (shows(285.0), False),
        (shows(286.0, meets=0.7), True),
        (shows(100.0, itl=30.0, meets=0.7), True),
        (shows(300.0, meets=0.7), True),
        # The same by the middle, and likelier by more than the luck of one draw.
        (shows(300.0, meets=0.85), True),
        (shows(300.0, meets=0.86), False),
    ],
)
def test_an_option_brings_a_twentieth_or_a_chance_or_nothing(option, nothing):
    reason = ps.brings_nothing(option, shows(300.0, meets=0.7), LIMITS)
    assert bool(reason) is nothing
    if nothing:
        assert "so does the present setting" in reason


@pytest.mark.parametrize(("chance", "nothing"), [(0.7, True), (0.85, True), (0.86, False)])
def test_a_restart_has_to_bring_a_better_chance_not_a_lower_figure_alone(chance, nothing):
    option = shows(200.0, meets=chance)
    assert not ps.brings_nothing(option, shows(300.0, meets=0.7), LIMITS)
    reason = ps.brings_nothing(option, shows(300.0, meets=0.7), LIMITS, restarts=True)
    assert bool(reason) is nothing
    if nothing:
        assert "restart servers" in reason and f"({chance:.0%}) than the present setting (70%)" in reason
