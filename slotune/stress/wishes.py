"""What a person writes on the command line of `slotune stress`, as values; ConfigError with a sentence for the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from detection.errors import ConfigError
from detection.model import Slo
from slotune.stress.model import Plan
from slotune.stress.protocols import Protocol

_CLIMB_STEPS = 10
_FIRST_SHARE = 0.1
"""Where nobody knows what the service gets now, the climb begins at this share of the bound."""
_MOST_GROWTH, _LEAST_GROWTH = 1.5, 1.05
_MOST_PER_S = 100_000.0


def limit_ms(text: str, where: str) -> float:
    """ "150ms", "2s"."""
    found = re.fullmatch(r"([0-9.]+)(ms|s)", text.strip())
    try:
        value = float(found[1]) * (1.0 if found[2] == "ms" else 1000.0) if found else 0.0
    except ValueError:
        value = 0.0
    if not value > 0:
        raise ConfigError(f"{text!r} is not a latency such as 150ms or 2s", where=where)
    return value


def share(text: str, where: str) -> float:
    """ "5%", "0.05"."""
    try:
        value = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise ConfigError(f"{text!r} is not a share such as 5% (more than 0, at most 100%)", where=where)
    return value


def times_or_ms(text: str, limit: float, where: str) -> float:
    """ "3x" is 3; a latency is so many times the limit (ms)."""
    value = number(text[:-1], where) if text.endswith("x") else limit_ms(text, where) / limit
    if value < 1:
        raise ConfigError(
            f"{text} lies below the objective itself: a step could never show where it breaks", where=where
        )
    return value


def rate(text: str, where: str) -> float:
    """ "200/s" or "200"."""
    return number(text.removesuffix("/s"), where)


def number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not (0 < value <= _MOST_PER_S and math.isfinite(value)):
        raise ConfigError(f"{text!r} is not a number above 0 and up to {_MOST_PER_S:,.0f}", where=where)
    return value


def bound(text: str, present_per_s: float | None, first_per_s: float | None) -> float:
    """The rate that is never passed: "200/s", or "10x" of what it gets now (where that is not known: of --from)."""
    if not text:
        raise ConfigError(
            "give --to, the rate that is never passed: --to 200/s, or --to 10x of what the service gets now"
        )
    if text.endswith("x"):
        times, base = number(text[:-1], "--to"), present_per_s or first_per_s
        if not base:
            why = "nobody knows it" if present_per_s is None else "it gets none"
            raise ConfigError(f"--to {text} means times the rate of now, and {why}: give --from, or --to 200/s")
        found = times * base
    else:
        found = rate(text, "--to")
    if present_per_s is not None and found <= present_per_s:
        raise ConfigError(
            f"--to {text} does not lie above what the service gets already ({present_per_s:.3g}/s): nothing to add"
        )
    if found > _MOST_PER_S:
        raise ConfigError(f"--to {text} is {found:,.0f}/s: this generator ends at {_MOST_PER_S:,.0f}/s")
    return found


def rates(to: str, first: str, present_per_s: float | None) -> tuple[float, float, float]:
    """(first rate, bound, growth)."""
    told = rate(first, "--from") if first else None
    most = bound(to, present_per_s, told)
    if told is not None and present_per_s is not None and told < present_per_s:
        raise ConfigError(f"--from {first} lies below what the service gets already ({present_per_s:.3g}/s)")
    if told is not None and told >= most:
        raise ConfigError(f"--from {first} does not lie below --to ({most:.3g}/s): there is nothing to climb")
    start = told if told is not None else max(present_per_s or 0.0, _FIRST_SHARE * most)
    if present_per_s and start <= present_per_s:
        # this test has to send something to see something
        start = min(1.1 * present_per_s, 0.5 * (present_per_s + most))
    growth = (most / start) ** (1.0 / _CLIMB_STEPS)
    return start, most, min(_MOST_GROWTH, max(_LEAST_GROWTH, growth))


def limits(given: Sequence[str], slo: Slo | None, protocol: Protocol) -> Mapping[str, float]:
    """By objective, ms: of --slo, else of the service, as far as the protocol can measure it."""
    names = {name.removesuffix("_ms"): name for name in protocol.objectives}
    if given:
        found = {}
        for text in given:
            name, _, value = text.rpartition("=")
            key = names.get(name, "") if name else protocol.objectives[0]
            if not key:
                raise ConfigError(
                    f"{name!r} is nothing that {protocol.name} measures: {', '.join(names)}", where="--slo"
                )
            found[key] = limit_ms(value, "--slo")
        return found
    if slo is None:
        raise ConfigError("give --slo, such as --slo 100ms: the knee is the highest rate that keeps it")
    promised = {one.signal: one.limit_ms for one in slo.objectives if one.signal in protocol.objectives}
    if not promised:
        raise ConfigError(
            f"--protocol {protocol.name} measures none of what the service promises "
            f"({', '.join(one.signal for one in slo.objectives)}): give --slo"
        )
    return promised


def longest_s(plan: Plan, last_s: float) -> float:
    """How long a test may take at most."""
    climb = math.log(plan.bound_per_s / plan.start_per_s) / math.log(plan.growth) + 2
    return climb * plan.step_s + (plan.refinements + 1) * (plan.step_s + plan.recovery_max_s) + last_s
