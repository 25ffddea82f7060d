"""A stress test in words: one paragraph and a table for a terminal."""

from __future__ import annotations

from detection.signals import percentile
from slotune.stress.model import Found, Knee, Recovery, Step
from tuning.formats import ms
from tuning.model import Interval

SAID = {
    "met": "met",
    "broken": "broken",
    "errors": "errors",
    "stopped": "broken, ended early",
    "generator": "the generator's limit",
    "interrupted": "interrupted",
}


def per_s(value: float) -> str:
    return f"{value:.0f}/s" if value >= 100 else f"{value:.3g}/s"


def promised(found: Found) -> str:
    """What is to be met: "P95 under 100 ms"."""
    return ", ".join(f"{percentile(name)} under {ms(limit)}" for name, limit in found.plan.limits.items())


def knee_words(knee: Knee, plan_bound: float) -> str:
    if knee.value is not None and knee.high is not None:
        return f"up to {per_s(knee.value)} [{per_s(knee.low)} to {per_s(knee.high)}]"
    if knee.high is None and knee.low > 0:
        rest = "; the bound is reached" if knee.low >= plan_bound * (1 - 1e-9) else ""
        return f"at every rate that was measured, up to {per_s(knee.low)}{rest}"
    return f"at no rate that was tried: it is broken at {per_s(knee.high or 0.0)} already"


def turn_words(found: Found) -> str:
    if found.turn is None:
        return f"{percentile(found.main)} does not turn upwards within what was measured."
    one = found.turn
    return f"{percentile(found.main)} turns upwards at {per_s(one.value)} [{per_s(one.low)} to {per_s(one.high)}]."


def recovery_words(found: Found) -> str:
    if not found.recoveries:
        return "It was never too much, so there was nothing to recover from." if _all_met(found) else ""
    worst = max(found.recoveries, key=lambda one: one.after_per_s)
    if worst.back_s is None:
        return f"After {per_s(worst.after_per_s)} it had not come back within {worst.waited_s:.0f} s."
    return f"After {per_s(worst.after_per_s)} it was back {back_words(worst)}."


def back_words(one: Recovery) -> str:
    if one.back_s is None:
        return f"not within {one.waited_s:.0f} s"
    return f"after {one.back_s:.3g} s" if one.back_s > 0 else "at once"


def saturation_words(found: Found) -> str:
    if found.saturated:
        first = found.saturated[0]
        rest = f"; then {', '.join(one.signal for one in found.saturated[1:])}" if len(found.saturated) > 1 else ""
        return f"First at its limit, at {per_s(first.at_per_s)}: {first.said}{rest}."
    if found.blind:
        return f"What ran out first cannot be told: {found.blind}."
    unseen = f"; not exported: {', '.join(found.untold)}" if found.untold else ""
    return f"Nothing that can be seen reached its limit{unseen}."


def _all_met(found: Found) -> bool:
    return bool(found.steps) and all(step.verdict == "met" for step in found.steps)


def summary(found: Found) -> str:
    """The result in one paragraph."""
    who = found.service or found.address
    if found.knee.value is None and found.knee.low <= 0 and found.knee.high is None:
        return f"Whether {who} keeps its promise ({promised(found)}) cannot be told: no step says anything of it."
    return " ".join(
        part
        for part in (
            f"{who} keeps its promise ({promised(found)}) {knee_words(found.knee, found.plan.bound_per_s)}.",
            turn_words(found),
            recovery_words(found),
            saturation_words(found),
        )
        if part
    )


def p95_words(one: Interval | None) -> str:
    return "no answer" if one is None else f"{ms(one.value)} [{ms(one.low)} to {ms(one.high)}]"


def line(step: Step) -> str:
    """One step, as it is told while the test runs."""
    p95 = "; ".join(f"{percentile(name)} {p95_words(one)}" for name, one in step.p95.items()) or "no answer"
    why = f" ({step.why})" if step.why else ""
    return f"{per_s(step.rate_per_s):>9}: {p95}, {step.errors:.1%} failed: {SAID[step.verdict]}{why}"


def render(found: Found) -> str:
    """The paragraph, the steps by rate, and what a reader has to know."""
    rows = [line(step) for step in sorted(found.steps, key=lambda step: step.rate_per_s)]
    failures = ", ".join(f"{count} x {what}" for what, count in sorted(found.failures.items()))
    notes = [*found.notes, *([f"Failed: {failures}."] if failures else []), *([found.learned] if found.learned else [])]
    ended = f"Ended because {found.ended}."
    return "\n".join([summary(found), "", *rows, "", ended, *notes])
