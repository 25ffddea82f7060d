"""Lays a Report out as a mail: multipart/alternative of plain text and HTML with the plot inline."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from tuning.model import Report
from tuning.report import words
from tuning.report.plot import p95_plot

_COLOURS = {"good": "#1e7e4f", "bad": "#b03a2e", "quiet": "#34566f"}


@dataclass(frozen=True)
class Mail:
    """A rendered report. png: the plot, None when there was nothing to draw."""

    subject: str
    html: str
    text: str
    png: bytes | None
    at_s: float
    report_id: str

    def to_email(self, *, sender: str, to: tuple[str, ...]) -> EmailMessage:
        """The message as sent. The Message-ID comes from the report's id, so a mail that is sent again is the same."""
        message = EmailMessage()
        message["Subject"] = self.subject
        message["From"] = sender
        message["To"] = ", ".join(to)
        message["Date"] = format_datetime(datetime.fromtimestamp(self.at_s, UTC))
        domain = sender.rpartition("@")[2] or "slotune.local"
        message["Message-ID"] = f"<slotune.{self.report_id}@{domain}>"
        message.set_content(self.text)
        cid = make_msgid(domain=domain)
        message.add_alternative(self.html.replace("cid:p95-plot", f"cid:{cid[1:-1]}"), subtype="html")
        if self.png is not None:
            html_part = message.get_payload()[1]  # type: ignore[index]
            html_part.add_related(  # type: ignore[union-attr]
                self.png, "image", "png", cid=cid, filename="p95.png", disposition="inline"
            )
        return message


def render(report: Report) -> Mail:
    png = p95_plot(report)
    environment = Environment(
        loader=PackageLoader("tuning.report"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    head = words.headline(report)
    context = {
        "report": report,
        "head": head,
        "colour": _COLOURS[head.tone],
        "rows": words.rows(report),
        "rejected": [
            (words.option_text(o), words.interval(o.predicted_p95_ms), f"{o.cost_per_hour:+.2f}/h", o.reason)
            for o in report.plan.rejected
        ],
        "has_plot": png is not None,
        "clock": words.clock,
        "preheader": words.subject(report).removeprefix("[slotune] "),
    }
    return Mail(
        subject=words.subject(report),
        html=environment.get_template("report.html").render(context),
        text=environment.get_template("report.txt").render(context),
        png=png,
        at_s=report.at_s,
        report_id=report.id,
    )
