"""A review as a mail and as a page of its own: the figures against their targets, with two pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime

import matplotlib

matplotlib.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from detection.model import make_id
from tuning.mail import Mail
from tuning.report import words
from tuning.report.page import COLOURS, environment
from tuning.report.review import DAY_S, Day, Figure, Review

TONES = (("resolved", "#1e7e4f"), ("held", "#34566f"), ("false", "#c9a227"), ("other", "#b03a2e"))
LABELS = {"resolved": "resolved", "held": "held, with a reason", "false": "false alarm", "other": "not resolved"}


def render_review(seen: Review) -> Mail:
    """The review as a mail; its id follows from the stretch of time, so that it is told once."""
    name, pages, pictures = span_name(seen), environment(), pictures_of(seen)
    context = _context(seen) | {"sources": {key: f"cid:{key}" for key in pictures}}
    return Mail(
        id=make_id("review", seen.start_s, seen.end_s),
        subject=f"[slotune] {name}: {_count(seen.incidents)}, {seen.resolved} resolved",
        html=pages.get_template("review.html").render(context),
        text=pages.get_template("review.txt").render(context),
        at_s=seen.end_s,
        images=pictures,
    )


def as_html(seen: Review) -> str:
    """The same as one file that needs nothing beside it."""
    pictures = {k: f"data:image/png;base64,{base64.b64encode(png).decode()}" for k, png in pictures_of(seen).items()}
    return environment().get_template("review.html").render(_context(seen) | {"sources": pictures})


def as_text(seen: Review) -> str:
    """The same for a terminal."""
    return environment().get_template("review.txt").render(_context(seen) | {"sources": {}})


def span_name(seen: Review) -> str:
    """ "Week", "Month", or how many days."""
    days = round((seen.end_s - seen.start_s) / DAY_S)
    return "Week" if days == 7 else "Month" if 28 <= days <= 31 else f"{days} days" if days != 1 else "Day"


def _count(incidents: int) -> str:
    return "1 incident" if incidents == 1 else f"{incidents} incidents"


def tone(figure: Figure) -> str:
    return "quiet" if figure.met is None else "good" if figure.met else "bad"


def _context(seen: Review) -> dict[str, object]:
    return {
        "seen": seen,
        "name": span_name(seen),
        "count": _count(seen.incidents),
        "colour": COLOURS["quiet"],
        "colours": COLOURS,
        "clock": words.clock,
        "tone": tone,
        "few": any(f.value is not None and f.met is None and f.target is not None for f in seen.figures),
        "cost": sum(row.cost_per_hour for row in seen.out),
    }


def pictures_of(seen: Review) -> dict[str, bytes]:
    """PNGs by name; none where there is nothing to draw."""
    found = {"days": _days(seen.days), "predictions": _predictions(seen.predictions)}
    return {name: png for name, png in found.items() if png is not None}


def _days(days: Sequence[Day]) -> bytes | None:
    """Each day's act-tier incidents by what became of them."""
    if not any(day.resolved + day.held + day.false + day.other for day in days):
        return None
    drawing, axes = _axes(6.2, 2.4)
    foot = [0] * len(days)
    for name, colour in TONES:
        counts = [int(getattr(day, name)) for day in days]
        if any(counts):
            axes.bar(range(len(days)), counts, bottom=foot, color=colour, width=0.72, label=LABELS[name])
        foot = [a + b for a, b in zip(foot, counts, strict=True)]
    every = max(1, len(days) // 8)
    names = [datetime.fromtimestamp(day.start_s, UTC).strftime("%d %b") for day in days]
    axes.set_xticks(range(0, len(days), every), names[::every])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("incidents")
    axes.legend(frameon=False, fontsize=8, ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0))
    return _png(drawing)


def _predictions(predictions: Sequence[tuple[float, float, bool]]) -> bytes | None:
    """Predicted against observed P95 (both ms, logarithmic); the diagonal is a perfect prediction."""
    if not predictions:
        return None
    drawing, axes = _axes(6.2, 3.4)
    for inside, colour, label in ((True, "#1f6fb2", "inside its interval"), (False, "#c0392b", "outside")):
        points = [(p, o) for p, o, was_inside in predictions if was_inside == inside]
        if points:
            axes.scatter([p for p, _ in points], [o for _, o in points], s=26, color=colour, label=label, alpha=0.8)
    values = [v for p, o, _ in predictions for v in (p, o) if v > 0]
    low, high = min(values) * 0.8, max(values) * 1.25
    axes.plot([low, high], [low, high], color="#7b8794", linewidth=1, linestyle="--")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.set_xlabel("predicted P95 (ms)")
    axes.set_ylabel("observed P95 (ms)")
    axes.legend(frameon=False, fontsize=8)
    return _png(drawing)


def _axes(width: float, height: float) -> tuple[Drawing, Axes]:
    drawing = Drawing(figsize=(width, height), dpi=140, layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return drawing, axes


def _png(drawing: Drawing) -> bytes:
    out = io.BytesIO()
    drawing.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
