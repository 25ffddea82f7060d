"""The picture of a report: what hurts with its limit, the load, and a mark for everything that happened."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detection.outside_text import printable
from tuning.model import Report
from tuning.report.words import judged, spoken

_INK, _SLO, _LINE, _MARK, _LOAD = "#1f2933", "#c0392b", "#1f6fb2", "#7b8794", "#8a6d3b"
_LINE_POINTS = 11  # a line of labels
_AXES_POINTS = 175  # about the height of the axes in this figure


@dataclass(frozen=True)
class Curve:
    """What hurts, over time: points in the axis' own unit, and the limit with its words."""

    title: str
    axis: str
    points: tuple[tuple[float, float], ...]
    limit: float
    said: str


def hurting(report: Report) -> Curve:
    """The share of failed requests where that is what the incident is about, else the P95 that was promised."""
    if report.failed:
        points = tuple((t, 100 * v) for t, v in report.failed)
        limit = 100 * report.failed_limit
        return Curve("failed requests", "failed (%)", points, limit, f"limit {limit:g} %")
    said = f"SLO {report.slo_p95_ms:g} ms"
    return Curve(judged(report), f"{judged(report)} (ms)", report.timeline, report.slo_p95_ms, said)


def report_plot(report: Report) -> bytes | None:
    """PNG bytes (1280 pixels wide) of what hurts with its limit and, below it, the load; None without a point."""
    curve = hurting(report)
    if not curve.points:
        return None
    figure = Figure(figsize=(8, 4.2 if report.load else 3.25), dpi=160, layout="constrained")
    axes, *below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1)) if report.load else [figure.add_subplot()]
    _draw(axes, curve, report)
    for lower in below:
        times, values = zip(*report.load, strict=True)
        lower.plot([_day(t) for t in times], values, color=_LOAD, linewidth=1.4)
        lower.set_ylim(0, 1.15 * max(*values, 1e-9))
        lower.set_ylabel("requests/s")
        for at_s, _ in report.events:
            lower.axvline(_day(at_s), color=_MARK, linewidth=1, linestyle=":")
    locator = mdates.AutoDateLocator(minticks=3, maxticks=8)
    for each in (axes, *below):
        each.xaxis.set_major_locator(locator)
        each.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
        each.grid(axis="y", alpha=0.25)
        each.spines[["top", "right"]].set_visible(False)
    title = f"{report.incident.service}: {curve.title}{' and load' if below else ''}"
    axes.set_title(title + (" (emulated accelerator)" if report.emulated else ""), loc="left", color=_INK, fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def _draw(axes: Axes, curve: Curve, report: Report) -> None:
    """The curve, its limit, and a mark with a label for everything that happened."""
    times, values = [_day(t) for t, _ in curve.points], [v for _, v in curve.points]
    axes.plot(times, values, color=_LINE, linewidth=1.8)
    axes.axhline(curve.limit, color=_SLO, linewidth=1.4, linestyle="--")
    axes.annotate(
        curve.said,
        (1.0, curve.limit),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color=_SLO,
        fontsize=9,
    )
    if not report.failed and min(values) > 0 and max(values) > 8 * min(values):
        axes.set_yscale("log")
    events = sorted(report.events)
    lines = min(len(events), 3) + (curve.limit >= max(values))  # the limit's own label stands above its line
    _leave_room(axes, min(*values, curve.limit), max(*values, curve.limit), lines)
    left, right = axes.get_xlim()
    for index, (at_s, label) in enumerate(events):
        ends_outside = _day(at_s) > left + 0.8 * (right - left)
        axes.axvline(_day(at_s), color=_MARK, linewidth=1, linestyle=":")
        axes.annotate(
            _short(label),
            (_day(at_s), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if ends_outside else 3, -_LINE_POINTS * (1 + index % 3)),
            textcoords="offset points",
            ha="right" if ends_outside else "left",
            fontsize=8.5,
            color=_INK,
        )
    axes.set_ylabel(curve.axis)


def _leave_room(axes: Axes, low: float, high: float, lines: int) -> None:
    """Set the range so that the curve ends below the labels, which take `lines` lines at the top."""
    low, curve = 0.7 * low, 0.96 - lines * _LINE_POINTS / _AXES_POINTS
    if axes.get_yscale() == "log":
        axes.set_ylim(low, low * (high / low) ** (1 / curve))
    else:
        axes.set_ylim(low, low + (high - low) / curve)


def _day(at_s: float) -> float:
    """Matplotlib's date number (days since 1970-01-01, UTC)."""
    return at_s / 86400.0


def _short(label: str) -> str:
    # A dollar sign would start matplotlib's mathematics: outside text must stay text.
    return printable(spoken(label), 40).replace("$", r"\$")
