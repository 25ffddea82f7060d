"""What happened, from two witnesses: slotune's own ledger, and the load generator's latencies. Pure but for reading."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import histogram

ROLLING_S = 5
LEVER_KINDS = {
    "adjust_batch_size": "batch_size",
    "scale_replicas": "replicas",
    "quantize_int8": "precision",
    "revert_release": "release",
    "restart_replica": "restart",
    "switch_variant": "variant",
    "limit_admission": "admission",
    "break_circuit": "breaker",
}


@dataclass(frozen=True)
class Second:
    """One second of the load generator, t: its end (seconds since the epoch)."""

    t: float
    sent: int
    ok: int
    errors: int
    bins: Mapping[int, int]


class LoadLog:
    """Follows the load generator's JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.seconds: list[Second] = []

    def read(self) -> list[Second]:
        if self._path.is_file():
            with self._path.open() as lines:
                lines.seek(self._offset)
                while (line := lines.readline()).endswith("\n"):
                    self._offset = lines.tell()
                    row = json.loads(line)
                    bins = {int(k): int(v) for k, v in row["bins"].items()}
                    self.seconds.append(Second(row["t"], row["sent"], row["ok"], row["errors"], bins))
        return self.seconds


def p95_ms(seconds: Sequence[Second], start_s: float, end_s: float) -> float | None:
    """P95 of all answers that came in (start_s, end_s]; None when none came."""
    value = histogram.quantile_ms(histogram.merge(s.bins for s in seconds if start_s < s.t <= end_s), 0.95)
    return None if value is None else round(value, 1)


def rolling_p95(seconds: Sequence[Second], width_s: int = ROLLING_S) -> list[tuple[float, float | None]]:
    """(t, P95 over the last `width_s` lines) for every line."""
    return [
        (s.t, histogram.quantile_ms(histogram.merge(x.bins for x in seconds[max(0, i + 1 - width_s) : i + 1]), 0.95))
        for i, s in enumerate(seconds)
    ]


def under_for_good_since(seconds: Sequence[Second], slo_ms: float, since_s: float) -> float | None:
    """When the rolling P95 came under the SLO to stay, None when it is over it at the end; since_s when it never was.

    A second without any answer while requests were sent counts as over.
    """
    since: float | None = since_s
    for t, p95 in rolling_p95([s for s in seconds if s.t > since_s]):
        if p95 is None or p95 > slo_ms:
            since = None
        elif since is None:
            since = t
    return since


def broken_at(seconds: Sequence[Second], slo_ms: float, since_s: float) -> float | None:
    """When the rolling P95 first went over the SLO."""
    late = [s for s in seconds if s.t > since_s]
    return next((t for t, p95 in rolling_p95(late) if p95 is not None and p95 > slo_ms), None)


def goodput(seconds: Sequence[Second], slo_ms: float, start_s: float, end_s: float) -> float | None:
    """Answers within the SLO per second in (start_s, end_s]; None for no time at all."""
    part = [s for s in seconds if start_s < s.t <= end_s]
    in_time = sum(n for s in part for number, n in s.bins.items() if histogram.upper_ms(number) <= slo_ms)
    return round(in_time / len(part), 1) if part else None


@dataclass(frozen=True)
class Event:
    """One line of the ledger, as far as the demo shows it."""

    at_s: float
    kind: str
    phase: str
    body: Mapping[str, Any]


def read_ledger(url: str) -> list[Event]:
    """All records, oldest first; none when slotune has not written yet."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        return []
    from tuning.errors import LedgerUnavailable
    from tuning.ledger import SqlLedger
    from tuning.model import STEPS
    from tuning.query import Query

    try:
        ledger = SqlLedger.open(url)
    except LedgerUnavailable:
        return []
    try:
        records = ledger.find(Query())
    except LedgerUnavailable:
        return []
    finally:
        ledger.close()
    order = {kind: number for number, kind in enumerate(STEPS)}  # steps of one task share its time
    events = (Event(r.at_s, r.kind, r.phase, r.body) for r in records)
    return sorted(events, key=lambda e: (e.at_s, order.get(e.kind, len(order))))


def actions(events: Sequence[Event], since_s: float) -> list[dict[str, Any]]:
    """Every change that was made: lever, from, to, at_s (seconds after since_s), whether it undid another, and the one
    replica that it was made on (empty: all)."""
    made = []
    for event in events:
        for receipt in _receipts(event):
            if receipt.get("changed"):
                made.append({
                    "lever": receipt["lever"], "from": receipt["before"], "to": receipt["after"],
                    "at_s": round(receipt["at_s"] - since_s, 1), "undo": event.kind == "roll_back",
                    "replica": receipt.get("replica", "")})  # fmt: skip
    return made


def refusals(events: Sequence[Event], since_s: float) -> list[dict[str, Any]]:
    """Every change that was tried and refused before it was made: lever, why, at_s (seconds after since_s)."""
    return [
        {"lever": r["lever"], "reason": r["reason"], "at_s": round(r["at_s"] - since_s, 1)}
        for event in events
        for r in _receipts(event)
        if r.get("applied") is False and not r.get("changed")
    ]


def _receipts(event: Event) -> list[Mapping[str, Any]]:
    if event.phase != "result" or event.kind not in {*LEVER_KINDS, "roll_back"}:
        return []
    body = event.body
    if "lever" in body and "before" in body:
        return [body]
    return [r for r in body.get("receipts", []) if isinstance(r, Mapping)]


def first(events: Sequence[Event], kinds: set[str], since_s: float) -> Event | None:
    return next((e for e in events if e.kind in kinds and e.phase == "result" and e.at_s >= since_s), None)


def line_of(event: Event) -> str | None:
    """The event as one line for people, None for what is no news."""
    body, kind = event.body, event.kind
    if kind in LEVER_KINDS or kind == "roll_back":
        changes = [
            f"refused: {r['reason']}" if r.get("applied") is False else _moved(r)
            for r in _receipts(event)
        ]
        return f"{kind}: {'; '.join(changes)}" if changes else None
    if event.phase != "result":
        return None
    if kind == "open_incidents":
        return f"{kind}: {body.get('symptom') or body.get('cause') or 'incident'}"
    if kind in {"choose_action", "hold", "keep", "verify_p95", "guard"}:
        word = body.get("verdict") or body.get("step") or ""
        reason = str(body.get("reason", "")).removeprefix(f"{kind}: ")
        return f"{kind}: {f'{word}: ' if word not in ('', kind) else ''}{reason}"
    return f"{kind}" if kind in {"settle", "email_report"} else None


def _moved(receipt: Mapping[str, Any]) -> str:
    before, after = receipt.get("before", {}), receipt.get("after", {})
    moved = [f"{k} {before.get(k, '?')} -> {v}" for k, v in after.items() if before.get(k) != v]
    on = f" on {receipt['replica']} first" if receipt.get("replica") else ""
    return (", ".join(moved) or "unchanged") + on
