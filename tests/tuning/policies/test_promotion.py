"""What follows from a verdict: a table of worked examples."""

from __future__ import annotations

import pytest

from detection.model import Lever
from tuning.guards import SafetySettings
from tuning.model import Change, Diagnosis, Guarded, Option, Outcome, Plan
from tuning.policies.promotion import decide
from tuning.policies.timing import settle_s, worst_case_rollback_s
from tuning.verification.settings import VerificationSettings


def plan(cost: float = 0.0, rollback_of: str | None = None) -> Plan:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    return Plan(
        id="p",
        incident_id="i",
        service="ranker",
        decided_at_s=0.0,
        mode="act",
        diagnosis=Diagnosis(cause="unknown"),
        chosen=Option(changes=(change,), cost_per_hour=cost),
        rollback_of=rollback_of,
    )


def outcome(verdict: str, resolved: bool | None, *, harmed: bool = False) -> Outcome:
    guards = (Guarded(signal="error_rate", before=0.0, after=0.1, ok=not harmed),)
    return Outcome.model_validate(
        {
            "id": "o",
            "plan_id": "p",
            "service": "ranker",
            "verdict": verdict,
            "resolved": resolved,
            "at_s": 1.0,
            "guards": guards,
            "reason": "because",
        }
    )


@pytest.mark.parametrize(
    ("verdict", "resolved", "attempts", "twice", "step", "following"),
    [
        ("improved", True, 1, False, "keep", "done"),
        ("improved", False, 1, False, "keep", "next_attempt"),
        ("improved", False, 3, False, "keep", "ask_person"),
        ("improved", None, 1, False, "settle", "done"),
        ("improved", None, 1, True, "keep", "next_attempt"),
        ("worse", True, 1, False, "roll_back", "next_attempt"),
        ("worse", False, 3, False, "roll_back", "ask_person"),
        ("inconclusive", None, 1, False, "settle", "done"),
        ("inconclusive", None, 1, True, "roll_back", "next_attempt"),
        ("inconclusive", False, 1, False, "roll_back", "next_attempt"),  # not enough, whatever a longer look would show
        ("inconclusive", False, 3, True, "roll_back", "ask_person"),
        ("inconclusive", True, 1, False, "settle", "done"),
        ("inconclusive", True, 1, True, "keep", "done"),
        ("unchanged", False, 1, False, "keep", "next_attempt"),
        ("unchanged", True, 1, False, "keep", "done"),
    ],
)
def test_a_free_change(
    verdict: str, resolved: bool | None, attempts: int, twice: bool, step: str, following: str
) -> None:
    decision = decide(outcome(verdict, resolved), plan(), attempts, SafetySettings(), twice)
    assert (decision.step, decision.next) == (step, following)
    assert decision.reason


@pytest.mark.parametrize(
    ("leaning", "resolved", "twice", "harmed", "step", "following"),
    [
        (True, None, False, False, "settle", "done"),
        (True, True, False, False, "keep", "done"),
        (True, False, False, False, "keep", "next_attempt"),
        (True, False, True, False, "keep", "next_attempt"),
        (True, None, True, False, "keep", "next_attempt"),
        (True, True, True, False, "keep", "done"),
        (False, False, True, False, "roll_back", "next_attempt"),
        (True, False, True, True, "roll_back", "next_attempt"),
    ],
)
@pytest.mark.parametrize("cost", [0.0, 5.0])
def test_what_most_probably_helps_is_not_undone_for_want_of_certainty(
    leaning: bool, resolved: bool | None, twice: bool, harmed: bool, step: str, following: str, cost: float
) -> None:
    found = outcome("inconclusive", resolved, harmed=harmed).model_copy(update={"leaning": leaning})
    decision = decide(found, plan(cost), 1, SafetySettings(), twice)
    assert (decision.step, decision.next) == (step, following)
    assert "because" in decision.reason


def test_no_difference_is_undone_when_it_costs_or_harms() -> None:
    settings = SafetySettings()
    assert decide(outcome("unchanged", False), plan(cost=1.5), 1, settings, False).step == "roll_back"
    assert decide(outcome("unchanged", False, harmed=True), plan(), 1, settings, False).step == "roll_back"
    assert decide(outcome("unchanged", False), plan(cost=0.01), 1, settings, False).step == "roll_back"
    strict = SafetySettings(keep_free_changes=False)
    assert decide(outcome("unchanged", False), plan(), 1, strict, False).step == "roll_back"


@pytest.mark.parametrize(
    ("verdict", "twice", "step", "following"),
    [
        ("unchanged", False, "keep", "next_attempt"),
        ("improved", False, "keep", "next_attempt"),
        ("worse", False, "keep", "ask_person"),
        ("inconclusive", False, "settle", "done"),
        ("inconclusive", True, "keep", "ask_person"),
    ],
)
def test_a_roll_back_is_verified_and_never_rolled_back(verdict: str, twice: bool, step: str, following: str) -> None:
    decision = decide(outcome(verdict, False), plan(rollback_of="p0"), 1, SafetySettings(), twice)
    assert (decision.step, decision.next) == (step, following)


def test_settling_covers_the_window_behind_p95_and_the_levers_delay() -> None:
    verification = VerificationSettings(rate_window_s=60, summary_window_s=75)
    lever = Lever(name="replicas", actuator="kubernetes", effect_delay_s=40)
    assert settle_s(verification, lever) == 100
    assert settle_s(verification, lever, "summary") == 115
    fast = VerificationSettings(rate_window_s=1, settle_min_s=15)
    assert settle_s(fast, lever.model_copy(update={"effect_delay_s": 0.0})) == 15


def test_the_worst_case_grows_with_every_part_of_it() -> None:
    lever = Lever(name="batch_size", actuator="http_config", effect_delay_s=5)
    safety, verification = SafetySettings(), VerificationSettings()
    base = worst_case_rollback_s(verification, safety, lever)
    assert base > settle_s(verification, lever) + verification.look_s + verification.longer_look_s
    longer = verification.model_copy(update={"longer_look_s": verification.longer_look_s + 100})
    assert worst_case_rollback_s(longer, safety, lever) == base + 100
    assert worst_case_rollback_s(verification, safety, lever, watch_every_s=400) == base + 100


def test_the_worst_case_counts_the_stage_on_one_replica() -> None:
    lever = Lever(name="batch_size", actuator="http_config", effect_delay_s=5)
    safety, verification = SafetySettings(), VerificationSettings()
    first_s = worst_case_rollback_s(verification, safety, lever, one_replica_first=True) - worst_case_rollback_s(
        verification, safety, lever
    )
    stage_s = settle_s(verification, lever, "summary") + verification.look_s + verification.longer_look_s
    assert first_s == stage_s + safety.control_timeout_s


@pytest.mark.parametrize(
    ("verdict", "resolved", "attempts", "twice", "step", "following"),
    [
        ("improved", True, 1, False, "keep", "done"),
        ("improved", None, 1, False, "settle", "done"),
        ("improved", None, 1, True, "keep", "next_attempt"),
        ("improved", False, 1, False, "keep", "next_attempt"),
        ("unchanged", True, 1, False, "keep", "next_attempt"),
        ("unchanged", False, 3, False, "keep", "ask_person"),
        ("worse", False, 1, False, "keep", "next_attempt"),
        ("inconclusive", False, 1, False, "settle", "done"),
        ("inconclusive", True, 1, True, "keep", "done"),
        ("inconclusive", None, 1, True, "keep", "next_attempt"),
    ],
)
def test_what_cannot_be_undone_is_never_rolled_back(
    verdict: str, resolved: bool | None, attempts: int, twice: bool, step: str, following: str
) -> None:
    change = Change(lever="restart", old={"r1@a": "up"}, new={"r1@a": "gone"})
    one_way = plan().model_copy(update={"chosen": Option(changes=(change,))})
    found = decide(outcome(verdict, resolved), one_way, attempts, SafetySettings(), twice)
    assert (found.step, found.next) == (step, following)
    assert step == "settle" or (verdict, resolved) == ("inconclusive", True) or "because" in found.reason
