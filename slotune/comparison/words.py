"""A comparison as a table for the command line."""

from __future__ import annotations

from tuning.report.comparison_words import conclusion, effect, interval, value
from tuning.verification.comparison import Comparison


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
