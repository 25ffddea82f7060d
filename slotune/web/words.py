"""How values are written on the page."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tuning import formats

_STATES = {
    "broken": "over the SLO",
    "at_risk": "at risk",
    "ok": "fine",
    "asleep": "scaled to zero",
    "no_data": "no data",
    "unreadable": "unreadable",
}


def now_s() -> float:
    """The time for a page that has no reading of its own."""
    return time.time()


def utc(at_s: float | None) -> str:
    return "" if at_s is None else datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M")


def clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S")


def ms(value: float | None) -> str:
    return "" if value is None else formats.ms(value)


def rate(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"


def share(value: float | None) -> str:
    return "unknown share" if value is None else f"{100 * value:.2g} %"


_KNOBS = {
    "batch_size": "batch size",
    "batch_timeout_ms": "batch timeout (ms)",
    "max_num_seqs": "max-num-seqs",
    "max_num_batched_tokens": "max-num-batched-tokens",
    "min_replicas": "minReplicas",
    "max_replicas": "maxReplicas",
}


def arrow(text: str) -> str:
    """A change in words: "batch size 1 → 8"; a text that begins a line begins with a capital letter."""
    for knob, name in _KNOBS.items():
        text = re.sub(rf"\b{knob}\b", name, text)
    text = text.replace(" -> ", " → ")
    return text[:1].upper() + text[1:] if text[:1].isalpha() and not text.startswith(("min", "max")) else text


def age(seconds: float) -> str:
    """ "45 s", "12 min", "3 h", "2 days"."""
    for size, name in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size or (size == 60 and seconds >= 60):
            return f"{seconds / size:.0f} {name}"
    return f"{max(0.0, seconds):.0f} s"


def change(ratio: float | None) -> str:
    return "" if ratio is None else formats.change(ratio)


FILTERS: dict[str, Callable[..., Any]] = {
    "utc": utc,
    "clock": clock,
    "ms": ms,
    "rate": rate,
    "share": share,
    "arrow": arrow,
    "age": age,
    "change": change,
    "state": _STATES.__getitem__,
    "path": lambda text: quote(text or "", safe=""),
}
