"""How long things take, added up by hand."""

from __future__ import annotations

import pytest

from detection.model import Lever
from tuning.attempt import Attempt
from tuning.guards import SafetySettings
from tuning.model import Change, Diagnosis, Option, Plan, Receipt
from tuning.policies.timing import (
    back_s,
    longest_apply_s,
    look_until_s,
    overdue_s,
    settle_s,
    undo_s,
    worst_case_rollback_s,
)
from tuning.verification.settings import VerificationSettings

VERIFICATION = VerificationSettings(
    look_s=100.0, longer_look_s=200.0, rate_window_s=30.0, summary_window_s=75.0, settle_min_s=40.0, drain_max_s=500.0
)
SAFETY = SafetySettings(in_flight_s=60.0, stuck_after_s=1000.0, dead_task_s=330.0, control_timeout_s=20.0)


def lever(delay_s: float = 0.0, **options: object) -> Lever:
    return Lever(name="batch_size", actuator="http_config", effect_delay_s=delay_s, options=options)


@pytest.mark.parametrize(
    ("delay_s", "source", "expected_s"),
    [(0.0, "histogram", 40.0), (10.0, "histogram", 40.0), (15.0, "histogram", 45.0), (5.0, "summary", 80.0)],
)
def test_settling_is_the_window_and_the_delay_and_at_least_its_least(delay_s, source, expected_s) -> None:
    assert settle_s(VERIFICATION, lever(delay_s), source) == expected_s


@pytest.mark.parametrize(
    ("name", "old", "new", "expected_s"),
    [
        ("replicas", {"min_replicas": 6}, {"min_replicas": 3}, 40.0),  # gone at once: the window behind P95 alone
        ("replicas", {"min_replicas": 3}, {"min_replicas": 6}, 110.0),  # a step that is taken back starts replicas
        ("batch_size", {"batch_size": 8}, {"batch_size": 1}, 110.0),
    ],
)
def test_what_only_goes_away_waits_for_nothing_to_start(name, old, new, expected_s) -> None:
    slow = Lever(name=name, actuator="x", effect_delay_s=80.0)
    assert back_s(VERIFICATION, slow, Change(lever=name, old=old, new=new)) == expected_s


@pytest.mark.parametrize(
    ("levers", "settle_s", "expected_s"),
    [
        (("replicas",), 300.0, 75.0),  # they go at once: the longest window behind P95 alone
        (("replicas",), 60.0, 60.0),  # never longer than after the change
        (("replicas", "precision"), 300.0, 155.0),
        (("gone",), 300.0, 300.0),  # a lever that services.yaml has no more
    ],
)
def test_a_roll_back_waits_for_its_own_steps_and_not_for_a_start_or_a_queue(levers, settle_s, expected_s) -> None:
    known = {name: Lever(name=name, actuator="x", effect_delay_s=80.0) for name in ("replicas", "precision")}
    steps = tuple(Change(lever=name, old={"replicas": 6}, new={"replicas": 3}) for name in levers)
    inverse = Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=1000.0, mode="act", diagnosis=Diagnosis(cause="x"),
        chosen=Option(changes=steps), settle_s=settle_s, rollback_of="q",
    )  # fmt: skip
    assert undo_s(VERIFICATION, known, inverse) == expected_s


def attempt(made_s: float | None = None, **more: object) -> Attempt:
    plan = Plan(
        id="p", incident_id="i", service="ranker", decided_at_s=1000.0, mode="act", diagnosis=Diagnosis(cause="x"),
        chosen=Option(changes=()),
    )  # fmt: skip
    receipts = ()
    if made_s is not None:
        receipts = (Receipt(id="r", plan_id="p", service="ranker", lever="batch_size", before={}, after={},
                            applied=True, changed=True, at_s=made_s),)  # fmt: skip
    return Attempt(plan, receipts=receipts, settle_s=50.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made_s", "look", "expected_s"),
    [(None, 1, 1150.0), (1010.0, 1, 1160.0), (1010.0, 2, 1360.0)],
)
def test_when_a_look_is_over(made_s, look, expected_s) -> None:
    assert look_until_s(attempt(made_s), VERIFICATION, look) == expected_s


@pytest.mark.parametrize(
    ("now_s", "expected_s"), [(None, 1250.0), (1100.0, 1250.0), (1200.0, 1250.0), (-2500.0, -2350.0)]
)
def test_no_wait_is_longer_than_the_whole_of_it(now_s, expected_s) -> None:
    """A clock that steps back after the change was made does not leave it unproven until the clock has caught up."""
    assert look_until_s(attempt(1100.0), VERIFICATION, 1, now_s) == expected_s


def test_when_a_run_is_no_longer_believed() -> None:
    """Twice settle, looks and drain (850 s), the build, and what may be in flight and stuck, from the claim on."""
    assert overdue_s(attempt(), VERIFICATION, SAFETY, 300.0) == 1000.0 + 300.0 + 2 * 850.0 + 60.0 + 1000.0
    claimed = attempt(claimed_s=1100.0)
    assert overdue_s(claimed, VERIFICATION, SAFETY, 0.0) == 1100.0 + 2 * 850.0 + 60.0 + 1000.0


def test_the_longest_an_actuator_may_take() -> None:
    assert longest_apply_s(lever()) == 0.0
    assert longest_apply_s(lever(rollout_timeout_s=600.0, load_timeout_s=60.0, other_s=5.0)) == 660.0
    assert longest_apply_s(lever(build={"deadline_s": 900.0, "pending_s": 300.0})) == 1200.0


def test_the_longest_that_a_harmful_change_can_stay() -> None:
    """Noticed after 330 s, swept after 300 s, two calls of 20 s, settled (summary: 75 s and 10 s), both looks, and the
    lever's own delay for the way back."""
    alone = worst_case_rollback_s(VERIFICATION, SAFETY, lever(10.0))
    assert alone == 330.0 + 300.0 + 20.0 + 85.0 + 300.0 + 20.0 + 10.0
    first = worst_case_rollback_s(VERIFICATION, SAFETY, lever(10.0), one_replica_first=True)
    assert first - alone == 20.0 + 85.0 + 300.0
    assert worst_case_rollback_s(VERIFICATION, SAFETY, lever(10.0), watch_every_s=30.0) == alone - 300.0 + 60.0
