"""Curves as inline SVG, coloured by the page's own style sheet: they follow dark mode and need no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from markupsafe import Markup, escape

from slotune.web.words import arrow
from tuning.formats import ms

_SPARK_MOST = 3.0


def sparkline(
    trend: Sequence[float | None], slo: float, now: float | None = None, *, width: int = 120, height: int = 28
) -> Markup:
    """The course of P95 with its SLO as a dashed line; "" where there is no number. now: the newest value, where the
    trend's last point is the worst of a stretch."""
    known = [v for v in trend if v is not None]
    if not known:
        return Markup("")
    # A peak of a hundred times the SLO would press everything else into one line.
    top = min(max(*known, slo), _SPARK_MOST * slo) * 1.08
    x = [i * (width - 2) / max(1, len(trend) - 1) + 1 for i in range(len(trend))]
    y = [None if v is None else height - 1 - (height - 2) * min(v / top, 1.0) for v in trend]
    line = _path(list(zip(x, y, strict=True)))
    level = height - 1 - (height - 2) * slo / top
    newest = known[-1] if now is None else now
    over = "bad" if newest > slo else "good"
    label = escape(f"P95 over the look-back, now {ms(newest)}, SLO {ms(slo)}")
    # Numbers and that label only: put together as text, because a fleet has a thousand of these.
    return Markup(  # noqa: S704
        f'<svg class="spark {over}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{label}"><line class="slo" x1="0" x2="{width}" y1="{level:.1f}" y2="{level:.1f}"/>'
        f'<path d="{line}"/></svg>'
    )


def _path(points: Sequence[tuple[float, float | None]]) -> str:
    """An SVG path; a gap in the data is a gap in the line."""
    out, pen_up = [], True
    for x, y in points:
        if y is None:
            pen_up = True
            continue
        out.append(f"{'M' if pen_up else 'L'}{x:.1f} {y:.1f}")
        pen_up = False
    return "".join(out)


WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 880, 300, 62, 14, 46, 30


def curve(
    timeline: Sequence[tuple[float, float]], events: Sequence[tuple[float, str]], slo_ms: float, title: str
) -> Markup:
    """P95 over time with the SLO and a mark for every event; "" below two points."""
    points = [(t, v) for t, v in timeline if math.isfinite(v) and v > 0]
    if len(points) < 2:
        return Markup("")
    start, end = points[0][0], max(points[-1][0], points[0][0] + 1)
    values = [v for _, v in points]
    log = max(values) > 8 * min(values)
    low, high = (min(*values, slo_ms), max(*values, slo_ms)) if log else (0.0, max(*values, slo_ms))
    span = _scale(high * 1.1, log) - _scale(low, log)

    def across(t: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (t - start) / (end - start)

    def down(v: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (_scale(v, log) - _scale(low, log)) / max(span, 1e-12)

    parts = [_grid(low, high, log, down), _clock(start, end, across)]
    parts.append(
        Markup('<line class="slo" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/><text class="slo" x="{r}" y="{t:.1f}"'
               ' text-anchor="end">SLO {slo}</text>').format(
            l=LEFT, r=WIDTH - RIGHT, y=down(slo_ms), t=down(slo_ms) - 5, slo=ms(slo_ms)
        )
    )
    parts.append(Markup('<path class="p95" d="{}"/>').format(_path([(across(t), down(v)) for t, v in points])))
    shown = [(t, label) for t, label in sorted(events) if start <= t <= end]
    parts += [_mark(across(t), label, index) for index, (t, label) in enumerate(shown)]
    return Markup(
        '<svg class="curve" viewBox="0 0 {w} {h}" role="img" aria-label="{title}"><title>{title}</title>{body}</svg>'
    ).format(w=WIDTH, h=HEIGHT, title=title, body=Markup("").join(parts))


def _scale(value: float, log: bool) -> float:
    return math.log10(max(value, 1e-9)) if log else value


def _grid(low: float, high: float, log: bool, down: Callable[[float], float]) -> Markup:
    rows = []
    for value in ticks(low, high, log):
        rows.append(
            Markup('<line class="grid" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/>'
                   '<text x="{t}" y="{u:.1f}" text-anchor="end">{v}</text>').format(
                l=LEFT, r=WIDTH - RIGHT, y=down(value), t=LEFT - 6, u=down(value) + 4, v=ms(value)
            )
        )
    return Markup("").join(rows)


def ticks(low: float, high: float, log: bool) -> list[float]:
    if log:
        found = [10.0**e for e in range(math.floor(math.log10(max(low, 1e-9))), math.ceil(math.log10(high)) + 1)]
        return [v for v in found if low <= v <= high * 1.1] or [high]
    step = 10 ** math.floor(math.log10(max(high, 1e-9)))
    step = step / 2 if high / step < 2 else step * 2 if high / step > 5 else step
    return [i * step for i in range(int(high / step) + 1)]


def _clock(start: float, end: float, across: Callable[[float], float]) -> Markup:
    seconds = [60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400, 604800]
    step = next((s for s in seconds if (end - start) / s <= 7), seconds[-1])
    first = math.ceil(start / step) * step
    marks = [first + i * step for i in range(int((end - first) // step) + 1)] if first <= end else []
    form = "%H:%M" if step < 86400 else "%d %b"
    texts = [
        Markup('<text x="{x:.1f}" y="{y}" text-anchor="middle">{t}</text>').format(
            x=min(max(across(t), LEFT + 14), WIDTH - RIGHT - 14),
            y=HEIGHT - 10,
            t=datetime.fromtimestamp(t, UTC).strftime(form),
        )
        for t in marks
    ]
    return Markup("").join(texts)


def _mark(x: float, label: str, index: int) -> Markup:
    outside = x > WIDTH * 0.7
    label = arrow(label)
    short = label if len(label) <= 44 else f"{label[:41]}..."
    return Markup('<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{t}" y2="{b}"/>'
                  '<text class="mark" x="{a:.1f}" y="{y}" text-anchor="{side}">{s}</text>').format(
        x=x, t=8, b=HEIGHT - BOTTOM, a=x + (-4 if outside else 4), y=14 + 12 * (index % 3),
        side="end" if outside else "start", s=escape(short),
    )
