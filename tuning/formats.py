"""How figures are written for people, the same in plans, verdicts, mails and on the command line."""

from __future__ import annotations


def ms(value: float | None) -> str:
    """A latency: three figures, seconds from 10 s on."""
    if value is None:
        return "no data"
    if value >= 10_000:
        return f"{value / 1000:.1f} s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def change(ratio: float) -> str:
    """What a ratio of after to before means: 0.7 is "-30%". A tail that fell to a two-hundredth did not fall by
    "100%", so small ratios get as many decimals as they need, two at most and then cut, not rounded."""
    decimals = 0 if ratio >= 0.02 or ratio == 0 else 1 if ratio >= 0.001 else 2
    percent = (ratio - 1) * 100 if ratio == 0 else max((ratio - 1) * 100, -99.99)
    return f"{percent:+.{decimals}f}%"


def per_hour(cost: float) -> str:
    """What an option costs or saves an hour, in the unit of the configured prices."""
    return f"{cost:+.2f}/h" if abs(cost) >= 0.005 else "none"


LEAST_MONEY = 0.005
"""Less than that is no sum that is told as a difference."""


def money(value: float) -> str:
    """A sum in the unit of the configured prices: cents, and two figures of what is smaller than ten of them."""
    return f"{value:,.2f}" if abs(value) >= 0.1 or value == 0 else f"{value:.2g}"


def points(loss: float) -> str:
    """A share of right answers that is lost (0..1), in points: 0.018 is "-1.8 points"."""
    return f"-{100 * loss:.3g} points" if loss > 0 else "no points"


def refused(share: float) -> str:
    """A share of the requests (0..1) that is refused."""
    return f"{share:.0%} of the requests refused"


def point_minutes(loss: float, seconds: float) -> str:
    """What a loss of quality came to over a stretch of time: points times minutes."""
    minutes = seconds / 60
    return f"{points(loss)} for {minutes:.1f} min: {100 * loss * minutes:.3g} point-minutes"
