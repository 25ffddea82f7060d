"""The summary of a run, from fakes of the stack and the screen: what counts as resolved, held and calm."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo import histogram, story
from demo.scenarios import SCENARIOS
from demo.supervisor import Supervisor

T0 = 1000.0


@dataclass
class FakeMail:
    eml: Path
    html: Path
    subject: str = "Hold: 30% of requests fail"


@dataclass
class FakeMailbox:
    mails: list[FakeMail] = field(default_factory=list)


class FakeStack:
    seed = 4

    def __init__(self, tmp_path: Path, name: str) -> None:
        self.scenario = SCENARIOS[name]
        self.run, self.load_out, self.mailbox = tmp_path, tmp_path / "load.jsonl", FakeMailbox()

    def settings_now(self) -> dict[str, Any]:
        return {"batch_size": 1}


def supervisor(
    tmp_path: Path, name: str, p95s: list[float], *, made: list[tuple[str, float]] = (), mails: int = 0
) -> Supervisor:
    """p95s: one value per second, the fault after the first 20. made: (ledger kind, seconds after t0) of changes."""
    stack = FakeStack(tmp_path, name)
    with stack.load_out.open("w") as out:
        for i, p in enumerate(p95s):
            bins = histogram.count([p] * 10)
            row = {"t": T0 - 19 + i, "sent": 10, "ok": 10, "errors": 0, "bins": bins}
            out.write(json.dumps(row) + "\n")
    for number in range(mails):
        path = tmp_path / f"{number}.eml"
        path.write_text("")
        stack.mailbox.mails.append(FakeMail(path, path))
    run = Supervisor(stack, None, 1.0)  # type: ignore[arg-type]
    run.facts.slo_ms, run.facts.fault_at_s, run.facts.end_at_s = 100.0, T0, T0 - 20 + len(p95s)
    receipt = {"lever": "batch_size", "before": {"batch_size": 1}, "after": {"batch_size": 8}, "changed": True}
    events = [story.Event(T0 + at, kind, "result", {**receipt, "at_s": T0 + at}) for kind, at in made]
    run.events = lambda now=False: events  # type: ignore[method-assign]
    return run


SLOW = [10.0] * 20 + [900.0] * 20 + [12.0] * 40
STILL_SLOW = [10.0] * 20 + [900.0] * 60
CALM = [10.0] * 80


@pytest.mark.parametrize(
    ("name", "p95s", "made", "mails", "ok", "resolved"),
    [
        ("batch", SLOW, [("adjust_batch_size", 15)], 1, True, True),
        ("batch", SLOW, [("adjust_batch_size", 15)], 0, False, True),
        ("batch", SLOW, [], 1, False, False),
        ("batch", STILL_SLOW, [("adjust_batch_size", 15)], 1, False, False),
        ("batch", CALM, [("adjust_batch_size", 15)], 1, False, False),
        ("batch", SLOW, [("adjust_batch_size", 15), ("roll_back", 30)], 1, False, False),
        ("hold", CALM, [], 1, True, False),
        ("hold", CALM, [], 0, False, False),
        ("hold", CALM, [("adjust_batch_size", 15)], 1, False, False),
        ("steady", CALM, [], 0, True, False),
        ("steady", CALM, [], 1, False, False),
    ],
)
def test_what_counts(
    tmp_path: Path, name: str, p95s: list[float], made: list[tuple[str, float]], mails: int, ok: bool, resolved: bool
):
    summary = supervisor(tmp_path, name, p95s, made=made, mails=mails).summary()
    assert (summary["ok"], summary["resolved"]) == (ok, resolved)
    assert len(summary["actions"]) == len(made)
    assert summary["airflow_task_failures"] is None, "nobody could be asked"


FULL, SMALL = {"variant": "full"}, {"variant": "small"}
LENT = ("switch_variant", 15, FULL, SMALL)


@pytest.mark.parametrize(
    ("made", "subjects", "ok"),
    [
        ([LENT, ("roll_back", 55, SMALL, FULL)], ["Resolved", "full serves again, -1.9 points for 1 min: 1.9 point-minutes"], True),
        ([LENT, ("roll_back", 55, SMALL, FULL)], ["Resolved", "full serves again"], False),
        ([LENT, ("roll_back", 55, SMALL, FULL)], ["Resolved"], False),
        ([LENT], ["Resolved", "full serves again: 1.9 point-minutes"], False),
        ([LENT, ("roll_back", 30, SMALL, FULL)], ["Resolved", "full serves again: 1.9 point-minutes"], False),
        ([LENT, ("roll_back", 55, SMALL, FULL), ("switch_variant", 58, FULL, SMALL)], ["Resolved", "full serves again: 1 point-minutes"], False),
    ],
    ids=["back by itself", "no price in the mail", "nobody told", "it stays", "back before the load fell", "lent again"],
)
def test_a_variant_has_to_come_back_by_itself_once_the_load_has_fallen(tmp_path: Path, made, subjects, ok):
    run = supervisor(tmp_path, "degrade", SLOW, mails=len(subjects))
    run.facts.calm_at_s = T0 + 45
    for mail, subject in zip(run.stack.mailbox.mails, subjects, strict=True):
        mail.subject = subject
    events = [
        story.Event(T0 + at, kind, "result", {"lever": "variant", "before": old, "after": new, "changed": True, "at_s": T0 + at})
        for kind, at, old, new in made
    ]
    run.events = lambda now=False: events
    summary = run.summary()
    assert summary["ok"] is ok
    if ok:
        assert summary["goodput_rps"] == {"overloaded": 0.0, "after": 10.0}


def test_times_and_percentiles(tmp_path: Path):
    summary = supervisor(tmp_path, "batch", SLOW, made=[("adjust_batch_size", 15)], mails=1).summary()
    assert summary["actions"][0]["at_s"] == 15.0
    # slow until t0+20; the rolling 5 s hold the last slow second until t0+24
    assert summary["t_resolved_s"] == 25.0
    p95 = summary["p95_ms"]
    assert p95["before"] == pytest.approx(10, rel=0.03)
    assert p95["during"] == pytest.approx(900, rel=0.03)
    assert p95["after"] == pytest.approx(12, rel=0.03)
    assert {"scenario", "seed", "slo_ms", "mails", "t_detected_s", "airflow_task_failures"} <= set(summary)


def test_a_hold_for_another_reason_is_not_what_was_expected(tmp_path: Path):
    run = supervisor(tmp_path, "hold", CALM, mails=1)
    run.stack.mailbox.mails[0].subject = "Hold: it recovered by itself"  # type: ignore[attr-defined]
    assert not run.summary()["ok"]
