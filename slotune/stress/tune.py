"""Staged tuning under one steady load: INT8, then dynamic batching, with what a client sees before and after.

Each stage is an attempt of the loop like any other: planned, guarded, made, settled, verified, and undone where it does
not help.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detection.errors import ConfigError, SlotuneError
from detection.model import Service
from tuning.formats import change as relative
from tuning.formats import ms
from tuning.loop import by_hand, once
from tuning.loop.parts import Parts
from tuning.loop.watch import TuneRequest
from tuning.model import Interval, Report

STAGES = (("precision", "INT8"), ("batch_size", "dynamic batching"))
"""The order of the tuning guide: what computes less comes first, so that batches are sized for what is served.

Its third stage, another engine, is no lever of slotune's.
"""


@dataclass(frozen=True)
class Level:
    """What was measured while the load was held.

    p95: of the main objective, at the client; None: no answer. busy: share of the time that the service computes, None:
    not exported. errors: share.
    """

    p95: Interval | None
    busy: float | None
    errors: float


@dataclass(frozen=True)
class Stage:
    """What came of one. change: "" where none was made. verdict: of the loop, "" without a change. kept: False where
    nothing was changed, or it was undone."""

    title: str
    change: str
    verdict: str
    kept: bool
    why: str
    before: Level
    after: Level


@dataclass(frozen=True)
class Tuned:
    """The whole run. ended: why, "" where every stage was reached."""

    service: str
    rate_per_s: float
    first: Level
    stages: tuple[Stage, ...]
    ended: str = ""

    @property
    def last(self) -> Level:
        return self.stages[-1].after if self.stages else self.first


def check(service: Service) -> None:
    """ConfigError where no stage may be tried: slotune changes nothing that it may not change."""
    having = [lever for lever, _ in STAGES if lever in service.levers]
    if not having:
        raise ConfigError(
            f"{service.name} has none of the levers that --tune tries ({', '.join(n for n, _ in STAGES)})"
        )
    modes = {lever: service.levers[lever].mode or service.mode for lever in having}
    if all(mode != "act" for mode in modes.values()):
        told = ", ".join(f"{lever}: {mode}" for lever, mode in modes.items())
        raise ConfigError(f"--tune changes {service.name}, which services.yaml does not allow ({told}): mode act does")


def attempt(
    parts: Parts, service: Service, lever: str, run: str, now: Callable[[], float], wait_until: Callable[[float], None]
) -> Report | str:
    """One stage: an attempt with this lever alone, to its end; or why there was none."""
    if lever not in service.levers:
        return "the service has no such lever"
    if (service.levers[lever].mode or service.mode) != "act":
        return "services.yaml does not allow this lever to act"
    try:
        incident, number = by_hand.incident(parts, service.name, run, now())
        return once.tune(parts, TuneRequest(incident, number), now, wait_until, run=run, lever=lever)
    except SlotuneError as error:
        return str(error)


def stage_of(title: str, came: Report | str, before: Level, after: Level) -> Stage:
    """What a stage came to, in the loop's own words."""
    if isinstance(came, str):
        return Stage(title, "", "", False, came, before, after)
    plan, outcome = came.plan, came.outcome
    if outcome is None or came.decision is None:
        why = came.refusal.reason if came.refusal is not None else plan.reason or plan.chosen.reason
        return Stage(title, "", "", False, why, before, after)
    kept = came.decision.step == "keep"
    return Stage(title, plan.chosen.text(), outcome.verdict, kept, outcome.reason, before, after)


def render(found: Tuned) -> str:
    """The table: what was tried, what the client saw before and after, and what was kept."""
    lines = [
        f"{found.service} at {found.rate_per_s:.3g}/s: {gained(found)}.",
        "",
        f"{'as it was':<18} {level_words(found.first)}",
        *(_line(stage) for stage in found.stages),
    ]
    return "\n".join([*lines, *([f"Ended early: {found.ended}."] if found.ended else [])])


def _line(stage: Stage) -> str:
    if not stage.change:
        return f"{stage.title:<18} {level_words(stage.after)}; nothing was changed: {stage.why}"
    what = "kept" if stage.kept else "undone"
    return f"{stage.title:<18} {level_words(stage.after)}; {stage.change}: {stage.verdict}, {what}. {stage.why}"


def level_words(level: Level) -> str:
    p95 = (
        "no answer" if level.p95 is None else f"P95 {ms(level.p95.value)} [{ms(level.p95.low)} to {ms(level.p95.high)}]"
    )
    busy = "busy not exported" if level.busy is None else f"busy {level.busy:.0%}"
    return f"{p95}, {busy}, {level.errors:.1%} failed"


def gained(found: Tuned) -> str:
    """From the first level to the last."""
    first, last = found.first.p95, found.last.p95
    kept = [stage.title for stage in found.stages if stage.kept]
    if not kept or first is None or last is None:
        return "no stage was kept"
    return f"P95 {ms(first.value)} -> {ms(last.value)} ({relative(last.value / first.value)}) with {' and '.join(kept)}"


def document(found: Tuned) -> dict[str, object]:
    """{"format": 1, "summary", "service", "rate_per_s", "first", "stages", "ended"}; what is not known is null."""
    return {
        "format": 1,
        "summary": gained(found),
        "service": found.service,
        "rate_per_s": found.rate_per_s,
        "first": _level(found.first),
        "stages": [_stage(stage) for stage in found.stages],
        "ended": found.ended or None,
    }


def _stage(stage: Stage) -> dict[str, object]:
    told = {
        "title": stage.title,
        "change": stage.change,
        "verdict": stage.verdict,
        "kept": stage.kept,
        "why": stage.why,
    }
    return {**told, "before": _level(stage.before), "after": _level(stage.after)}


def _level(level: Level) -> dict[str, object]:
    p95 = level.p95.model_dump() if level.p95 is not None else None
    return {"p95": p95, "busy": level.busy, "errors": level.errors}
