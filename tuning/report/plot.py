"""The picture of a report: P95 over time, the SLO line, and a mark for everything that happened."""

from __future__ import annotations

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.dates as mdates
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from detection.outside_text import printable
from tuning.model import Report
from tuning.report.words import judged

_INK, _SLO, _LINE, _MARK = "#1f2933", "#c0392b", "#1f6fb2", "#7b8794"
_LINE_POINTS = 11  # a line of labels
_AXES_POINTS = 175  # about the height of the axes in this figure


def p95_plot(report: Report) -> bytes | None:
    """PNG bytes (1280 x 520 pixels), or None when there is no point to draw."""
    points = [(t, v) for t, v in report.timeline if v == v]
    if not points:
        return None
    figure = Figure(figsize=(8, 3.25), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    times = [_day(t) for t, _ in points]
    values = [v for _, v in points]
    axes.plot(times, values, color=_LINE, linewidth=1.8, label=judged(report))
    axes.axhline(report.slo_p95_ms, color=_SLO, linewidth=1.4, linestyle="--")
    axes.annotate(
        f"SLO {report.slo_p95_ms:g} ms",
        (1.0, report.slo_p95_ms),
        xycoords=("axes fraction", "data"),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        color=_SLO,
        fontsize=9,
    )
    if max(values) > 8 * max(min(values), 1e-9):
        axes.set_yscale("log")
    events = sorted(report.events)
    lines = min(len(events), 3) + (report.slo_p95_ms >= max(values))  # the SLO's own label stands above its line
    _leave_room(axes, min(*values, report.slo_p95_ms), max(*values, report.slo_p95_ms), lines)
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
    axes.set_ylabel(f"{judged(report)} (ms)")
    locator = mdates.AutoDateLocator(minticks=3, maxticks=8)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(mdates.ConciseDateFormatter(locator))
    axes.grid(axis="y", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    title = f"{report.incident.service}: {judged(report)}"
    axes.set_title(title + (" (emulated accelerator)" if report.emulated else ""), loc="left", color=_INK, fontsize=10)
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


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
    return printable(label, 40).replace("$", r"\$")
