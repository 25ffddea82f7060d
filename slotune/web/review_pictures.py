"""A review's pictures as inline SVG, coloured by the page's own style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

from markupsafe import Markup

from slotune.web.pictures import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, ticks
from tuning.formats import ms
from tuning.report.review import Day

_DAY_TONES = ("resolved", "held", "false", "other")
_DAY_WORDS = {"resolved": "resolved", "held": "held, with a reason", "false": "false alarm", "other": "not resolved"}


def day_bars(days: Sequence[Day]) -> Markup:
    """Each day's incidents by what became of them, as stacked bars with a legend."""
    most = max((sum(getattr(day, tone) for tone in _DAY_TONES) for day in days), default=0)
    if not most:
        return Markup("")
    step = (WIDTH - LEFT - RIGHT) / len(days)
    parts, every = [_counts(most)], max(1, len(days) // 10)
    for number, day in enumerate(days):
        left, foot = LEFT + step * (number + 0.14), float(HEIGHT - BOTTOM)
        for tone in _DAY_TONES:
            tall = (HEIGHT - TOP - BOTTOM) * getattr(day, tone) / most
            foot -= tall
            if tall:
                parts.append(_bar(left, foot, 0.72 * step, tall, tone))
        if number % every == 0:
            name = datetime.fromtimestamp(day.start_s, UTC).strftime("%d %b")
            parts.append(_text(left + 0.36 * step, HEIGHT - 10, "middle", name))
    across = float(LEFT)
    for tone in _DAY_TONES:
        if any(getattr(day, tone) for day in days):
            parts += [_bar(across, 12, 10, 10, tone), _text(across + 15, 21, "start", _DAY_WORDS[tone])]
            across += 34 + 7 * len(_DAY_WORDS[tone])
    return _picture("Incidents of each day by what became of them", parts)


def prediction_dots(found: Sequence[tuple[float, float, bool]]) -> Markup:
    """Predicted P95 (across) against observed P95 (up), logarithmic; on the diagonal the prediction was right."""
    points = [(p, o, inside) for p, o, inside in found if p > 0 and o > 0]
    if not points:
        return Markup("")
    values = [v for p, o, _ in points for v in (p, o)]
    low, high = math.log10(min(values) * 0.8), math.log10(max(values) * 1.25)

    def across(v: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (math.log10(v) - low) / (high - low)

    def down(v: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (math.log10(v) - low) / (high - low)

    ends = (10**low, 10**high)
    parts = [Markup('<line class="slo-quiet" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        across(ends[0]), down(ends[0]), across(ends[1]), down(ends[1])
    )]  # fmt: skip
    for value in _marks(*ends):
        parts.append(_text(LEFT - 6, down(value) + 4, "end", ms(value)))
        parts.append(_text(min(across(value), WIDTH - RIGHT - 24), HEIGHT - 10, "middle", ms(value)))
    parts += [
        Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4"/>').format("in" if hit else "out", across(p), down(o))
        for p, o, hit in points
    ]
    parts.append(_text(LEFT, 14, "start", "observed P95 over predicted P95; red: outside the predicted interval"))
    return _picture("Predicted against observed P95", parts)


def _marks(low: float, high: float) -> list[float]:
    """Round numbers within a range of magnitudes: 1, 2, 5, 10 ..., or tens of them where those are too many."""
    tens = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [step * 10.0**e for e in tens for step in (1, 2, 5)]
    found = [value for value in fine if low <= value <= high]
    return found if len(found) <= 7 else [10.0**e for e in tens if low <= 10.0**e <= high]


def _picture(title: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="curve" viewBox="0 0 {w} {h}" role="img" aria-label="{title}"><title>{title}</title>{body}</svg>'
    ).format(w=WIDTH, h=HEIGHT, title=title, body=Markup("").join(parts))


def _bar(x: float, y: float, wide: float, tall: float, tone: str) -> Markup:
    return Markup('<rect class="day-{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
        tone, x, y, wide, tall
    )


def _text(x: float, y: float, side: str, text: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, side, text)


def _counts(most: int) -> Markup:
    """A grid of whole numbers."""
    rows = []
    for value in sorted({int(tick) for tick in ticks(0.0, float(most), log=False)}):
        y = HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / most
        rows.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
            LEFT, WIDTH - RIGHT, y, y
        ))  # fmt: skip
        rows.append(_text(LEFT - 6, y + 4, "end", str(value)))
    return Markup("").join(rows)
