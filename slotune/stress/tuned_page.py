"""Staged tuning as one HTML file that needs nothing beside it: a row for each stage, with what the client saw."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from slotune.stress.tune import Level, Stage, Tuned, gained
from slotune.stress.words import p95_words, per_s

_W, _H = 180, 14


def tuned_page(found: Tuned) -> str:
    """The page; what came from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("slotune.web"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    # The project's own file: nothing in it comes from outside.
    style = (Path(__file__).parents[1] / "web" / "style.css").read_text(encoding="utf-8")
    levels = [found.first, *(stage.after for stage in found.stages)]
    most = max((level.p95.high for level in levels if level.p95 is not None), default=1.0)
    first = _row("as it was", found.first, most) | {"change": "", "said": "", "tone": "quiet", "why": ""}
    return environment.get_template("tuned.html").render(
        style=Markup(style),  # noqa: S704
        found=found,
        rate=per_s(found.rate_per_s),
        summary=gained(found),
        rows=[first, *(_stage(stage, most) for stage in found.stages)],
    )


def _stage(stage: Stage, most: float) -> dict[str, object]:
    what = "nothing was changed" if not stage.change else f"{stage.verdict}, {'kept' if stage.kept else 'undone'}"
    tone = "text-good" if stage.kept else "text-bad" if stage.change else "quiet"
    told = {"change": stage.change, "said": what, "tone": tone, "why": stage.why}
    return _row(stage.title, stage.after, most, kept=stage.kept) | told


def _row(title: str, level: Level, most: float, *, kept: bool = False) -> dict[str, object]:
    return {
        "title": title,
        "p95": p95_words(level.p95),
        "busy": "not exported" if level.busy is None else f"{level.busy:.0%}",
        "errors": f"{level.errors:.1%}",
        "bar": _bar(level, most, kept=kept),
    }


def _bar(level: Level, most: float, *, kept: bool) -> Markup:
    """P95 as a length, its interval as a line across the end."""
    if level.p95 is None:
        return Markup("")
    low, value, high = (_W * one / most for one in (level.p95.low, level.p95.value, level.p95.high))
    return Markup(
        '<svg width="{w}" height="{h}" aria-hidden="true"><rect class="track" width="{w}" height="{h}"/>'
        '<rect class="{c}" width="{v:.1f}" height="{h}"/>'
        '<line class="span" x1="{a:.1f}" x2="{b:.1f}" y1="{m}" y2="{m}"/></svg>'
    ).format(w=_W, h=_H, m=_H / 2, v=value, a=low, b=high, c="kept" if kept else "level")
