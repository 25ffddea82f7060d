"""Whether the source's clock and ours tell the same time: what was measured is placed by both."""

from __future__ import annotations


def clocks_apart(skew_s: float | None, tolerance_s: float) -> str | None:
    """What is wrong, in a sentence. skew_s: the source's clock minus ours; None where the source shows no clock."""
    if skew_s is None or abs(skew_s) <= tolerance_s:
        return None
    way = "ahead of" if skew_s > 0 else "behind"
    return (
        f"The clock of the metrics source is {abs(skew_s):.0f} s {way} ours (allowed: {tolerance_s:.0f} s): before and "
        "after a change cannot be told apart. Let both keep time by NTP."
    )
