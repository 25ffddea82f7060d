"""The mail: what it says, that outside text stays text, and that it is a well-formed message."""

from __future__ import annotations

import email
import re
import struct
from email import policy
from html.parser import HTMLParser

import pytest

from detection.model import Incident
from tests.fakes import reports
from tuning.model import Change, Decision, Option, Outcome
from tuning.report import approval, render, words
from tuning.report.plot import hurting, report_plot

EVIL = '<script>alert("x")</script><img src=x onerror=y>{{ 7*7 }}{% include "x" %}\r\nBcc: evil@example.com $x^{'


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_a_resolved_incident_says_lever_and_p95_before_and_after():
    mail = render(reports.report())
    assert mail.subject == "[slotune] Resolved: ranker: batch size 1 → 8, P95 4310 ms → 38 ms"
    for text in ("load surge", "150 ms", "-99.1%", "keep", "dearer", "slotune show incident1"):
        assert text in mail.text and text in mail.html.replace("&#39;", "'")


def test_a_lever_without_an_option_is_told_without_figures():
    bound = Option(changes=(), feasible=False, reason="batch_size: the batch size is at its bound of 1")
    assert words.rejected(bound) == ("batch size", "-", "-", "the batch size is at its bound of 1")
    plan = reports.plan()
    assert words.rejected(plan.rejected[0]) == ("minReplicas 1 → 2", "cannot be told", "+1.20/h", "dearer")
    assert "at its bound of 1" in render(reports.report(plan=reports.plan(rejected=(bound,)))).html


def test_what_a_gate_refused_is_in_the_subject_and_its_table_in_the_mail():
    gate = {"gate": "agreement with FP32", "found": "37.20%", "asked": "at least 98.00%", "passed": False}
    reason = "INT8 of ranker is refused: agreement with FP32 is 37.20%, asked for at least 98.00%; the data differ"
    change = Change(lever="precision", old={"version": "1", "precision": "fp32"}, new={"precision": "int8"})
    receipt = reports.report().receipts[0].model_copy(update={
        "lever": "precision", "before": change.old, "after": {"precision": "fp32"}, "applied": False, "changed": False,
        "reason": reason, "evidence": {"gates": [gate]}})  # fmt: skip
    plan = reports.plan(chosen=Option(changes=(change,)))
    mail = render(reports.report(plan=plan, receipts=(receipt,), outcome=None, decision=None))
    assert mail.subject.startswith("[slotune] Not changed: ranker: precision fp32 → int8 could not be made: INT8 of")
    for text in (reason, "Gates before any traffic", "37.20%", "FAILED"):
        assert text in mail.html


@pytest.mark.parametrize(
    ("report", "subject"),
    [
        (reports.held(), "[slotune] Hold: ranker: no lever cures errors"),
        (reports.refused(), "[slotune] Proposed: ranker: ranker is in mode observe"),
        (reports.report(rollback=reports.report().receipts), "[slotune] Rolled back: ranker: batch size 1 → 8"),
        (reports.report(receipts=(), outcome=None), "[slotune] Not changed: ranker: batch size 1 → 8"),
        (reports.report(outcome=None), "[slotune] Not proven: ranker: batch size 1 → 8 was made, and ended before"),
    ],
    ids=["hold", "observe", "rolled back", "not made", "made, and never judged"],
)
def test_the_subject_tells_what_became_of_it(report, subject):
    assert render(report).subject.startswith(subject)


def test_outside_text_is_text_in_every_part():
    outcome = reports.report().outcome
    assert isinstance(outcome, Outcome)
    incident = reports.incident(reason=EVIL)
    evil_plan = reports.plan(reason=EVIL, diagnosis=reports.plan().diagnosis.model_copy(update={"cause": EVIL}))
    mail = render(
        reports.report(
            incident=incident, plan=evil_plan, outcome=outcome.model_copy(update={"reason": EVIL}),
            notes=(EVIL,), events=((reports.T0_S, EVIL),), links={EVIL: "javascript:alert(1)", "ok": "http://h/"},
        )
    )  # fmt: skip
    page = Tags()
    page.feed(mail.html)
    assert "script" not in page.tags and page.tags.count("img") == 1
    assert all("javascript" not in (value or "") for _, value in page.attributes)
    assert "{{ 7*7 }}" in mail.text and "49" not in mail.subject
    held = render(reports.held(EVIL))
    assert "\n" not in held.subject and "\r" not in held.subject
    message = held.to_email(sender="a@example.com", to=("b@example.com",))
    assert "Bcc" not in message


def test_the_message_is_text_html_and_an_inline_picture():
    message = render(reports.report()).to_email(sender="s@example.com", to=("a@example.com", "b@example.com"))
    parsed = email.message_from_bytes(message.as_bytes(), policy=policy.default)
    kinds = [part.get_content_type() for part in parsed.walk()]
    assert kinds == ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]
    picture = list(parsed.walk())[-1]
    html = list(parsed.walk())[3].get_content()
    assert picture["Content-ID"].strip("<>") in html and picture.get_content_disposition() == "inline"
    assert picture.get_content()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_mail_that_is_sent_again_is_the_same_mail():
    one, two = (render(reports.report()).to_email(sender="s@x.example", to=("a@x.example",)) for _ in range(2))
    assert one["Message-ID"] == two["Message-ID"]


def test_the_gates_table_of_int8_is_in_both_forms_and_escaped():
    evidence = {
        "gates": [{"gate": "agreement<b>", "found": "91 %", "asked": "at least 98 %", "passed": False}],
        "latency": [{"batch": 8, "fp32_p50_ms": 11.0, "fp32_p95_ms": 12.0, "int8_p50_ms": 1.3, "int8_p95_ms": 1.4,
                     "speedup": {"value": 8.4, "low": 8.1, "high": 8.7}}, "garbage"],
    }  # fmt: skip
    receipt = reports.report().receipts[0].model_copy(update={"evidence": evidence})
    mail = render(reports.report(receipts=(receipt,)))
    assert "91 %" in mail.text and "8.40 (8.10 to 8.70)" in mail.text and "FAILED" in mail.html
    assert "agreement&lt;b&gt;" in mail.html


def test_no_points_no_picture():
    mail = render(reports.report(timeline=()))
    assert not mail.images and "<img" not in mail.html


def test_emulated_figures_are_labelled_in_both_forms():
    mail = render(reports.report(emulated=True))
    assert "emulated accelerator" in mail.html and "emulated accelerator" in mail.text


def test_the_request_for_approval_shows_plan_and_rejected_options_as_text():
    plan = reports.plan(reason=EVIL)
    body = approval.body(plan)
    assert "batch size 1 → 8" in body and "dearer" in body
    assert "<script" not in body and "{{" not in body and "{%" not in body


def test_incident_values_round_trip_through_json():
    value = reports.incident()
    assert Incident.model_validate(value.model_dump(mode="json")) == value


def test_knobs_are_in_words_wherever_a_sentence_names_them():
    told = reports.report(
        plan=reports.plan(
            reason="min_replicas 2 -> 4 brings P95 to 195 ms; batch_size is at its bound; hold. Hold: as before",
            rejected=(Option(changes=(), reason="batch_size: max_num_seqs and batch_timeout_ms stay"),),
        ),
        refusal=None,
        events=((reports.T0_S, "min_replicas 2 -> 4"),),
    )
    mail = render(told)
    for text in (mail.subject, mail.text, mail.html):
        assert not re.search(r"\b(batch_size|min_replicas|max_num_seqs|batch_timeout_ms)\b", text)
    assert "minReplicas 2 → 4 brings P95 to 195 ms; batch size is at its bound; hold: as before" in mail.text
    assert "Guard: share of failed requests: ok" in mail.text
    assert words.spoken("see /models/batch_size/1 and batch_size=8") == "see /models/batch_size/1 and batch_size=8"


def test_a_borrowed_change_says_until_when_and_what_ends_it_earlier():
    lent = reports.plan(lease_s=3600.0, revert_below_qps=120.0)
    said = "Lease: borrowed until 2026-09-21 15:13:53 UTC, then tested for removal; handed back earlier once fewer than 120 requests/s come"
    assert said in render(reports.report(plan=lent)).text
    assert "Lease" not in render(reports.report()).text
    undone = Decision(step="roll_back", next="done", reason="worse")
    assert "Lease" not in render(reports.report(plan=lent, decision=undone)).text


def test_the_picture_shows_what_hurts_and_the_load_below_it():
    points = tuple((reports.T0_S + 5 * i, 120.0 + i) for i in range(30))
    latency = reports.report(timeline=points, load=points)
    assert (hurting(latency).title, hurting(latency).points, hurting(latency).said) == ("P95", points, "SLO 150 ms")
    failed = tuple((t, 0.25) for t, _ in points)
    errors = reports.report(timeline=points, load=points, failed=failed, failed_limit=0.02)
    curve = hurting(errors)
    assert (curve.title, curve.limit, curve.points[0][1]) == ("failed requests", 2.0, 25.0)
    assert 'alt="failed requests over time' in render(errors).html
    sizes = [struct.unpack(">II", report_plot(r)[16:24]) for r in (latency, reports.report(timeline=points))]
    assert sizes[0][0] == sizes[1][0] == 1280 and sizes[0][1] > sizes[1][1], "the load has room of its own"
    assert report_plot(reports.report(timeline=(), load=points)) is None
