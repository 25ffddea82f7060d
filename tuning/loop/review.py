"""review_week: the week's figures from the ledger, mailed."""

from __future__ import annotations

from tuning.loop.learn import drift_figures
from tuning.loop.parts import Parts
from tuning.loop.tell import tell_all
from tuning.model import LEVER_STEPS
from tuning.query import Query
from tuning.report.week import render_week, review

_WEEK_S = 7 * 86400.0
_REVIEWED = ("open_incidents", "choose_action", "guard", "verify_p95", "hold", "roll_back", *LEVER_STEPS.values())


def review_week(parts: Parts, at_s: float) -> str:
    """Mail the review of the last seven days; in a week without an incident or an open change nothing is mailed."""
    records = parts.ledger.find(Query(kinds=_REVIEWED, since_s=at_s - _WEEK_S))
    drift = tuple(f"{figure['service']}: {figure['reason']}" for figure in drift_figures(parts.ledger))
    week = review(records, parts.ledger.open_changes(), at_s - _WEEK_S, at_s, drift)
    if not week.incidents and not week.open_changes:
        return "nothing happened: no mail"
    return tell_all(parts, render_week(week)) or "the mail server asks to try again later"
