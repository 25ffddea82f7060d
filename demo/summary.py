"""What a run comes to: the summary for machines, the timeline and the comparison for people."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from demo import story
from demo.mailbox import Mail
from demo.scenarios import Scenario
from demo.screen import Screen

BACK = " again"
"""What the subject of the mail says that a temporary change is over."""
CALM_S = 15.0
"""How long P95 must have been under the SLO before the demo believes it."""


@dataclass
class Facts:
    """What the run has learned so far. Times in seconds since the epoch, 0 while not reached."""

    scenario: Scenario
    slo_ms: float = 0.0
    capacity_rps: float = 0.0
    fault_rps: float | None = None
    service_s: dict[int, float] = field(default_factory=dict)
    baseline_at_s: float = 0.0
    fault_at_s: float = 0.0
    calm_rps: float = 0.0
    calm_at_s: float = 0.0
    """When the load fell again; 0 where it does not."""
    end_at_s: float = 0.0
    airflow_url: str = ""
    link: str = ""
    """The notification's link to the request for a yes."""
    yes_at_s: float = 0.0
    yes_by: str = ""
    error: str | None = None


class Witness(Protocol):
    """The part of the stack that is asked at the end."""

    seed: int

    @property
    def mailbox(self) -> Any: ...

    def settings_now(self) -> dict[str, Any]: ...


def summarise(
    facts: Facts, stack: Witness, seconds: Sequence[story.Second], events: Sequence[story.Event],
    task_failures: list[str] | None,
) -> dict[str, Any]:  # fmt: skip
    """Everything that a machine wants to know. Times are seconds after the fault; None: it did not happen.

    task_failures: None when Airflow could not be asked.
    """
    s, t0 = facts.scenario, facts.fault_at_s
    end = facts.end_at_s or (seconds[-1].t if seconds else t0)
    everything = story.actions(events, t0) if t0 else []
    # What goes back by itself once the load has fallen is no answer to the fault.
    until_s = facts.calm_at_s - t0 if facts.calm_at_s else math.inf
    made = [one for one in everything if one["at_s"] <= until_s]
    calm = story.under_for_good_since(seconds, facts.slo_ms, t0) if t0 else None
    resolved = calm is not None and _is_resolved(facts, seconds, made)
    mails: tuple[Mail, ...] = tuple(stack.mailbox.mails)
    detected = story.first(events, {"open_incidents"}, t0) if t0 else None
    mailed_s = [m.eml.stat().st_mtime - t0 for m in mails] if t0 else []
    proof = [
        at for at, m in zip(mailed_s, mails, strict=False)
        if made and at >= made[-1]["at_s"] and s.proof in m.subject
    ]  # fmt: skip
    refused = story.refusals(events, t0) if t0 else []
    told_no = [at for at in mailed_s if refused and at >= refused[-1]["at_s"]]
    named = [m for m in mails if s.reason in m.subject]
    approved = s.mode != "approve" or _approved(facts, made)
    plans = [e.body for e in events if e.kind == "choose_action" and t0 and e.at_s >= t0]
    # What is held while too little tells is no answer yet: the first plan that changes something is.
    plan: Mapping[str, Any] = next((p for p in plans if p.get("chosen", {}).get("changes")), plans[0] if plans else {})
    named_right = _named_right(s, plan, made)
    back = [one for one in everything if one["at_s"] > until_s]
    returned = _returned(made, back, mails, s.price)
    proven = bool({"refused": told_no, "hold": named, "returned": proof and returned}.get(s.expected, proof))
    return {
        "scenario": s.name,
        "seed": stack.seed,
        "emulated": s.serving in ("replicas", "pods", "language"),
        "ok": (
            facts.error is None and approved and named_right
            and _as_expected(s, resolved, len(made), len(mails), proven) and _unhurt(s, seconds, stack)),
        "cause": plan.get("diagnosis", {}).get("cause"),
        "evidence": plan.get("diagnosis", {}).get("evidence", []),
        "resolved": resolved,
        "actions": everything,
        "returned": returned if s.expected == "returned" else None,
        "goodput_rps": _goodput(facts, seconds, made),
        "refusals": refused,
        "approval": _approval(facts),
        "t_detected_s": None if detected is None else round(detected.at_s - t0, 1),
        "t_resolved_s": round(calm - t0, 1) if resolved and calm is not None else None,
        "t_mailed_s": round(proof[-1] if proof else mailed_s[-1], 1) if mailed_s else None,
        "p95_ms": _p95(facts, seconds, calm if resolved and calm is not None else end, end),
        "slo_ms": facts.slo_ms,
        "capacity_rps": round(facts.capacity_rps, 1),
        "fault_rps": None if facts.fault_rps is None else round(facts.fault_rps, 1),
        "service_ms": {str(b): round(t * 1000, 2) for b, t in facts.service_s.items()},
        "requests": {
            "sent": sum(x.sent for x in seconds), "ok": sum(x.ok for x in seconds),
            "errors": sum(x.errors for x in seconds)},
        "failed_requests": sum(x.errors for x in seconds),
        "settings_after": stack.settings_now(),
        "mails": [{"subject": m.subject, "eml": str(m.eml), "html": str(m.html)} for m in mails],
        "airflow_task_failures": None if task_failures is None else len(task_failures),
        "airflow_failed_tasks": task_failures,
        "airflow_url": facts.airflow_url,
        "watched_s": round(end - t0, 1) if t0 else 0.0,
        "error": facts.error,
    }  # fmt: skip


def _approval(facts: Facts) -> dict[str, Any] | None:
    """The yes of a person; None where none was asked for or given."""
    if not facts.yes_at_s:
        return None
    return {"link": facts.link, "by": facts.yes_by, "at_s": round(facts.yes_at_s - facts.fault_at_s, 1)}


def _approved(facts: Facts, made: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a person, led there by the notification, said yes before the first change was made."""
    first_s = facts.fault_at_s + made[0]["at_s"] if made else 0.0
    return bool(facts.link) and 0 < facts.yes_at_s <= first_s


def _named_right(s: Scenario, plan: Mapping[str, Any], made: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the first plan with a change names the cause that the story asks for, by the lever that it asks for."""
    caused = not s.cause or plan.get("diagnosis", {}).get("cause") == s.cause
    return caused and (not s.first or (bool(made) and made[0]["lever"] == s.first))


def _is_resolved(facts: Facts, seconds: Sequence[story.Second], made: Sequence[Mapping[str, Any]]) -> bool:
    """The SLO was broken, a change was made, and it still stands. (That P95 is under the SLO is the caller's.)"""
    stands = bool(made) and not made[-1]["undo"]
    broken = story.broken_at(seconds, facts.slo_ms, facts.fault_at_s)
    return facts.scenario.expected in ("resolved", "returned") and stands and broken is not None


def _as_expected(s: Scenario, resolved: bool, changes: int, mails: int, proven: bool) -> bool:
    return {
        "resolved": resolved and proven,
        "returned": resolved and proven,
        "healed": changes == 1 and proven,
        "hold": changes == 0 and proven,
        "refused": changes == 0 and proven,
        "nothing": changes == 0 and mails == 0,
    }[s.expected]


def _returned(
    made: Sequence[Mapping[str, Any]], back: Sequence[Mapping[str, Any]], mails: Sequence[Mail], price: str
) -> bool:
    """Whether the one thing that happened after the load had fallen is that the first change went back, told with what
    it had cost."""
    if not made or len(back) != 1:
        return False
    same = back[0]["to"] == made[0]["from"] and back[0]["lever"] == made[0]["lever"] and back[0]["undo"]
    return bool(same) and any(BACK in m.subject and price in m.subject for m in mails)


def _goodput(
    facts: Facts, seconds: Sequence[story.Second], made: Sequence[Mapping[str, Any]]
) -> dict[str, float | None] | None:
    """Answers within the SLO per second: from the fault to the first change, and from the last one until the load fell
    or all ended, each without the seconds in which the queue grew or drained. None without a change."""
    if not made or not facts.fault_at_s:
        return None
    t0 = facts.fault_at_s
    end = facts.calm_at_s or facts.end_at_s
    first, last = t0 + made[0]["at_s"], t0 + made[-1]["at_s"]
    return {
        "overloaded": story.goodput(seconds, facts.slo_ms, min(t0 + 5, first), first),
        "after": story.goodput(seconds, facts.slo_ms, max(end - CALM_S, last), end),
    }


def _unhurt(s: Scenario, seconds: Sequence[story.Second], stack: Witness) -> bool:
    """A replica that is healed costs nobody a request, and nothing was killed meanwhile."""
    now = stack.settings_now()
    whole = now.get("replicas") == s.replicas and not now.get("oom_kills")
    return s.expected != "healed" or (whole and not sum(x.errors for x in seconds))


def _p95(facts: Facts, seconds: Sequence[story.Second], calm_s: float, end_s: float) -> dict[str, float | None]:
    """Before the fault, from then until all was calm, and at the end, as the clients saw it."""
    t0 = facts.fault_at_s
    if not t0:
        return {"before": None, "during": None, "after": None}
    during = None if facts.scenario.expected == "nothing" else story.p95_ms(seconds, t0 + 5, calm_s)
    return {
        "before": story.p95_ms(seconds, t0 - 20, t0),
        "during": during,
        "after": story.p95_ms(seconds, max(end_s - CALM_S, t0), end_s),
    }


def tell(screen: Screen, facts: Facts, events: Sequence[story.Event], summary: Mapping[str, Any]) -> None:
    """The timeline and the comparison, for people."""
    t0, end = facts.fault_at_s, facts.end_at_s
    rows: list[tuple[float, str]] = []
    for event in events:
        line = story.line_of(event)
        if line and t0 and event.at_s >= t0 - 1 and event.at_s <= (end or event.at_s):
            rows.append((event.at_s - t0, line))
    if summary["approval"] is not None:
        rows.append((summary["approval"]["at_s"], f"{summary['approval']['by']} says yes, led there by the mail"))
    if summary["t_resolved_s"] is not None:
        rows.append((summary["t_resolved_s"], "P95 back under the SLO, for good"))
    if summary["t_mailed_s"] is not None:
        rows.append((summary["t_mailed_s"], f"mailed: {summary['mails'][-1]['subject']}"))
    timeline = [(0.0, facts.scenario.title), *sorted(rows, key=lambda row: row[0])]
    screen.table(
        f"timeline of {facts.scenario.name}", [(f"{at:+.1f} s", what) for at, what in timeline], ("after t0", "what")
    )
    p95 = summary["p95_ms"]
    screen.table(
        f"{_watched(facts.scenario)}P95 as the clients saw it"
        + (" (EMULATED accelerator)" if summary["emulated"] else ""),
        [tuple("-" if ms is None else ms_text(ms) for ms in (*p95.values(), summary["slo_ms"]))],
        ("before", "during", "after", "SLO"))  # fmt: skip
    for mail in summary["mails"]:
        screen.say(f"mail: {mail['html']}")
    screen.say("as expected" if summary["ok"] else f"NOT as expected{_why(summary)}")


def _watched(scenario: Scenario) -> str:
    """"TTFT " where the demo watches that; "" where it watches whole requests."""
    return "" if scenario.language is None else f"{scenario.language.watched[0].upper()} "


def _why(summary: Mapping[str, Any]) -> str:
    if summary["error"]:
        return f": {summary['error']}"
    return f": {len(summary['actions'])} changes, {len(summary['mails'])} mails, resolved: {summary['resolved']}"


def ms_text(value: float | None) -> str:
    return "no answers" if value is None else f"{value:.0f} ms"
