"""A rehearsal as one HTML file that needs nothing beside it: the sentence, the tables, a timeline of every incident."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from detection.model import FloatArray
from slotune.rehearsal.result import AROUND_S, HOW, Curves, Incident, Rehearsal, ServiceResult
from slotune.rehearsal.words import amount, clock, how_known, plain, summary
from tuning.formats import ms

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 260, 96, 12, 38, 62
_STRIP, _GAP = 26, 8
_MOST_POINTS = 700
TONE = {
    "cured": "good",
    "eased": "good",
    "not cured": "bad",
    "under way": "calm",
    "held": "calm",
    "passed": "calm",
    "cannot tell": "warn",
}


def page(results: Sequence[Rehearsal]) -> str:
    """One or two rehearsals of one history; what came from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("slotune.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # The project's own file: nothing in it comes from outside.
    style = (Path(__file__).parents[1] / "web" / "style.css").read_text(encoding="utf-8")
    parts = [
        {
            "found": found,
            "summary": summary(found),
            "services": [(service, amount(service.minutes), _rivals(service)) for service in found.services],
            "incidents": [(one, _figures(one), timeline(_of(found, one), one)) for one in found.incidents],
        }
        for found in results
    ]
    return environment.get_template("rehearsal.html").render(
        parts=parts,
        style=Markup(style),  # noqa: S704
        how=HOW,
        tone=TONE,
        clock=clock,
    )


def _of(found: Rehearsal, one: Incident) -> ServiceResult:
    return next(service for service in found.services if service.service == one.service)


def _figures(one: Incident) -> dict[str, str]:
    return {
        "recorded": plain(one.recorded_min),
        "rehearsed": amount(one.rehearsed_min),
        "known": how_known(one.rehearsed_min),
        "off": f"{one.off:.0%}" if one.off is not None else "nothing was modelled",
    }


def _rivals(service: ServiceResult) -> list[tuple[str, str, str, str, int]]:
    return [
        (
            rival.name,
            amount(service.minutes) if rival.name == "slotune" else plain(rival.minutes),
            f"{rival.replica_hours:.1f}",
            f"{rival.cost:.2f}",
            service.changes if rival.name == "slotune" else rival.changes,
        )
        for rival in service.rivals
    ]


def timeline(service: ServiceResult, one: Incident) -> Markup:
    """P95 as recorded and with slotune over one incident, its SLO, what was done, and the replicas below."""
    curves = service.curves
    inside = (curves.times >= one.start_s - AROUND_S) & (curves.times <= one.end_s + AROUND_S)
    index = np.flatnonzero(inside)
    index = index[:: max(1, math.ceil(index.size / _MOST_POINTS))]
    if index.size < 2:
        return Markup("")
    times, was, now = curves.times[index], curves.recorded_ms[index], curves.rehearsed_ms[index]
    known = np.concatenate([was[np.isfinite(was)], now[np.isfinite(now)], [service.slo_ms]])
    low, high = max(float(known[known > 0].min()) * 0.8, 1e-3), float(known.max()) * 1.3
    start, end = float(times[0]), float(times[-1])

    def x(t: FloatArray | float) -> FloatArray:
        return np.asarray(_LEFT + (_W - _LEFT - _RIGHT) * (np.asarray(t) - start) / (end - start))

    def y(v: FloatArray | float) -> FloatArray:
        share = np.log(np.maximum(np.asarray(v), low) / low) / math.log(high / low)
        return np.asarray(_H - _BOTTOM - (_H - _TOP - _BOTTOM) * share)

    modelled = curves.modelled[index] > 0
    body = [
        _shades(x, times, modelled),
        _levels(low, high, y),
        _clock(start, end, x),
        Markup('<line class="slo" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/><text class="slo" x="{r}" y="{t:.1f}" '
               'text-anchor="end">SLO {slo}</text>').format(
            l=_LEFT, r=_W - _RIGHT, y=float(y(service.slo_ms)), t=float(y(service.slo_ms)) - 5, slo=ms(service.slo_ms)),
        Markup('<path class="was" d="{d}"/><path class="now" d="{e}"/>').format(
            d=_path(x(times), y(was), was), e=_path(x(times), y(now), now)),
        *(_mark(float(x(step.at_s)), k + 1, k) for k, step in enumerate(one.steps) if start <= step.at_s <= end),
        _replicas(curves, index, x),
    ]  # fmt: skip
    title = f"{one.service}: P95 as recorded and with slotune, {clock(one.start_s)}"
    return Markup(
        '<svg class="story" viewBox="0 0 {w} {h}" role="img" aria-label="{t}"><title>{t}</title>{b}</svg>'
    ).format(w=_W, h=_H + _STRIP, t=title, b=Markup("").join(body))


def _path(x: FloatArray, y: FloatArray, values: FloatArray) -> str:
    """A line with gaps where there is no number."""
    out, up = [], True
    for a, b, value in zip(x.tolist(), y.tolist(), values.tolist(), strict=True):
        if not math.isfinite(value):
            up = True
            continue
        out.append(f"{'M' if up else 'L'}{a:.1f} {b:.1f}")
        up = False
    return "".join(out)


def _shades(x, times: FloatArray, modelled: NDArray[np.bool_]) -> Markup:  # type: ignore[no-untyped-def]
    """Where numbers are modelled."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], modelled, [False]]).astype(int)))
    found = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        left, right = float(x(times[first])), float(x(times[min(last, times.size - 1)]))
        found.append(
            Markup('<rect class="modelled" x="{l:.1f}" y="{t}" width="{w:.1f}" height="{h}"/>').format(
                l=left, t=_TOP, w=max(1.0, right - left), h=_H - _TOP - _BOTTOM
            )
        )
    return Markup("").join(found)


def _levels(low: float, high: float, y) -> Markup:  # type: ignore[no-untyped-def]
    powers = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 3)]
    inside = [v for v in powers if low <= v <= high] or [high]
    chosen = inside if len(inside) <= 5 else [v for v in inside if f"{v:e}"[0] == "1"]
    return Markup("").join(
        Markup('<line class="grid" x1="{l}" x2="{r}" y1="{y:.1f}" y2="{y:.1f}"/>'
               '<text x="{t}" y="{u:.1f}" text-anchor="end">{v}</text>').format(
            l=_LEFT, r=_W - _RIGHT, y=float(y(v)), u=float(y(v)) + 4, t=_LEFT - 6, v=ms(v)
        )
        for v in chosen
    )  # fmt: skip


def _clock(start: float, end: float, x) -> Markup:  # type: ignore[no-untyped-def]
    step = next((s for s in (300, 600, 900, 1800, 3600, 10800, 21600, 86400) if (end - start) / s <= 7), 604800)
    form = "%H:%M" if step < 86400 else "%d %b"
    marks = range(math.ceil(start / step) * step, int(end) + 1, step)
    return Markup("").join(
        Markup('<text x="{x:.1f}" y="{y}" text-anchor="middle">{t}</text>').format(
            x=min(max(float(x(t)), _LEFT + 14), _W - _RIGHT - 14), y=_H - _BOTTOM + 18,
            t=datetime.fromtimestamp(t, UTC).strftime(form),
        )
        for t in marks
    )  # fmt: skip


def _mark(x: float, number: int, place: int) -> Markup:
    """A moment by its number; neighbours stand on two rows."""
    return Markup('<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{t}" y2="{b}"/>'
                  '<text class="mark" x="{x:.1f}" y="{y}" text-anchor="middle">{n}</text>').format(
        x=x, t=20 + 14 * (place % 2), b=_H - _BOTTOM, y=16 + 14 * (place % 2), n=number,
    )  # fmt: skip


def _replicas(curves: Curves, index: NDArray[np.int64], x) -> Markup:  # type: ignore[no-untyped-def]
    """Replicas as recorded and with slotune, as steps in a strip."""
    was, now = curves.recorded_replicas[index], curves.rehearsed_replicas[index]
    top = _H - _BOTTOM + 26
    most = max(float(was.max()), float(now.max()), 1.0)
    places = x(curves.times[index])

    def steps(values: FloatArray) -> str:
        y = top + _STRIP + _GAP - _STRIP * values / most
        out = [f"M{places[0]:.1f} {y[0]:.1f}"]
        for k in range(1, values.size):
            if values[k] != values[k - 1] or k == values.size - 1:
                out.append(f"H{places[k]:.1f}V{y[k]:.1f}")
        return "".join(out)

    return Markup('<text x="{l}" y="{t}" text-anchor="end">replicas</text>'
                  '<text x="{l}" y="{u}" text-anchor="end">{n:.0f}</text>'
                  '<path class="was" d="{a}"/><path class="now" d="{b}"/>').format(
        l=_LEFT - 6, t=top + _STRIP + _GAP, u=top + _GAP + 6, n=most, a=steps(was), b=steps(now)
    )  # fmt: skip
