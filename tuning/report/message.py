"""Lays a Report out as a mail."""

from __future__ import annotations

from tuning.mail import Mail
from tuning.model import Report
from tuning.report import words
from tuning.report.page import COLOURS, environment
from tuning.report.plot import hurting, report_plot


def render(report: Report) -> Mail:
    png = report_plot(report)
    head = words.headline(report)
    context = {
        "report": report,
        "head": head,
        "colour": COLOURS[head.tone],
        "rows": words.rows(report),
        "tables": words.tables(report),
        "rejected": [words.rejected(option) for option in report.plan.rejected],
        "has_plot": png is not None,
        "pictured": hurting(report).title,
        "clock": words.clock,
        "preheader": words.subject(report).removeprefix("[slotune] "),
    }
    pages = environment()
    return Mail(
        id=report.id,
        subject=words.subject(report),
        html=pages.get_template("report.html").render(context),
        text=pages.get_template("report.txt").render(context),
        at_s=report.at_s,
        images={"p95-plot": png} if png is not None else {},
        tone=head.tone,
        brief=words.brief(report),
    )
