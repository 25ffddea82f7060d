"""review_week: the figures of the week, and of a month that has ended, from the ledger, mailed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from tuning.loop.learn import drift_figures
from tuning.loop.parts import Parts
from tuning.loop.tell import tell_all
from tuning.orders import ORDER, labels, orders_of
from tuning.past import KINDS, Past
from tuning.query import Query
from tuning.report.review import DAY_S, Out, Review, review
from tuning.report.review_mail import render_review

MONTH_TOLD = "review/month"
"""Where the newest month that was told is kept, as 2026-11."""
_MEMORY_S = 62 * DAY_S
"""An incident of the month may have begun, and a lease been made, before it."""


def review_week(parts: Parts, at_s: float) -> str:
    """Mail the review of the last seven days, and once a month that of the month before; in a stretch without an
    incident or an open change nothing is mailed."""
    past, told = _past(parts, at_s), labels(orders_of(parts.ledger.find(Query(kinds=(ORDER,)))))
    out = [Out.of(c.service, c.plan.model_dump(mode="json"), c.state, c.expires_at_s)
           for c in parts.ledger.open_changes()]  # fmt: skip
    drift = tuple(f"{figure['service']}: {figure['reason']}" for figure in drift_figures(parts.ledger))
    said = [_mailed(parts, review(past, told, out, at_s - 7 * DAY_S, at_s, drift), at_s)]
    start_s, end_s = month_before(at_s)
    month = datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m").encode()
    if parts.ledger.get_blob(MONTH_TOLD) != month:
        said.append(_mailed(parts, review(past, told, out, start_s, end_s, drift), at_s))
        parts.ledger.put_blob(MONTH_TOLD, month, at_s=at_s)
    return "; ".join(said)


def _past(parts: Parts, at_s: float) -> Past:
    return Past().add(reversed(parts.ledger.find(Query(kinds=KINDS, since_s=at_s - _MEMORY_S))))


def _mailed(parts: Parts, seen: Review, at_s: float) -> str:
    if not seen.incidents and not seen.out:
        return "nothing happened: no mail"
    return tell_all(parts, replace(render_review(seen), event="review"), at_s)


def month_before(at_s: float) -> tuple[float, float]:
    """The calendar month (UTC) that ended last: its beginning and end, epoch seconds."""
    end = datetime.fromtimestamp(at_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    start = end.replace(year=end.year - (end.month == 1), month=(end.month - 2) % 12 + 1)
    return start.timestamp(), end.timestamp()
