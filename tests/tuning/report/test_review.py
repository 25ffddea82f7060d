"""Reviews against targets: what counts as resolved, as false, and what is too little to say anything."""

from __future__ import annotations

import pytest

from detection.model import Lever, Service, make_id
from tests.fakes.reports import plan as plan_of
from tuning.loop import records
from tuning.model import LEVER_STEPS, Diagnosis, Guarded, Interval, Outcome, Plan, Receipt, Record, Refusal
from tuning.past import Past
from tuning.report.readiness import readiness
from tuning.report.review import DAY_S, FEW, Out, Review, review
from tuning.report.review_mail import as_html, as_text, render_review

WEEK_S = 7 * DAY_S


def opened(number: int, at_s: float, *, tier: str = "act", service: str = "ranker") -> Record:
    body = {"id": f"i{number}", "service": service, "symptom": "latency", "tier": tier, "opened_at_s": at_s}
    return Record(
        id=f"i{number}", kind="open_incidents", service=service, incident_id=f"i{number}", at_s=at_s + 5, body=body
    )


def closed(number: int, at_s: float, service: str = "ranker") -> Record:
    name = f"i{number}"
    return Record(id=f"{name}:closed", kind="open_incidents", service=service, parent_id=name, incident_id=name,
                  at_s=at_s, body={"closed": True})  # fmt: skip


def planned(number: int, at_s: float, **changes: object) -> Plan:
    return plan_of(id=f"p{number}", incident_id=f"i{number}", service="ranker", decided_at_s=at_s, **changes)


def changed(plan: Plan, at_s: float) -> Record:
    change = plan.chosen.changes[0]
    receipt = Receipt(id=f"{plan.id}:{change.lever}", plan_id=plan.id, service=plan.service, lever=change.lever,
                      before=change.old, after=change.new, applied=True, changed=True, at_s=at_s)  # fmt: skip
    assert records.receipt_record(receipt, plan).kind == LEVER_STEPS[change.lever]
    return records.receipt_record(receipt, plan)


def judged(plan: Plan, at_s: float, verdict: str = "improved", ratio: float = 0.5, after: float = 100.0) -> Record:
    outcome = Outcome(id=f"{plan.id}:o", plan_id=plan.id, service=plan.service, verdict=verdict, at_s=at_s,
                      resolved=verdict == "improved", p95_before_ms=400.0, p95_after_ms=after,
                      effect=Interval(value=ratio, low=ratio * 0.8, high=ratio * 1.2))  # fmt: skip
    return records.outcome_record(outcome, plan)


def cured(number: int, at_s: float, **changes: object) -> list[Record]:
    plan = planned(number, at_s + 10, **changes)
    return [opened(number, at_s), records.plan_record(plan), changed(plan, at_s + 20), judged(plan, at_s + 120),
            closed(number, at_s + 200)]  # fmt: skip


def reviewed(*lines: Record, labels: dict[str, str] | None = None, out: tuple[Out, ...] = ()) -> Review:
    return review(Past().add(lines), labels or {}, out, 0.0, WEEK_S)


def figure(seen: Review, name: str):
    return next(f for f in seen.figures if f.name.startswith(name))


def test_what_was_cured_is_counted_and_rated_once_there_are_enough():
    few = reviewed(*cured(1, 100.0))
    assert (few.incidents, few.resolved) == (1, 1)
    assert figure(few, "Incidents resolved").text == "100 %, too few to rate" and figure(few, "Time").met is None
    many = reviewed(*[line for n in range(FEW) for line in cured(n, 100.0 * n)])
    resolved, minutes, p95 = (figure(many, name) for name in ("Incidents resolved", "Time", "P95"))
    assert resolved.met is True and resolved.of == FEW and resolved.text == "100 %"
    assert minutes.value == pytest.approx(2.0) and minutes.met is True
    assert p95.value == pytest.approx(-0.5) and p95.met is True and figure(many, "Utilisation").value is None


def test_nothing_is_no_figure_and_no_hundred_percent():
    seen = reviewed()
    assert [f.text for f in seen.figures] == ["no figure"] * len(seen.figures)
    mail = render_review(seen)
    assert "no figure" in mail.text and "100 %" not in mail.text and not mail.images


@pytest.mark.parametrize(("mode", "known", "false"), [("act", 1, 1), ("approve", 1, 1), ("observe", 0, 0)])
def test_an_incident_that_closed_alone_is_false_only_where_slotune_was_allowed_to_act(mode, known, false):
    plan = planned(1, 110.0, mode=mode)
    seen = figure(reviewed(opened(1, 100.0), records.plan_record(plan), closed(1, 300.0)), "False")
    assert seen.of == known and (seen.value == 1.0) == bool(false)


def test_a_person_knows_better_than_the_rule():
    lines = [opened(1, 100.0), closed(1, 300.0), *cured(2, 1000.0)]
    assert figure(reviewed(*lines), "False").note.startswith("1 of 2; 0 said so by people, 1 closed by themselves")
    turned = figure(reviewed(*lines, labels={"i1": "real", "i2": "not_real"}), "False")
    assert turned.value == 0.5 and "1 said so by people, 0 closed by themselves" in turned.note


def test_a_cause_that_no_lever_cures_is_real_and_an_open_incident_is_not_known_yet():
    plan = planned(1, 110.0, diagnosis=Diagnosis(cause="errors", curable=False))
    assert figure(reviewed(opened(1, 100.0), records.plan_record(plan), closed(1, 300.0)), "False").value == 0.0
    assert figure(reviewed(opened(1, 100.0)), "False").of == 0


def test_only_what_began_within_counts_and_warnings_do_not():
    seen = reviewed(opened(1, -50.0), opened(2, WEEK_S + 1), opened(3, 100.0, tier="warn"), opened(4, 100.0))
    assert seen.incidents == 1


def test_a_lease_costs_what_it_was_in_force_within_the_review():
    plan = planned(1, -7200.0, lease_s=9000.0)
    plan = plan.model_copy(update={"chosen": plan.chosen.model_copy(update={"cost_per_hour": 2.0})})
    lines = [records.plan_record(plan), changed(plan, -3600.0), records.closing_of(plan, 5400.0, "keep", "over")]
    seen = reviewed(*lines)
    assert (seen.leases, seen.lease_cost) == (1, pytest.approx(3.0))


def priced(plan: Plan, at_s: float, before: float, after: float) -> Record:
    record = judged(plan, at_s)
    costs = {f"cost_{k}": {"per_hour": v, "per_1000": v / 10} for k, v in (("before", before), ("after", after))}
    return record.model_copy(update={"body": {**record.body, **costs}})


def test_what_kept_changes_saved_counts_from_when_they_were_made_and_leases_until_they_end():
    kept, lent = planned(1, 0.0), planned(2, 3600.0, lease_s=9000.0)
    undone = planned(3, 7200.0)
    lines = [
        records.plan_record(kept), changed(kept, 0.0), priced(kept, 120.0, 6.0, 4.0),
        records.closing_of(kept, 130.0, "keep", "kept"),
        records.plan_record(lent), changed(lent, 3600.0), priced(lent, 3700.0, 4.0, 9.0),
        records.closing_of(lent, 10_800.0, "keep", "over"),
        records.plan_record(undone), changed(undone, 7200.0), priced(undone, 7300.0, 4.0, 1.0),
        Record(id=make_id(undone.id, "inverse"), kind="roll_back", phase="intent", service="ranker", parent_id=undone.id,
               at_s=7400.0, body={}),
    ]  # fmt: skip
    (row,) = reviewed(*lines).costs
    assert row.name == "ranker"
    assert row.saved == pytest.approx(2.0 * 168 - 5.0 * 2)


def test_records_in_any_order_and_twice_give_the_same():
    lines = [line for n in range(3) for line in cured(n, 500.0 * n)]
    once = review(Past().add(lines), {}, (), 0.0, WEEK_S)
    assert review(Past().add(lines[::-1]).add(lines), {}, (), 0.0, WEEK_S) == once


def test_the_mail_the_page_and_the_text_say_the_same_and_escape():
    out = (Out("<b>x</b>", "batch_size 1 -> 8", "leased", 5000.0, 0.4),)
    seen = reviewed(*[line for n in range(6) for line in cured(n, 3 * DAY_S + 900.0 * n)], out=out)
    mail = render_review(seen)
    assert mail.subject == "[slotune] Week: 6 incidents, 6 resolved" and sorted(mail.images) == ["days", "predictions"]
    for text in (mail.html, as_html(seen)):
        assert "&lt;b&gt;x" in text and "<b>x" not in text and "at most 10 min" in text
    assert "data:image/png;base64," in as_html(seen) and "target: at least 90 %, met" in as_text(seen)


RANKER = Service(name="ranker", serving="triton", slo={"p95_ms": 100.0}, mode="observe")


def test_utilisation_is_what_the_verdicts_measured_the_gpu_before_the_services_own():
    def seen_of(*guards):
        plan = planned(1, 110.0)
        judged_one = judged(plan, 220.0)
        body = {**judged_one.body, "guards": [g.model_dump(mode="json") for g in guards]}
        return figure(reviewed(opened(1, 100.0), records.plan_record(plan), changed(plan, 120.0),
                               judged_one.model_copy(update={"body": body})), "Utilisation")  # fmt: skip

    busy, gpu = (Guarded(signal=s, before=0.4, after=a, ok=True) for s, a in (("busy", 0.2), ("gpu_util", 0.6)))
    assert seen_of(busy, gpu).value == pytest.approx(0.5) and seen_of(busy).value == pytest.approx(-0.5)
    assert seen_of().value is None and seen_of(busy.model_copy(update={"before": 0.0})).value is None


def test_a_service_of_which_little_is_known_is_not_ready():
    cases = Past().add([opened(1, 100.0)])
    found = readiness(RANKER, list(cases.incidents.values()), [], {}, True, 200.0)
    assert not found.ready and {c.name: c.met for c in found.criteria}["alarms"] is None


def labelled(count: int, **changes: object) -> tuple[Past, dict[str, str]]:
    """Incidents over three weeks, each with a plan that would have changed something; all were real, people say."""
    lines = []
    for n in range(count):
        plan = planned(n, 7 * DAY_S * n + 10, **changes)
        lines += [opened(n, 7 * DAY_S * n), records.plan_record(plan)]
    return Past().add(lines), {f"i{n}": "real" for n in range(count)}


def found_of(past: Past, labels: dict[str, str], service: Service = RANKER):
    tries = [one for mine in past.tries_of().values() for one in mine]
    return readiness(service, list(past.incidents.values()), tries, labels, True, 21 * DAY_S)


LEVERED = RANKER.model_copy(update={"levers": {"batch_size": Lever(name="batch_size", actuator="nop", maximum=8)}})


def test_a_service_whose_alarms_and_plans_were_good_is_ready_and_each_criterion_can_fail():
    past, labels = labelled(3, mode="observe")
    assert found_of(past, labels, LEVERED).ready
    assert not found_of(past, labels).ready, "without a lever"
    assert not found_of(past, labels | {"i1": "not_real"}, LEVERED).ready, "one of three was false"
    assert not found_of(*labelled(2, mode="observe"), LEVERED).ready, "too few"
    refused = records.refusal_record(
        Refusal(id="r", plan_id="p1", service="ranker", guard="ownership:replicas", reason="x", at_s=1.0), planned(1, 1.0)
    )
    assert not found_of(past.add([refused]), labels, LEVERED).ready, "a guard refused one"


def test_from_approve_to_act_it_is_the_approved_changes_that_count():
    approve = LEVERED.model_copy(update={"mode": "approve"})

    def seen(verdicts):
        lines = [ln for n, v in enumerate(verdicts) for plan in (planned(n, 3 * DAY_S * n + 10, mode="approve"),)
                 for ln in (opened(n, 3 * DAY_S * n), records.plan_record(plan), changed(plan, plan.decided_at_s + 5),
                            judged(plan, plan.decided_at_s + 100, v))]  # fmt: skip
        return found_of(Past().add(lines), {}, approve)

    assert seen(["improved"] * 5).ready and seen(["improved"] * 4 + ["unchanged"]).ready
    assert not seen(["improved"] * 3 + ["worse"] * 2).ready
    few = {one.name: one.met for one in seen(["improved"] * 4).criteria}
    assert few["changes"] is None and few["rolled back"] is None
