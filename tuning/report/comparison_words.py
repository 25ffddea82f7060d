"""How a comparison is said, the same on the command line, on its page and in the mail about a release."""

from __future__ import annotations

from typing import Literal

from tuning.formats import change, ms
from tuning.model import Release
from tuning.verification.comparison import Comparison, Line, worst

_DIFFERS = ("better", "worse", "different")
JUDGED = ("p95_ms", "error_rate", "accuracy", "agreement")
"""What a new version is judged by; the others are told, because the load alone moves them."""
_TIMES = 3.0
"""From here on a ratio is said as a factor: "+28135%" tells nobody anything."""
_NOTHING = 1e-4
"""Smaller differences of a plain number are a rounding error."""


def conclusion(found: Comparison, a: str, b: str) -> str:
    """One sentence: what differs most, or that nothing does, or that it cannot be told."""
    first = worst(found.lines)
    if first is not None:
        others = sum(line.verdict in _DIFFERS for line in found.lines) - 1
        more = f"; {others} more differ{'s' if others == 1 else ''}" if others else ""
        how = f"differs from A ({a})" if first.verdict == "different" else f"is {first.verdict} than A ({a})"
        return f"B ({b}) {how}: {first.title} {effect(first, first.effect)}{more}."
    if found.verdict == "same":
        return f"B ({b}) is the same as A ({a}) in all {len(found.lines)} signals."
    return f"Nothing shows that B ({b}) differs from A ({a}), and not all of it can be told."


def value(line: Line, number: float | None) -> str:
    """A typical value of a side, in its unit."""
    if number is None:
        return "no data"
    if line.unit == "ms":
        return ms(number)
    if line.unit == "share":
        return f"{number:.2%}"
    return _short(number) + (f" {line.unit}" if line.unit else "")


def _short(number: float) -> str:
    """Three digits, and never as a power of ten where people would write it out."""
    return f"{number:,.0f}" if 999.5 <= abs(number) < 1e9 else f"{number:.3g}"


def effect(line: Line, number: float | None) -> str:
    """B against A: "-30%" for a ratio, "x 12" for a large one, "+1.2 points" for shares."""
    if number is None:
        return "-"
    if line.ratio:
        return change(number) if number < _TIMES else f"x {_short(number)}"
    if line.unit == "share":
        return f"{100 * number:+.2f} points"
    return f"{number:+.3g}" if abs(number) >= _NOTHING else "+0"


def interval(line: Line) -> str:
    if line.low is None or line.high is None:
        return "-"
    return f"{effect(line, line.low)} to {effect(line, line.high)}"


def release_verdict(found: Comparison) -> Literal["worse", "better", "same", "different", "cannot tell"]:
    """One word for a new version: "worse" as soon as one signal that matters is; throughput is the callers' doing."""
    told = [line for line in found.lines if line.signal in JUDGED]
    verdicts = {line.verdict for line in told}
    for word in ("worse", "better", "different"):
        if word in verdicts:
            return word
    main = {line.verdict for line in told if line.signal in ("p95_ms", "error_rate")}
    return "same" if main and main <= {"same"} else "cannot tell"


def release_sentence(found: Comparison, release: Release) -> str:
    """The conclusion about a new version, both named."""
    verdict = release_verdict(found)
    names = f"version {release.new}", f"version {release.old}"
    first = worst([line for line in found.lines if line.signal in JUDGED and line.verdict == verdict])
    if first is not None:
        how = "differs from" if verdict == "different" else f"is {verdict} than"
        return (
            f"{names[0]} {how} {names[1]}: {first.title} {effect(first, first.effect)} ({interval(first)}), "
            f"{value(first, first.a)} before and {value(first, first.b)} now"
        )
    if verdict == "same":
        return f"{names[0]} is no worse than {names[1]}: P95 and failed requests are the same"
    doubt = next((line.reason for line in found.lines if line.signal == "p95_ms" and line.reason), "")
    return f"whether {names[0]} is worse than {names[1]} cannot be told{f': {doubt}' if doubt else ''}"


def release_lines(found: Comparison) -> list[str]:
    """Every compared signal in words, and what makes the comparison doubtful."""
    lines = [
        f"{_capital(line.title)}: {value(line, line.a)} with the old version, {value(line, line.b)} with the new one "
        f"({effect(line, line.effect)}, {interval(line)}): {line.verdict}{f', {line.reason}' if line.reason else ''}."
        for line in found.lines
    ]
    return [*lines, *(f"{note} (A: the old version, B: the new one)" for note in found.notes)]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
