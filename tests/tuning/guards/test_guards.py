"""Each guard's yes and no, one table per guard."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from detection.model import Lever, Mode, Service, Slo
from tuning.caps import Unproven
from tuning.guards import (
    GUARDS,
    GuardFacts,
    MadeChange,
    SafetySettings,
    Standing,
    Unreadable,
    effective_mode,
    foreign_since,
    guard,
    last_written,
    stopped,
)
from tuning.guards.freeze import frozen_until, parse_freeze, zone
from tuning.model import Change, Diagnosis, Knob, Option, Plan, Record, Setting

NOW_S = 1_000_000.0


def service(mode: Mode = "act", lever_mode: Mode | None = None, cool_down_s: float | None = None) -> Service:
    batch = Lever(
        name="batch_size",
        actuator="http_config",
        minimum=1,
        maximum=32,
        mode=lever_mode,
        cool_down_s=cool_down_s,
        options={"timeout_min_ms": 0.0, "timeout_max_ms": 20.0},
    )
    replicas = Lever(name="replicas", actuator="kubernetes", minimum=1, maximum=4)
    return Service(
        name="ranker",
        serving="slotune_demo",
        slo=Slo(p95_ms=100),
        mode=mode,
        levers={"batch_size": batch, "replicas": replicas},
    )


def plan(
    new: dict[str, Knob] | None = None, old: dict[str, Knob] | None = None, *, lever: str = "batch_size", **more: object
) -> Plan:
    old = old or {"batch_size": 1, "batch_timeout_ms": 2.0}
    change = Change(lever=lever, old=old, new=new or {"batch_size": 8, "batch_timeout_ms": 2.0})
    values: dict[str, object] = {
        "id": "p1",
        "incident_id": "i1",
        "service": "ranker",
        "decided_at_s": NOW_S,
        "mode": "act",
        "diagnosis": Diagnosis(cause="unknown"),
        "chosen": Option(changes=(change,)),
    }
    return Plan.model_validate(values | more)


def facts(**more: object) -> GuardFacts:
    batch = Setting(lever="batch_size", values={"batch_size": 1, "batch_timeout_ms": 2.0})
    replicas = Setting(lever="replicas", values={"min_replicas": 1, "max_replicas": 2, "replicas": 2})
    base = GuardFacts(
        at_s=NOW_S,
        service=service(),
        safety=SafetySettings(),
        settings_now={"batch_size": batch, "replicas": replicas},
    )
    return replace(base, **more)  # type: ignore[arg-type]


def refused_by(one: Plan, known: GuardFacts) -> str | None:
    refusal = guard(one, known)
    if refusal is None:
        return None
    assert refusal.reason.endswith((".", "it was not read", "down", "timeout")) or ":" in refusal.reason
    assert (refusal.plan_id, refusal.service, refusal.at_s) == (one.id, one.service, known.at_s)
    return refusal.guard


def test_nothing_speaks_against_an_ordinary_change() -> None:
    assert guard(plan(), facts()) is None


def test_holding_needs_nobodys_leave() -> None:
    assert guard(plan(chosen=Option(changes=()), mode="observe"), facts(service=service("observe"))) is None


@pytest.mark.parametrize(
    ("one", "known", "by"),
    [
        (plan(dry_run=True), facts(), "dry_run"),
        (plan(), facts(safety=SafetySettings(dry_run=True)), "dry_run"),
        (plan(), facts(service=service("observe")), "mode"),
        (plan(), facts(service=service("act", lever_mode="observe")), "mode"),
        (plan(mode="observe"), facts(), "mode"),
        (plan(), facts(service=service("observe", lever_mode="act")), None),
        (plan(), facts(service=service("approve")), "approval"),
        (plan(), facts(service=service("approve"), approved=True), None),
    ],
)
def test_modes(one: Plan, known: GuardFacts, by: str | None) -> None:
    assert refused_by(one, known) == by


@pytest.mark.parametrize(
    ("new", "by"),
    [
        ({"batch_size": 32}, None),
        ({"batch_size": 33}, "bounds"),
        ({"batch_size": 0}, "bounds"),
        ({"batch_size": "8"}, "bounds"),
        ({"batch_size": 8, "batch_timeout_ms": 20.0}, None),
        ({"batch_size": 8, "batch_timeout_ms": 20.1}, "bounds"),
        ({"batch_size": 8, "batch_timeout_ms": -1.0}, "bounds"),
    ],
)
def test_bounds(new: dict[str, Knob], by: str | None) -> None:
    assert refused_by(plan(new), facts()) == by


def test_bounds_of_replicas() -> None:
    old: dict[str, Knob] = {"min_replicas": 1, "max_replicas": 2, "replicas": 2}
    good: dict[str, Knob] = {"min_replicas": 3, "max_replicas": 4, "replicas": 3}
    assert refused_by(plan(good, old, lever="replicas"), facts()) is None
    assert refused_by(plan({**good, "max_replicas": 5}, old, lever="replicas"), facts()) == "bounds"
    crossed: dict[str, Knob] = {"min_replicas": 4, "max_replicas": 3, "replicas": 3}
    assert refused_by(plan(crossed, old, lever="replicas"), facts()) == "bounds"
    assert refused_by(plan({"version": "2"}, {"version": "1"}, lever="precision"), facts()) == "bounds"


@pytest.mark.parametrize(("stale_s", "by"), [(0.0, None), (180.0, None), (181.0, "stale_data"), (None, "stale_data")])
def test_stale_data(stale_s: float | None, by: str | None) -> None:
    assert refused_by(plan(), facts(stale_s=stale_s)) == by


@pytest.mark.parametrize(("rate", "by"), [(None, None), (0.1, None), (0.5, "error_budget"), (1.0, "error_budget")])
def test_error_budget(rate: float | None, by: str | None) -> None:
    assert refused_by(plan(), facts(error_rate=rate)) == by


def test_the_caps_are_guards_like_the_others() -> None:
    busy = Standing((Unproven("p9", "ranker", ("batch_size",), NOW_S - 60, "batch_size 1 -> 8"),))
    refusal = guard(plan(), facts(standing=busy))
    assert refusal is not None
    assert (refusal.guard, refusal.until_s) == ("one_open_change", NOW_S + 600.0)
    assert "batch_size 1 -> 8, not proven yet" in refusal.reason
    cooling = Standing(made=[MadeChange("ranker", "batch_size", NOW_S - 500)])
    assert refused_by(plan(), facts(standing=cooling)) == "cool_down"
    assert refused_by(plan(), facts(standing=cooling, service=service(cool_down_s=400.0))) is None


def test_ownership_stands_down_for_somebody_elses_hand() -> None:
    foreign = {"batch_size": Setting(lever="batch_size", values={"batch_size": 4, "batch_timeout_ms": 2.0})}
    assert refused_by(plan(), facts(settings_now=foreign)) == "ownership:batch_size", "moved since the plan"
    written: dict[str, dict[str, Knob]] = {"batch_size": {"batch_size": 2, "batch_timeout_ms": 2.0}}
    assert refused_by(plan(), facts(last_written=written)) == "ownership:batch_size", "moved since our last change"
    same: dict[str, dict[str, Knob]] = {"batch_size": {"batch_size": 1, "batch_timeout_ms": 2}}
    assert refused_by(plan(), facts(last_written=same)) is None
    day_old = facts(last_written=written, foreign_since_s={"batch_size": NOW_S - 86_400})
    assert refused_by(plan(), day_old) is None, "the new normal"


def test_ownership_does_not_mind_the_autoscaler() -> None:
    old: dict[str, Knob] = {"min_replicas": 1, "max_replicas": 2, "replicas": 1}
    new: dict[str, Knob] = {"min_replicas": 2, "max_replicas": 4, "replicas": 2}
    written: dict[str, dict[str, Knob]] = {"replicas": {"min_replicas": 1, "max_replicas": 2, "replicas": 1}}
    assert refused_by(plan(new, old, lever="replicas"), facts(last_written=written)) is None


def test_ownership_minds_who_sets_replicas_where_no_autoscaler_does() -> None:
    written: dict[str, dict[str, Knob]] = {"replicas": {"replicas": 5}}
    scaled = plan({"replicas": 2}, {"replicas": 1}, lever="replicas")
    assert refused_by(scaled, facts(last_written=written)) == "ownership:replicas"


def test_what_cannot_be_read_is_not_changed() -> None:
    assert refused_by(plan(), facts(settings_now={})) == "unreadable"
    assert refused_by(plan(), facts(settings_now={"batch_size": Unreadable("timeout")})) == "unreadable"


def test_a_roll_back_is_held_up_by_ownership_alone() -> None:
    back = plan(rollback_of="p0")
    hurry = facts(
        safety=SafetySettings(changes_per_hour=0, cool_down_s=1e9, freeze=("Mon-Sun",)), stale_s=None, error_rate=1.0
    )
    assert guard(back, hurry) is None
    foreign = {"batch_size": Setting(lever="batch_size", values={"batch_size": 4, "batch_timeout_ms": 2.0})}
    assert refused_by(back, facts(settings_now=foreign)) == "ownership:batch_size"


def test_a_freeze_refuses_until_its_end() -> None:
    friday_s = datetime(2026, 11, 20, 19, 0, tzinfo=UTC).timestamp()
    frozen = facts(at_s=friday_s, safety=SafetySettings(freeze=("Fri 18:00-Mon 08:00",)))
    refusal = guard(plan(), frozen)
    assert refusal is not None
    assert refusal.guard == "freeze"
    assert refusal.until_s == datetime(2026, 11, 23, 8, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("text", "when", "frozen"),
    [
        ("Fri 18:00-Mon 08:00", "2026-11-20T17:59", False),
        ("Fri 18:00-Mon 08:00", "2026-11-20T18:00", True),
        ("Fri 18:00-Mon 08:00", "2026-11-22T12:00", True),
        ("Fri 18:00-Mon 08:00", "2026-11-23T07:59", True),
        ("Fri 18:00-Mon 08:00", "2026-11-23T08:00", False),
        ("friday 18:00 – monday 08:00", "2026-11-22T12:00", True),
        ("22:00-06:00", "2026-11-22T23:30", True),
        ("22:00-06:00", "2026-11-23T05:59", True),
        ("22:00-06:00", "2026-11-23T06:00", False),
        ("09:00-17:00", "2026-11-23T12:00", True),
        ("18:00-24:00", "2026-11-23T23:59", True),
        ("18:00-24:00", "2026-11-24T00:00", False),
        ("12:00-12:59", "2026-11-23T12:58", True),
        ("Sat", "2026-11-21T00:00", True),
        ("Sat-Sun", "2026-11-23T00:00", False),
        ("2026-12-23 12:00/2027-01-04 08:00", "2026-12-31T00:00", True),
        ("2026-12-23 12:00/2027-01-04 08:00", "2027-01-04T08:00", False),
    ],
)
def test_freezes(text: str, when: str, frozen: bool) -> None:
    at_s = datetime.fromisoformat(when).replace(tzinfo=UTC).timestamp()
    assert (frozen_until(at_s, [parse_freeze(text)], zone("UTC")) is not None) is frozen


def test_a_freeze_is_local_time() -> None:
    at_s = datetime(2026, 11, 20, 17, 30, tzinfo=UTC).timestamp()  # 18:30 in Berlin
    assert frozen_until(at_s, [parse_freeze("Fri 18:00-Mon 08:00")], zone("UTC")) is None
    found = frozen_until(at_s, [parse_freeze("Fri 18:00-Mon 08:00")], zone("Europe/Berlin"))
    assert found is not None
    assert found[1] == datetime(2026, 11, 23, 7, 0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    "text", ["", "Funday 18:00-Mon 08:00", "25:00-26:00", "18:00-24:30", "Fri 18:00", "2027-01-01/2026-01-01"]
)
def test_a_wrong_freeze_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="is not a freeze: write"):
        SafetySettings(freeze=(text,))


def test_a_wrong_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="'Mars' is not a time zone"):
        SafetySettings(timezone="Mars")


def receipt(at_s: float, after: dict[str, object], *, changed: bool = True, kind: str = "adjust_batch_size") -> Record:
    return Record(
        id=f"r{at_s}",
        kind=kind,
        service="ranker",
        at_s=at_s,
        body={"lever": "batch_size", "after": after, "applied": True, "changed": changed},
    )


def test_facts_are_read_out_of_the_ledger() -> None:
    records = [
        receipt(3.0, {"batch_size": 1}, kind="roll_back"),
        receipt(2.0, {"batch_size": 8}),
        receipt(1.0, {"batch_size": 8}, changed=False),
        Record(id="g1", kind="guard", service="ranker", at_s=4.0, body={"guard": "ownership:batch_size"}),
        Record(id="g2", kind="guard", service="ranker", at_s=5.0, body={"guard": "ownership:batch_size"}),
        Record(
            id="i", kind="adjust_batch_size", phase="intent", service="ranker", at_s=4.5, body={"lever": "batch_size"}
        ),
        Record(id="g0", kind="guard", service="ranker", at_s=1.5, body={"guard": "ownership:batch_size"}),
    ]
    assert last_written(records, "ranker") == {"batch_size": {"batch_size": 1}}
    assert last_written(records, "other") == {}
    assert foreign_since(records, "ranker") == {"batch_size": 4.0}, "since slotune last wrote it"
    stepped_back = [receipt(1.0, {"batch_size": 4}), receipt(9.0, {"batch_size": 8})]
    assert last_written(stepped_back, "ranker") == {"batch_size": {"batch_size": 4}}, "written last, by an earlier clock"


def test_the_most_careful_mode_wins() -> None:
    assert effective_mode(service("act"), ["batch_size"], "act") == "act"
    assert effective_mode(service("act", lever_mode="approve"), ["batch_size", "replicas"], "act") == "approve"
    assert effective_mode(service("approve", lever_mode="act"), ["batch_size"], "act") == "act"
    assert effective_mode(service("observe"), ["unknown"], "act") == "observe"


def test_every_guard_has_a_name_of_its_own() -> None:
    names = [check.__name__ for check in GUARDS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("mode", "lever_mode", "safety", "planned", "dry_run", "by"),
    [
        ("act", None, {}, "act", False, None),
        ("approve", None, {}, "approve", False, None),
        ("observe", None, {}, "act", False, "mode"),
        ("act", "observe", {}, "act", False, "mode"),
        ("observe", "act", {}, "act", False, None),
        ("act", None, {}, "observe", False, "mode"),
        ("act", None, {"dry_run": True}, "act", False, "dry_run"),
        ("act", None, {}, "act", True, "dry_run"),
        ("act", None, {"freeze": ("Fri 18:00-Mon 08:00",)}, "act", False, "freeze"),
        ("act", None, {"freeze": ("Mon",)}, "act", False, None),
    ],
)
def test_a_stop_needs_no_plan(
    mode: Mode, lever_mode: Mode | None, safety: dict[str, object], planned: Mode, dry_run: bool, by: str | None
) -> None:
    friday_s = datetime(2026, 11, 20, 19, 0, tzinfo=UTC).timestamp()
    limits = SafetySettings.model_validate(safety)
    found = stopped(service(mode, lever_mode), ["batch_size"], limits, friday_s, planned=planned, dry_run=dry_run)
    assert (found.name if found else None) == by
    if found is not None and found.name == "freeze":
        assert found.until_s == datetime(2026, 11, 23, 8, 0, tzinfo=UTC).timestamp()
    assert found is None or found.reason.endswith(".")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [(50, 20, None), (50, 2, "below its bound of 4"), (50, 60, "limits are lowered"), (0, 20, None), (-1, 20, None)],
)
def test_a_limit_is_only_lowered_and_not_below_its_bound(old: int, new: int, said: str | None) -> None:
    lever = Lever(name="admission", actuator="http_admission", minimum=4, maximum=1e9)
    limited = service().model_copy(update={"levers": {"admission": lever}})
    setting = Setting(lever="admission", values={"queue_limit": old})
    seen = replace(facts(service=limited), settings_now={"admission": setting})
    refusal = guard(plan({"queue_limit": new}, {"queue_limit": old}, lever="admission"), seen)
    assert (refusal is None) if said is None else (refusal is not None and said in refusal.reason)
