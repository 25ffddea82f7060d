"""How a comparison is said, the same on the command line and on its page."""

from __future__ import annotations

from tuning.formats import change, ms
from tuning.verification.comparison import Comparison, Line, worst

_DIFFERS = ("better", "worse", "different")


def render(found: Comparison, a: str, b: str) -> str:
    """The table for people, the conclusion first."""
    how = "at the same times, point by point" if found.side_by_side else "at two times"
    lines = [conclusion(found, a, b), f"Compared {how}; the intervals hold {found.level:.0%}.", ""]
    rows = [("", f"A: {a}", f"B: {b}", "B against A", f"{found.level:.0%} interval", "B is")]
    rows += [(line.title, value(line, line.a), value(line, line.b), effect(line, line.effect), interval(line),
              line.verdict + (f" ({line.reason})" if line.reason else "")) for line in found.lines]  # fmt: skip
    widths = [max(len(row[k]) for row in rows) for k in range(5)]
    lines += ["  ".join([*(row[k].ljust(widths[k]) for k in range(5)), row[5]]).rstrip() for row in rows]
    lines += ["", *found.notes] if found.notes else []
    return "\n".join(lines)


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
    return f"{number:.3g}" + (f" {line.unit}" if line.unit else "")


def effect(line: Line, number: float | None) -> str:
    """B against A: "-30%" for a ratio, "+1.2 points" for shares."""
    if number is None:
        return "-"
    if line.ratio:
        return change(number)
    return f"{100 * number:+.2f} points" if line.unit == "share" else f"{number:+.3g}"


def interval(line: Line) -> str:
    if line.low is None or line.high is None:
        return "-"
    return f"{effect(line, line.low)} to {effect(line, line.high)}"
