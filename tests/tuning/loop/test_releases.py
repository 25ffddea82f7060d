"""A release through the whole loop: seen, blamed, reverted, proven; and left alone where it is not to blame."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import START_S, KeptMails, VersionedSource, World, WorldBatch, WorldRelease, parts
from tuning.loop.once import run_once
from tuning.loop.parts import Parts
from tuning.model import Report
from tuning.query import Query
from tuning.releases import VERDICT, releases_of

SERVICES = """
prometheus: {rate_window: 15s, step: 5s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s, hold_again: 60s, stand_down: 20m}
detection: {lookback: 10m, detectors: [rules], close_after: 60s}
releases: {proven_after: 60s, bake: 120s}
mail: {to: [oncall@example.com]}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers:
      batch_size: {min: 1, max: 32, connection: ranker_control}
      release:
        actuator: http_release
        mode: act
        connection: ranker_control
        read: {path: /v2/models/ranker, version_at: /served_version}
        write: {path: /v2/repository/models/ranker/load, body: {version: "{version}"}}
"""
CALM_S = 300.0


def loop_of(world: World, services: str = SERVICES) -> tuple[Parts, FakeLedger, KeptMails]:
    ledger, mails = FakeLedger(), KeptMails()
    made = parts(world, ledger, mails, services)
    levers = {"batch_size": WorldBatch(world), "release": WorldRelease(world)}
    source = VersionedSource(world)
    return dataclasses.replace(made, source=source, actuator=lambda _service, lever: levers[lever]), ledger, mails


def drive(world: World, loop: Parts, seconds: float, every_s: float = 15.0) -> list[Report]:
    reports, end = [], world.now_s + seconds
    while world.now_s < end:
        reports += run_once(loop, world.now, world.wait_until)
        world.wait(every_s)
    return reports


def released(world: World, loop: Parts, version: str = "2", *, slow: float = 1.0, errors: float = 0.0) -> None:
    drive(world, loop, CALM_S)
    world.slow_by_version[version], world.errors_by_version[version] = slow, errors
    world.version = version


def surge_at(at_s: float, factor: float):
    return lambda t: 60.0 * (factor if t >= at_s else 1.0)


def test_a_slower_version_is_named_reverted_first_and_proven():
    world = World()
    loop, ledger, mails = loop_of(world)
    released(world, loop, slow=2.5)
    reports = drive(world, loop, 400)
    plan = reports[0].plan
    assert plan.diagnosis.cause == "bad_release"
    assert (plan.diagnosis.release.old, plan.diagnosis.release.new) == ("1", "2")
    assert plan.diagnosis.slower.low <= 2.5 <= plan.diagnosis.slower.high
    assert "version 2" in plan.diagnosis.evidence[0] and "version 1" in plan.diagnosis.evidence[0]
    assert plan.chosen.levers == ("release",) and plan.chosen.changes[0].new == {"version": "1"}
    assert world.version == "1" and world.applies == [{"version": "1"}]
    assert [(r.outcome.verdict, r.outcome.resolved) for r in reports] == [("improved", True)]
    found = releases_of(ledger.find(Query(kinds=("release",))))
    assert [(r.old, r.new, r.hands) for r in found] == [("1", "2", "others"), ("2", "1", "slotune")]
    first = mails.mails[0]
    assert first.subject == "[slotune] Release taken back: ranker: version 2 → 1", "told before it is proven"
    assert first.event == "rollback" and "2.5 times as long" in first.text and "by other hands" in first.text
    assert "Resolved" in mails.mails[1].subject and len(mails.mails) == 2


def test_a_surge_at_the_minute_of_a_harmless_release_is_not_blamed_on_it():
    world = World(qps=surge_at(CALM_S + 15, 3.0))
    loop, _, _ = loop_of(world)
    released(world, loop, slow=1.0)
    reports = drive(world, loop, 400)
    assert reports and all(report.plan.diagnosis.cause != "bad_release" for report in reports)
    assert world.version == "2" and reports[0].plan.chosen.levers == ("batch_size",)


def test_a_slower_version_is_blamed_although_the_load_rose_at_the_same_minute():
    world = World(qps=surge_at(CALM_S + 15, 1.6))
    loop, _, _ = loop_of(world)
    released(world, loop, slow=2.5)
    reports = drive(world, loop, 200)
    assert reports[0].plan.diagnosis.cause == "bad_release" and reports[0].plan.chosen.levers == ("release",)


def test_a_release_that_came_after_the_onset_is_not_blamed():
    world = World(qps=surge_at(CALM_S, 3.0))
    loop, _, _ = loop_of(world)
    drive(world, loop, CALM_S - 15)
    world.wait_until(START_S + CALM_S + 40)
    world.slow_by_version["2"] = 1.5
    world.version = "2"
    world.wait(30)
    reports = drive(world, loop, 60)
    assert reports[0].plan.diagnosis.cause != "bad_release"


def test_a_version_that_fails_requests_is_reverted_although_p95_is_met():
    world = World()
    loop, _, _ = loop_of(world)
    released(world, loop, errors=0.12)
    reports = drive(world, loop, 400)
    assert reports[0].plan.diagnosis.cause == "bad_release" and "fail with version 2" in reports[0].plan.reason
    assert world.version == "1" and reports[0].outcome.verdict == "improved"


def test_a_reverted_version_that_its_owner_puts_back_is_left_alone():
    world = World()
    loop, _, _ = loop_of(world)
    released(world, loop, slow=2.5)
    drive(world, loop, 300)
    assert world.version == "1"
    drive(world, loop, 200)
    world.version = "2"
    reports = drive(world, loop, 300)
    assert world.version == "2" and world.applies == [{"version": "1"}]
    assert reports and reports[0].refusal.guard == "ownership:release" and "stands down" in reports[0].refusal.reason
    assert reports[0].refusal.until_s is not None


@pytest.mark.parametrize("after_s", [5.0, 10.0, 20.0])
def test_a_release_is_written_down_by_the_first_sweep_after_it_and_once(after_s):
    """The lever shows the version before so many points have it that the metrics alone are believed."""
    world = World()
    loop, ledger, _ = loop_of(world)
    released(world, loop)
    world.wait(after_s)
    run_once(loop, world.now, world.wait_until)
    seen = releases_of(ledger.find(Query(kinds=("release",))))
    assert [(one.old, one.new, one.hands) for one in seen] == [("1", "2", "others")]
    drive(world, loop, 100, every_s=5.0)
    assert len(releases_of(ledger.find(Query(kinds=("release",))))) == 1


def test_nothing_is_changed_before_it_shows_whether_the_release_is_to_blame():
    """Swept often: the SLO breaks before the new version's rates are its own, and a larger batch would do at that."""
    world = World(alpha_ms=6.0)
    loop, _, _ = loop_of(world, SERVICES.replace("hold_again: 60s", "hold_again: 10s, passing_again: 5s").replace("p95: 150ms, for: 10s", "p95: 150ms, for: 1s"))
    released(world, loop, slow=3.5)
    reports = drive(world, loop, 120, every_s=5.0)
    first, *others = [report.plan for report in reports]
    assert first.diagnosis.cause == "fresh_release" and not first.chosen.changes
    assert "version 2 replaced version 1" in first.reason and "looked at again then" in first.reason
    assert "no lever cures" not in first.reason
    changed = [plan for plan in others if plan.chosen.changes]
    assert changed[0].diagnosis.cause == "bad_release" and changed[0].chosen.levers == ("release",)
    assert world.version == "1" and not world.applies[1:]


def test_a_later_version_is_a_release_of_its_own():
    world = World()
    loop, _, _ = loop_of(world)
    released(world, loop, slow=2.5)
    drive(world, loop, 500)
    world.slow_by_version["3"], world.version = 3.0, "3"
    drive(world, loop, 300)
    assert world.version == "1" and world.applies == [{"version": "1"}, {"version": "1"}]


def test_without_a_proven_version_nothing_is_reverted_and_a_person_is_told():
    world = World(alpha_ms=40.0)  # over the SLO with whatever serves
    loop, _, _ = loop_of(world, SERVICES.replace("p95: 150ms", "p95: 20ms"))
    released(world, loop, slow=2.5)
    reports = drive(world, loop, 200)
    assert world.version == "2" and all("release" not in r.plan.chosen.levers for r in reports)


def test_where_gitops_keeps_the_version_the_commit_is_named_and_nothing_changed():
    world = World()
    loop, _, _ = loop_of(world)

    class Kept(WorldRelease):
        def read(self, service):
            words = "managed by Argo CD, which would undo the change: change there image: x:2 -> x:1"
            return super().read(service).model_copy(update={"useless": words})

    kept = Kept(world)
    loop = dataclasses.replace(loop, actuator=lambda _s, name: kept if name == "release" else WorldBatch(world))
    released(world, loop, slow=2.5)
    report = drive(world, loop, 60)[0]
    assert not report.plan.chosen.changes and report.plan.diagnosis.cause == "bad_release"
    assert "version 2 takes 2.5 times as long as version 1" in report.plan.reason
    assert "change there image: x:2 -> x:1" in report.plan.reason and world.version == "2"
    assert {option.reason.split(":")[0] for option in report.plan.rejected} == {"batch_size"}


def test_a_revert_that_does_not_help_is_undone():
    """Whatever was released at that minute, something else goes on being slow."""
    world = World()
    loop, _, _ = loop_of(world)
    released(world, loop, slow=2.5)
    world.slow_by_version["1"] = 2.5
    reports = drive(world, loop, 300)
    assert world.applies[:2] == [{"version": "1"}, {"version": "2"}]
    assert reports[0].decision.step == "roll_back" and reports[0].rollback
    assert all(report.plan.chosen.levers != ("release",) for report in reports[1:]), "it was tried and did not help"


def test_a_version_that_is_gone_leaves_everything_as_it_is_and_says_so():
    world = World()
    loop, _, _ = loop_of(world)
    lever = WorldRelease(world, known=("2",))
    gone = dataclasses.replace(loop, actuator=lambda _s, name: lever if name == "release" else WorldBatch(world))
    released(world, gone, slow=2.5)
    reports = drive(world, gone, 100)
    assert world.version == "2" and reports[0].receipts[0].reason == "there is no version 1"
    assert not reports[0].receipts[0].changed


@pytest.mark.parametrize(("service", "lever", "asked"), [("act", "", "approve"), ("observe", "", "observe"), ("approve", "", "approve"), ("act", "mode: act, ", "act")])
def test_the_lever_asks_unless_it_is_told_otherwise(service, lever, asked):
    world = World()
    text = SERVICES.replace("    mode: act\n    levers", f"    mode: {service}\n    levers").replace("        mode: act\n", f"        mode: {lever.split()[1][:-1]}\n" if lever else "")
    loop, _, _ = loop_of(world, text)
    released(world, loop, slow=2.5)
    plan = drive(world, loop, 60)[0].plan
    assert plan.chosen.levers == ("release",) and plan.mode == asked


def test_without_the_lever_a_slower_version_is_named_and_held_not_paid_for():
    world = World(alpha_ms=6.0)
    loop, _, mails = loop_of(world, SERVICES[: SERVICES.index("      release:")])
    released(world, loop, slow=3.5)
    reports = drive(world, loop, 200)
    plan = reports[0].plan
    assert plan.diagnosis.cause == "bad_release" and not plan.chosen.changes and not world.applies
    assert plan.reason.startswith("hold: version 2 takes 3.") and "times as long as version 1" in plan.reason
    assert "no lever cures that: bring version 1 back, or give the service the lever `release`" in plan.reason
    assert [option.reason for option in plan.rejected] == [
        "batch_size: version 2 is what is wrong, and this would only pay for it"
    ]
    assert all(not report.plan.chosen.changes for report in reports)
    assert any("bring version 1 back" in mail.text for mail in mails.mails)


def test_without_the_lever_and_without_a_proven_version_no_version_is_named_to_go_back_to():
    world = World(alpha_ms=6.0)
    services = SERVICES[: SERVICES.index("      release:")].replace("proven_after: 60s", "proven_after: 1h")
    loop, _, _ = loop_of(world, services)
    released(world, loop, slow=3.5)
    blamed = [r.plan for r in drive(world, loop, 200) if r.plan.diagnosis.cause == "bad_release"]
    assert blamed and all("bring a version back that kept the SLO" in plan.reason for plan in blamed)


def verdicts(ledger: FakeLedger) -> list[tuple[str, str]]:
    return [(str(r.body["verdict"]), str(r.body["sentence"])) for r in ledger.records.values() if r.kind == VERDICT]


def test_a_harmless_release_is_told_to_be_well_once_it_has_baked():
    world = World()
    loop, ledger, mails = loop_of(world)
    released(world, loop)
    assert drive(world, loop, 100) == [] and verdicts(ledger) == []
    assert drive(world, loop, 120) == []
    assert [verdict for verdict, _ in verdicts(ledger)] == ["same"]
    assert [mail.subject for mail in mails.mails] == [
        "[slotune] Release: ranker: version 2 is no worse than version 1: P95 and failed requests are the same"
    ]
    drive(world, loop, 100)
    assert len(mails.mails) == 1


def test_a_slower_release_within_the_slo_is_told_and_left_alone():
    world = World()
    loop, ledger, mails = loop_of(world)
    released(world, loop, slow=1.3)
    assert drive(world, loop, 240) == [] and world.version == "2"
    (verdict, sentence), = verdicts(ledger)
    assert verdict == "worse" and "version 2 is worse than version 1: P95" in sentence
    assert mails.mails[0].tone == "bad" and any("Mean compute time of a batch" in line for line in mails.mails[0].text.splitlines())


def test_a_release_that_was_taken_back_is_told_by_the_report_alone():
    world = World()
    loop, ledger, mails = loop_of(world)
    released(world, loop, slow=2.5)
    drive(world, loop, 500)
    assert [verdict for verdict, _ in verdicts(ledger)] == ["taken back"]
    assert not any("Release:" in mail.subject for mail in mails.mails)


def test_a_release_under_another_load_cannot_be_told_by_its_latency():
    world = World(qps=surge_at(CALM_S + 5, 1.85))
    loop, ledger, _ = loop_of(world)
    released(world, loop)
    drive(world, loop, 240)
    (verdict, sentence), = verdicts(ledger)
    assert verdict == "cannot tell" and "cannot be told" in sentence
