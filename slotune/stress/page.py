"""A stress test as one HTML file that needs nothing beside it: the result, P95 against rate, every step."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from detection.signals import percentile
from slotune.stress import words
from slotune.stress.model import Found, Step
from tuning.formats import ms

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 330, 96, 16, 34, 44
_TONE = {"met": "text-good", "broken": "text-bad", "errors": "text-bad", "stopped": "text-bad"}
_DOT = {"met": "met", "broken": "over", "errors": "over", "stopped": "over"}
_Place = Callable[[float], float]


def page(found: Found) -> str:
    """The page; what came from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("slotune.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # The project's own file: nothing in it comes from outside.
    style = (Path(__file__).parents[1] / "web" / "style.css").read_text(encoding="utf-8")
    knee, worst = found.knee, max(found.recoveries, key=lambda one: one.after_per_s, default=None)
    return environment.get_template("stress.html").render(
        style=Markup(style),  # noqa: S704
        found=found,
        summary=words.summary(found),
        began=datetime.fromtimestamp(found.began_s, UTC).strftime("%Y-%m-%d %H:%M"),
        promised=words.promised(found),
        knee=words.per_s(knee.value) if knee.value is not None else _open_end(found),
        tone="good" if knee.high is None and knee.low > 0 else "bad" if knee.value is None else "",
        turn=words.per_s(found.turn.value) if found.turn is not None else "",
        back=words.back_words(worst) if worst is not None else "",
        back_from=words.per_s(worst.after_per_s) if worst is not None else "",
        per_s=words.per_s,
        others=[percentile(name) for name in found.plan.limits if name != found.main],
        rows=[_row(step, found) for step in sorted(found.steps, key=lambda one: one.rate_per_s)],
        picture=picture(found),
        nothing=words.saturation_words(found),
        recoveries=[f"from {words.per_s(one.after_per_s)}: back {words.back_words(one)}" for one in found.recoveries],
    )


def _open_end(found: Found) -> str:
    knee = found.knee
    if knee.low > 0:
        return f"over {words.per_s(knee.low)}"
    return f"under {words.per_s(knee.high)}" if knee.high is not None else "not known"


def _row(step: Step, found: Found) -> dict[str, object]:
    cells = [
        words.per_s(step.rate_per_s),
        words.per_s(step.answered_per_s),
        _ms(step.p50_ms),
        words.p95_words(step.p95.get(found.main)),
        _ms(step.p99_ms),
        *(words.p95_words(step.p95.get(name)) for name in found.plan.limits if name != found.main),
        f"{step.errors:.1%}",
        ms(step.lag_p95_ms),
    ]
    return {"cells": cells, "said": words.SAID[step.verdict], "why": step.why, "tone": _TONE.get(step.verdict, "quiet")}


def _ms(value: float) -> str:
    return ms(value) if math.isfinite(value) else "no answer"


def picture(found: Found) -> Markup:
    """P95 against rate, both on logarithmic axes, each step with its interval; the knee's interval is shaded."""
    steps = sorted((step for step in found.steps if found.main in step.p95), key=lambda one: one.rate_per_s)
    if not steps:
        return Markup("")
    limit = found.plan.limits[found.main]
    lows = [step.p95[found.main].low for step in steps]
    highs = [step.p95[found.main].high for step in steps]
    low, high = max(0.7 * min(*lows, limit), 1e-3), 1.4 * max(*highs, limit)
    first, last = 0.9 * steps[0].rate_per_s, 1.1 * max(steps[-1].rate_per_s, found.knee.high or 0.0)

    def x(rate: float) -> float:
        share = math.log(max(rate, first) / first) / math.log(last / first)
        return _LEFT + (_W - _LEFT - _RIGHT) * min(share, 1.0)

    def y(value: float) -> float:
        return _H - _BOTTOM - (_H - _TOP - _BOTTOM) * math.log(max(value, low) / low) / math.log(high / low)

    knee = found.knee
    body = [
        *(_level(value, y) for value in _round_between(low, high)),
        *(_rate_mark(value, x) for value in _round_between(first, last)),
        Markup('<rect class="knee" x="{a:.1f}" y="{t}" width="{w:.1f}" height="{h}"/>').format(
            a=x(knee.low), t=_TOP, w=max(1.0, x(knee.high) - x(knee.low)), h=_H - _TOP - _BOTTOM)
        if knee.value is not None and knee.high is not None else "",
        _upright(x(knee.value), f"knee {words.per_s(knee.value)}", _TOP - 18) if knee.value is not None else "",
        _upright(x(found.turn.value), f"turns {words.per_s(found.turn.value)}", _TOP - 4) if found.turn else "",
        Markup('<line class="slo" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/>'
               '<text class="slo" x="{l2}" y="{t:.1f}">{n} {v}</text>').format(
            l=_LEFT, l2=_LEFT + 4, r=_W - _RIGHT, y=y(limit), t=y(limit) - 5, n=percentile(found.main), v=ms(limit)),
        Markup('<path class="curve-line" d="{d}"/>').format(
            d="".join(f"{'L' if k else 'M'}{x(s.rate_per_s):.1f} {y(s.p95[found.main].value):.1f}"
                      for k, s in enumerate(s for s in steps if s.verdict in _DOT))),
        *(_dot(step, found.main, x, y) for step in steps),
        Markup('<text x="{x}" y="{y}" text-anchor="middle">requests per second</text>').format(
            x=(_LEFT + _W - _RIGHT) / 2, y=_H - 6),
    ]  # fmt: skip
    title = f"{percentile(found.main)} against requests per second"
    return Markup(
        '<svg class="plot" viewBox="0 0 {w} {h}" role="img" aria-label="{t}"><title>{t}</title>{b}</svg>'
    ).format(w=_W, h=_H, t=title, b=Markup("").join(body))


def _round_between(low: float, high: float) -> list[float]:
    steps = [
        m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)
    ]
    inside = [value for value in steps if low <= value <= high]
    return inside if len(inside) <= 8 else inside[:: math.ceil(len(inside) / 8)]


def _level(value: float, y: _Place) -> Markup:
    return Markup('<line class="grid" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/>'
                  '<text x="{t}" y="{u:.1f}" text-anchor="end">{v}</text>').format(
        l=_LEFT, r=_W - _RIGHT, y=y(value), t=_LEFT - 6, u=y(value) + 4, v=ms(value))  # fmt: skip


def _rate_mark(value: float, x: _Place) -> Markup:
    return Markup('<text x="{x:.1f}" y="{y}" text-anchor="middle">{v:g}</text>').format(
        x=x(value), y=_H - _BOTTOM + 18, v=value)  # fmt: skip


def _upright(x: float, said: str, y: float) -> Markup:
    return Markup('<line class="at" x1="{x:.1f}" x2="{x:.1f}" y1="{t}" y2="{b}"/>'
                  '<text class="at" x="{x:.1f}" y="{y}" text-anchor="middle">{s}</text>').format(
        x=x, t=_TOP, b=_H - _BOTTOM, y=y, s=said)  # fmt: skip


def _dot(step: Step, main: str, x: _Place, y: _Place) -> Markup:
    one = step.p95[main]
    return Markup('<line class="bar {c}" x1="{x:.1f}" x2="{x:.1f}" y1="{a:.1f}" y2="{b:.1f}"/>'
                  '<circle class="{c}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>').format(
        c=_DOT.get(step.verdict, "own"), x=x(step.rate_per_s), a=y(one.high), b=y(one.low), y=y(one.value))  # fmt: skip
