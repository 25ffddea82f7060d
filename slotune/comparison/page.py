"""A comparison as one HTML file that needs nothing beside it: the conclusion, the table, and both sides as curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detection.model import FloatArray, MetricWindow
from detection.signals import SIGNALS
from tuning.report.comparison_words import conclusion, effect, interval, value
from tuning.verification.comparison import Comparison, Line

_DRAWN = ("p95_ms", "p50_ms", "qps", "error_rate")
_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 560, 190, 58, 12, 12, 24
_ROW, _LABELS = 30, 220
_WIDEST = math.log(4.0)
"""The forest plot ends at a quarter and at four times: what lies beyond is drawn at its edge."""


def page(found: Comparison, names: tuple[str, str], service: str, sides: Sequence[MetricWindow]) -> str:
    """The page; what came from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("slotune.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # The project's own file: nothing in it comes from outside.
    style = (Path(__file__).parents[1] / "web" / "style.css").read_text(encoding="utf-8")
    curves = [(SIGNALS[name].title, curve(name, sides)) for name in _DRAWN if all(name in s.values for s in sides)]
    rows = [(line, value(line, line.a), value(line, line.b), effect(line, line.effect), interval(line))
            for line in found.lines]  # fmt: skip
    return environment.get_template("comparison.html").render(
        found=found, a=names[0], b=names[1], service=service, style=Markup(style), rows=rows,  # noqa: S704
        conclusion=conclusion(found, *names), forest=forest(found.lines), curves=[c for c in curves if c[1]],
    )  # fmt: skip


def forest(lines: Sequence[Line]) -> Markup:
    """Each ratio as a point with its interval around "no difference"; "" where there is none."""
    shown = [line for line in lines if line.ratio and line.effect is not None]
    if not shown:
        return Markup("")
    rows = []
    for row, line in enumerate(shown):
        y = 14 + _ROW * row + _ROW / 2
        low, middle, high = (_across(v) for v in (line.low, line.effect, line.high))
        rows.append(
            Markup('<text x="{end}" y="{t:.1f}" text-anchor="end">{title}</text>'
                   '<line class="{word}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
                   '<circle class="{word}" cx="{middle:.1f}" cy="{y:.1f}" r="4.5"/>').format(
                end=_LABELS - 12, t=y + 4, y=y, title=line.title, word=line.verdict.replace(" ", "-"),
                low=low, middle=middle, high=high,
            )
        )
    height = 28 + _ROW * len(shown) + 14
    marks = [(0.25, "a quarter"), (0.5, "half"), (1.0, "same"), (2.0, "double"), (4.0, "4 times")]
    ticks = Markup("").join(
        Markup('<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="10" y2="{b}"/>'
               '<text x="{x:.1f}" y="{t}" text-anchor="middle">{word}</text>').format(
            x=_across(ratio), b=height - 22, t=height - 6, word=word
        )
        for ratio, word in marks
    )
    return Markup(
        '<svg class="forest" viewBox="0 0 {w} {h}" role="img" aria-label="B against A">{ticks}{rows}</svg>'
    ).format(w=_W, h=height, ticks=ticks, rows=Markup("").join(rows))


def _across(ratio: float | None) -> float:
    share = math.log(max(ratio or 1e-9, 1e-9)) / _WIDEST
    half = (_W - _LABELS - 40) / 2
    return _LABELS + half + half * min(max(share, -1.0), 1.0)


def curve(name: str, sides: Sequence[MetricWindow]) -> Markup:
    """Both sides of one signal over the minutes since each began; "" where one has no number."""
    series: list[tuple[FloatArray, FloatArray]] = []
    for side in sides:
        times, values = side.span.times() - side.span.start_s, side.values[name]
        known = [math.isfinite(v) for v in values]
        series.append((times[known], values[known]))
    if any(not values.size for _, values in series):
        return Markup("")
    end = max(float(times[-1]) for times, _ in series) or 1.0
    high = max(float(values.max()) for _, values in series) * 1.08 or 1.0
    paths = Markup("").join(
        Markup('<path class="{side}" d="{d}"/>').format(side=word, d=_path(times, values, end, high))
        for word, (times, values) in zip("ab", series, strict=True)
    )
    unit = SIGNALS[name].unit
    top = f"{high / 1.08:.3g} {unit}" if unit != "share" else f"{high / 1.08:.1%}"
    return Markup(
        '<svg class="two" viewBox="0 0 {w} {h}" role="img" aria-label="{title} of both sides">'
        '<line class="grid" x1="{l}" x2="{r}" y1="{b}" y2="{b}"/><text x="{tl}" y="{tt}" text-anchor="end">{top}</text>'
        '<text x="{tl}" y="{b}" text-anchor="end">0</text>'
        '<text x="{r}" y="{h2}" text-anchor="end">{end:.0f} min</text>{paths}</svg>'
    ).format(w=_W, h=_H, title=SIGNALS[name].title, l=_LEFT, r=_W - _RIGHT, b=_H - _BOTTOM, tl=_LEFT - 6, tt=_TOP + 12,
             top=top, h2=_H - 6, end=end / 60.0, paths=paths)  # fmt: skip


def _path(times: FloatArray, values: FloatArray, end: float, high: float) -> str:
    x = _LEFT + (_W - _LEFT - _RIGHT) * times / end
    y = _H - _BOTTOM - (_H - _TOP - _BOTTOM) * values / high
    return "".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b) in enumerate(zip(x, y, strict=True)))
