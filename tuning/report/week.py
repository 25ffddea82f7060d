"""The weekly review: what happened, what it achieved, and how good the predictions were. Pure; from ledger records."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
from matplotlib.figure import Figure

from detection.model import Incident, make_id
from tuning.mail import Mail
from tuning.model import LEVER_STEPS, OpenChange, Outcome, Plan, Record, Refusal
from tuning.report import words
from tuning.report.message import COLOURS, environment


@dataclass(frozen=True)
class LeverRow:
    """One lever's week: how often it was pulled and judged, and its median effect (P95 after over before)."""

    lever: str
    pulled: int
    improved: int
    worse: int
    inconclusive: int
    rolled_back: int
    median_effect: float | None


@dataclass(frozen=True)
class Week:
    """The figures of a review. minutes_to_resolve: of resolved incidents, from onset to proof.

    predictions: (predicted P95, observed P95, inside its interval) of every judged change that had a prediction.
    """

    start_s: float
    end_s: float
    incidents: int
    resolved: int
    held: int
    false_alarms: int
    minutes_to_resolve: tuple[float, ...]
    levers: tuple[LeverRow, ...]
    predictions: tuple[tuple[float, float, bool], ...]
    open_changes: tuple[tuple[str, str, float], ...]
    refusals: tuple[tuple[str, int], ...]
    drift: tuple[str, ...] = ()


def review(
    records: Iterable[Record],
    open_changes: Sequence[OpenChange],
    start_s: float,
    end_s: float,
    drift: Sequence[str] = (),
) -> Week:
    """The week's figures. A false alarm: an incident that closed by itself and for which no lever was worth pulling."""
    rows = sorted(records, key=lambda r: (r.at_s, r.id))
    incidents = {
        r.incident_id or r.id: Incident.model_validate(r.body)
        for r in rows
        if r.kind == "open_incidents" and not r.body.get("closed")
    }
    incidents = {k: v for k, v in incidents.items() if v.tier == "act" and v.symptom != "by_hand"}
    plans = {r.id: Plan.model_validate(r.body) for r in rows if r.kind == "choose_action"}
    outcomes = [Outcome.model_validate(r.body) for r in rows if r.kind == "verify_p95"]
    latest = {o.plan_id: o for o in outcomes if o.plan_id in plans}
    solved = {plans[p].incident_id: o.at_s for p, o in latest.items() if o.resolved and o.verdict == "improved"}
    pulled = {r.parent_id for r in rows if r.kind in LEVER_STEPS.values() and r.phase == "result"}
    touched = {plans[p].incident_id for p in pulled if p in plans}
    closed = {r.parent_id for r in rows if r.kind == "open_incidents" and r.body.get("closed")}
    refusals: dict[str, int] = {}
    for record in rows:
        if record.kind == "guard":
            guard = Refusal.model_validate(record.body).guard
            refusals[guard] = refusals.get(guard, 0) + 1
    return Week(
        start_s=start_s,
        end_s=end_s,
        incidents=len(incidents),
        resolved=len(solved.keys() & incidents.keys()),
        held=len({r.incident_id for r in rows if r.kind == "hold"} & incidents.keys()),
        false_alarms=len((closed & incidents.keys()) - touched - solved.keys()),
        minutes_to_resolve=tuple((at - incidents[i].opened_at_s) / 60 for i, at in solved.items() if i in incidents),
        levers=tuple(_lever(lever, plans, latest, rows) for lever in LEVER_STEPS),
        predictions=tuple(_predictions(plans, latest)),
        open_changes=tuple(
            (c.service, words.option_text(c.plan.chosen), c.plan.chosen.cost_per_hour) for c in open_changes
        ),
        refusals=tuple(sorted(refusals.items())),
        drift=tuple(drift),
    )


def _lever(lever: str, plans: dict[str, Plan], latest: dict[str, Outcome], rows: Sequence[Record]) -> LeverRow:
    mine = {p for p, plan in plans.items() if lever in plan.chosen.levers}
    judged = [o for p, o in latest.items() if p in mine]
    effects = sorted(o.effect.value for o in judged if o.effect is not None)
    undone = {r.parent_id for r in rows if r.kind == "roll_back" and r.phase == "intent"}
    made = {r.parent_id for r in rows if r.kind == LEVER_STEPS[lever] and r.phase == "result" and r.body.get("changed")}
    return LeverRow(
        lever=lever,
        pulled=len(made & mine),
        improved=sum(o.verdict == "improved" for o in judged),
        worse=sum(o.verdict == "worse" for o in judged),
        inconclusive=sum(o.verdict == "inconclusive" for o in judged),
        rolled_back=len(undone & mine),
        median_effect=effects[len(effects) // 2] if effects else None,
    )


def _predictions(plans: dict[str, Plan], latest: dict[str, Outcome]) -> Iterable[tuple[float, float, bool]]:
    for plan_id, outcome in latest.items():
        predicted = plans[plan_id].chosen.predicted_p95_ms
        observed = outcome.p95_after_ms
        if predicted is not None and observed is not None and math.isfinite(predicted.value):
            yield predicted.value, observed, predicted.low <= observed <= predicted.high


def render_week(week: Week) -> Mail:
    """The review as a mail."""
    minutes = sorted(week.minutes_to_resolve)
    typical = f"{minutes[len(minutes) // 2]:.1f} min" if minutes else "none resolved"
    share = f"{week.resolved / week.incidents:.0%}" if week.incidents else "no incident"
    hits = sum(inside for _, _, inside in week.predictions)
    facts = [
        ("Incidents", str(week.incidents)),
        ("Resolved", f"{week.resolved} ({share})"),
        ("Median time to resolve", typical),
        ("Held, with a reason", str(week.held)),
        ("Closed by themselves, nothing done", str(week.false_alarms)),
        ("Predictions inside their interval", f"{hits} of {len(week.predictions)}" if week.predictions else "none"),
        ("Drift (information only)", "; ".join(week.drift) or "none"),
        ("Refusals by guard", ", ".join(f"{name} {count}" for name, count in week.refusals) or "none"),
    ]
    png = prediction_plot(week.predictions)
    context = {
        "week": week,
        "facts": facts,
        "colour": COLOURS["quiet"],
        "clock": words.clock,
        "has_plot": png is not None,
        "cost": sum(cost for _, _, cost in week.open_changes),
    }
    pages = environment()
    return Mail(
        id=make_id("week", week.end_s),
        subject=f"[slotune] Week: {week.incidents} incidents, {week.resolved} resolved",
        html=pages.get_template("week.html").render(context),
        text=pages.get_template("week.txt").render(context),
        at_s=week.end_s,
        images={"predictions": png} if png is not None else {},
    )


def prediction_plot(predictions: Sequence[tuple[float, float, bool]]) -> bytes | None:
    """Predicted against observed P95 (both ms, logarithmic), the diagonal is a perfect prediction. PNG or None."""
    if not predictions:
        return None
    figure = Figure(figsize=(5, 4), dpi=140, layout="constrained")
    axes = figure.add_subplot()
    for inside, colour, label in ((True, "#1f6fb2", "inside its interval"), (False, "#c0392b", "outside")):
        points = [(p, o) for p, o, was_inside in predictions if was_inside == inside]
        if points:
            axes.scatter([p for p, _ in points], [o for _, o in points], s=26, color=colour, label=label)
    values = [v for p, o, _ in predictions for v in (p, o)]
    low, high = min(values) * 0.8, max(values) * 1.25
    axes.plot([low, high], [low, high], color="#7b8794", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axes.set_xlabel("predicted P95 (ms)")
    axes.set_ylabel("observed P95 (ms)")
    axes.legend(frameon=False, fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
