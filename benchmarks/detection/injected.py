"""Injected faults: recall, false judgements, false alarms and delay, replayed through the live code."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from benchmarks.detection.recordings import HISTORY_DAYS, KINDS, STEP_S, Case, make
from detection.backtest.replay import Replay
from detection.backtest.report import alarms
from detection.settings import DetectionSettings

# what follows a fault for this long (the last hour's level, incidents that are kept open) still belongs to it
AFTER_S = 5400.0


def run(seeds: int = 5) -> dict[str, dict[str, Any]]:
    """All kinds and seeds, by tier; a judgement is one service at one sweep of five minutes."""
    replays = [(cases, replayed(cases)) for cases in map(make, range(seeds))]
    return {tier: measure(replays, tier) for tier in ("act", "warn")}


def measure(replays: list[tuple[list[Case], Replay]], tier: str) -> dict[str, Any]:
    """The figures of one tier over all replays."""
    events: Counter[str] = Counter()
    hits: Counter[str] = Counter()
    delays: list[float] = []
    false_judgements = judged = false_alarms = 0
    days = 0.0
    for cases, replay in replays:
        for case in cases:
            verdict = replay.verdicts[case.service.name]
            at = np.array(verdict.times)
            on = np.array(getattr(verdict, tier))
            late = at > case.window.span.start_s + HISTORY_DAYS * 86_400
            fault = (at >= case.start_s) & (at <= case.end_s + AFTER_S) if case.kind else np.zeros(at.size, bool)
            if case.kind:
                events[case.kind] += 1
                inside = at[on & (at >= case.start_s) & (at <= case.end_s + 2 * STEP_S)]
                if inside.size:
                    hits[case.kind] += 1
                    delays.append((float(inside[0]) - case.start_s) / STEP_S)
            quiet = late & ~fault
            judged += int(quiet.sum())
            false_judgements += int((on & quiet).sum())
            false_alarms += len(alarms(at[on & quiet], 1800.0))
            days += quiet.sum() * STEP_S / 86_400
    return {
        "tier": tier,
        "events": sum(events.values()),
        "recall": round(sum(hits.values()) / sum(events.values()), 4),
        "recall_by_kind": {kind: round(hits[kind] / events[kind], 3) for kind in KINDS},
        "false_judgements": round(false_judgements / judged, 5),
        "false_alarms_per_service_day": round(float(false_alarms / days), 4),
        "median_delay_sweeps": float(np.median(delays)) if delays else None,
        "seeds": len(replays),
    }


def replayed(cases: list[Case]) -> Replay:
    """A replay of all cases together, learning every six hours, with the SLO rules on."""
    settings = DetectionSettings(history_step_s=STEP_S)
    first = cases[0].window.span
    replay = Replay([c.service for c in cases], {c.service.name: c.window for c in cases}, settings, 6 * 3600.0)
    # the week before is only history: nothing is judged in it
    replay.done_s = first.start_s + HISTORY_DAYS * 86_400 - STEP_S
    for _ in replay.run():
        pass
    return replay
