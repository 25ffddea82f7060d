"""Temporary changes: early hand-back, expiry, renewal, and the steps on the way."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import MetricWindow, Span
from tuning.guards import SafetySettings
from tuning.model import Change, Diagnosis, Knob, OpenChange, Option, Plan, Setting
from tuning.policies.lease import covered, due, found, lent, next_step_back, steps_back

SETTINGS = SafetySettings(revert_hysteresis=0.15, revert_for_s=600.0, lease_renewals=2)
NOW_S = 10_000.0


def leased(
    limit_qps: float | None = 100.0, expires_at_s: float | None = NOW_S + 1000, state: str = "leased"
) -> OpenChange:
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 3})
    plan = Plan(
        id="p",
        incident_id="i",
        service="ranker",
        decided_at_s=0.0,
        mode="act",
        diagnosis=Diagnosis(cause="load"),
        chosen=Option(changes=(change,), cost_per_hour=2.0),
        lease_s=3600.0,
        revert_below_qps=limit_qps,
    )
    values = {"plan_id": "p", "service": "ranker", "incident_id": "i", "plan": plan, "opened_at_s": 0.0}
    return OpenChange.model_validate(values | {"state": state, "expires_at_s": expires_at_s})


def load(*qps: float, end_s: float = NOW_S) -> MetricWindow:
    """One point a minute, the last one at `end_s`."""
    span = Span(end_s - 60.0 * (len(qps) - 1), end_s, 60.0)
    return MetricWindow("ranker", span, {"qps": np.asarray(qps, dtype=np.float64)})


LOW, HIGH = [80.0] * 11, [150.0] * 11


@pytest.mark.parametrize(
    ("change", "window", "renewals", "action"),
    [
        (leased(), load(*LOW), 0, "hand_back"),
        (leased(), load(*HIGH), 0, "wait"),
        (leased(), load(*[90.0] * 11), 0, "wait"),  # below the limit, above the hysteresis
        (leased(), load(*LOW[:5]), 0, "wait"),  # low, but not for long enough
        (leased(), load(*LOW[:5], 120.0, *LOW[:5]), 0, "wait"),  # a burst in between
        (leased(), load(*LOW[:5], float("nan"), float("nan"), *LOW[:4]), 0, "wait"),  # a gap proves nothing
        (leased(), None, 0, "wait"),
        (leased(expires_at_s=NOW_S), load(*HIGH), 0, "renew"),
        (leased(expires_at_s=NOW_S), load(*HIGH), 2, "ask_person"),
        (leased(expires_at_s=NOW_S), load(*[95.0] * 11), 0, "hand_back"),
        (leased(expires_at_s=NOW_S), load(*[150.0] * 10, 90.0), 0, "hand_back"),  # the newest load tells
        (leased(expires_at_s=NOW_S), load(*[90.0] * 10, 150.0), 0, "renew"),
        (leased(expires_at_s=NOW_S), None, 0, "wait"),
        (leased(expires_at_s=NOW_S), load(*[float("nan")] * 11), 0, "wait"),
        (leased(expires_at_s=NOW_S), MetricWindow("ranker", Span(NOW_S - 600.0, NOW_S, 60.0), {}), 0, "wait"),
        (leased(None, NOW_S), None, 0, "hand_back"),
        (leased(None, NOW_S + 1), None, 0, "wait"),
        (leased(state="made", expires_at_s=NOW_S), load(*LOW), 0, "wait"),
    ],
)
def test_when_a_lease_ends(change: OpenChange, window: MetricWindow | None, renewals: int, action: str) -> None:
    decision = due(change, window, NOW_S, SETTINGS, renewals=renewals)
    assert decision.action == action, decision
    assert decision.reason


def steps(change: Change, values: dict[str, Knob]) -> list[dict[str, Knob]]:
    """Every step until the old values are in force."""
    taken: list[dict[str, Knob]] = []
    while (step := next_step_back(change, Setting(lever=change.lever, values=values), SETTINGS)) is not None:
        assert step.old == {k: values[k] for k in step.old}
        values = values | step.new
        taken.append(step.new)
        assert len(taken) < 20
    return taken


@pytest.mark.parametrize(
    ("levers", "back"),
    [
        (("batch_size", "replicas"), ["replicas"]),
        (("precision", "replicas"), ["replicas"]),
        (("replicas",), ["replicas"]),
        (("batch_size",), ["batch_size"]),  # meant for a while, whatever it costs
        (("variant",), ["variant"]),
    ],
)
def test_what_of_a_lease_goes_back(levers: tuple[str, ...], back: list[str]) -> None:
    changes = [Change(lever=name, old={"x": 1}, new={"x": 2}) for name in levers]
    assert [change.lever for change in lent(changes)] == back


def test_replicas_go_back_one_at_a_time() -> None:
    assert steps(Change(lever="replicas", old={"replicas": 1}, new={"replicas": 4}), {"replicas": 4}) == [
        {"replicas": 3},
        {"replicas": 2},
        {"replicas": 1},
    ]


@pytest.mark.parametrize(
    ("old", "now", "targets"),
    [
        (1, 1, []),
        (1, 2, [1]),
        (3, 8, [4, 6, 7]),  # five were added: half of the eight at most, then half of that, then one
        (1, 12, [6, 9, 11]),
        (7, 13, [7, 10, 12]),
        (4, 2, [4]),  # fewer than before: somebody's hand, and the way back is up
    ],
)
def test_how_many_replicas_may_go_back_at_once(old: int, now: int, targets: list[int]) -> None:
    change = Change(lever="replicas", old={"replicas": old}, new={"replicas": 20})
    steps = steps_back(change, Setting(lever="replicas", values={"replicas": now}), SETTINGS)
    assert [step.new["replicas"] for step in steps] == targets
    assert all(step.old == {"replicas": now} for step in steps)


def test_several_at_once_are_never_fewer_than_the_setting_says() -> None:
    change = Change(lever="replicas", old={"min_replicas": 1, "max_replicas": 2}, new={"min_replicas": 9})
    now = Setting(lever="replicas", values={"min_replicas": 9, "max_replicas": 9})
    steps = steps_back(change, now, SETTINGS.model_copy(update={"replicas_per_step": 3}))
    assert [step.new["min_replicas"] for step in steps] == [5, 6]
    assert all(step.new["max_replicas"] >= step.new["min_replicas"] for step in steps)


def test_bounds_go_back_without_ever_crossing() -> None:
    change = Change(
        lever="replicas",
        old={"min_replicas": 1, "max_replicas": 2, "replicas": 1},
        new={"min_replicas": 4, "max_replicas": 4, "replicas": 4},
    )
    taken = steps(change, {"min_replicas": 4, "max_replicas": 4, "replicas": 4})
    assert taken[-1] == {"min_replicas": 1, "max_replicas": 2}
    assert all(int(step["min_replicas"]) <= int(step["max_replicas"]) for step in taken)
    assert all("replicas" not in step for step in taken)


def test_a_step_that_would_not_carry_the_load_is_not_taken() -> None:
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 3})
    now = Setting(lever="replicas", values={"replicas": 3})
    assert next_step_back(change, now, SETTINGS, qps=250.0, limit_qps=100.0) is None
    assert next_step_back(change, now, SETTINGS, qps=180.0, limit_qps=100.0) is not None


def test_a_knob_that_cannot_be_read_goes_back_to_its_old_value_and_has_none_now() -> None:
    change = Change(
        lever="replicas", old={"min_replicas": 1, "max_replicas": 2}, new={"min_replicas": 3, "max_replicas": 4}
    )
    step = next_step_back(change, Setting(lever="replicas", values={"min_replicas": 3}), SETTINGS)
    assert step is not None
    assert (step.old, step.new) == ({"min_replicas": 3}, {"min_replicas": 2, "max_replicas": 2})


@pytest.mark.parametrize(("old", "taken"), [(0, True), (1, False)])
def test_where_the_old_number_carried_nothing_the_load_cannot_hold_a_step_up(old: int, taken: bool) -> None:
    change = Change(lever="replicas", old={"replicas": old}, new={"replicas": 3})
    step = next_step_back(
        change, Setting(lever="replicas", values={"replicas": 3}), SETTINGS, qps=900.0, limit_qps=100.0
    )
    assert (step is not None) is taken


def test_other_levers_go_back_at_once() -> None:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    assert steps(change, {"batch_size": 8}) == [{"batch_size": 1}]


@pytest.mark.parametrize(
    ("ours", "now", "place"),
    [
        (None, 3, "ours"),
        (None, 1, "old"),
        (None, 2, "foreign"),
        ({"replicas": 2}, 2, "ours"),  # as far as slotune has gone back
        ({"replicas": 2}, 3, "foreign"),
        ({"replicas": 2}, 1, "old"),
    ],
)
def test_where_a_lever_of_a_lease_stands(ours: dict[str, Knob] | None, now: int, place: str) -> None:
    change = Change(lever="replicas", old={"replicas": 1}, new={"replicas": 3})
    assert found(change, ours, {"replicas": now}) == place


@pytest.mark.parametrize(
    ("steps", "clock"),
    [
        ([(2, 4), (4, 6)], 1.0),
        ([(2, 4), (4, 6)], -1.0),
        ([(2, 4), (4, 6), (6, 8)], 1.0),
        ([(2, 4), (4, 6), (6, 8)], -1.0),
        ([(8, 6), (6, 4), (4, 6)], 1.0),  # values alone do not tell: times do
    ],
)
def test_what_was_put_on_top_comes_off_first_whatever_the_clock_said(
    steps: list[tuple[int, int]], clock: float
) -> None:
    """clock: -1 where it stepped back before each change, so that the newest looks like the oldest."""
    stack = [stacked(n, old, new, clock * n) for n, (old, new) in enumerate(steps)]
    assert [covered(lease, stack) for lease in stack] == [True] * (len(stack) - 1) + [False]


def stacked(n: int, old: int, new: int, at_s: float) -> OpenChange:
    lease = leased(1.0)
    change = Change(lever="replicas", old={"replicas": old}, new={"replicas": new})
    plan = lease.plan.model_copy(update={"id": f"p{n}", "chosen": Option(changes=(change,))})
    return lease.model_copy(update={"plan_id": plan.id, "plan": plan, "opened_at_s": NOW_S + at_s})


def test_a_lease_of_another_service_on_the_same_lever_covers_nothing() -> None:
    mine, other = stacked(0, 2, 4, 0.0), stacked(1, 4, 6, 1.0)
    assert covered(mine, [other])
    assert not covered(mine, [other.model_copy(update={"service": "another"})])


def test_why_a_lease_ends_is_told_with_the_load_that_was_seen() -> None:
    told = due(leased(), load(*LOW), NOW_S, SETTINGS, renewals=0).reason
    assert told == "The load stayed below 85/s for 660 s: the old setting carried 100/s."
    fits = due(leased(expires_at_s=NOW_S), load(*[150.0] * 10, 90.0), NOW_S, SETTINGS, renewals=0).reason
    assert fits == "The lease has expired; the load (90/s) fits the old setting."
