"""The labelled cases replayed: every anomaly of every judgement, and what a person would have said of each alarm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.detection import cases
from detection.backtest.recorded import Recording
from detection.backtest.run import Plan, grouped, replay_group
from detection.model import Anomaly
from detection.ranker_fitting import Example
from detection.settings import DetectionSettings


@dataclass(frozen=True)
class Heard:
    """One series. stamps: judged timestamps. said: (epoch seconds, anomaly), in the order of time. families: how it is
    left out, by the name of the way. windows: (start, end) of its labelled events, widened by their tolerance.
    begins_s: where the labels, and scoring, begin."""

    name: str
    stamps: np.ndarray
    said: tuple[tuple[float, Anomaly], ...]
    families: dict[str, str]
    windows: tuple[tuple[float, float], ...]
    step_s: float
    begins_s: float


def heard(root: Path, tier: str) -> list[Heard]:
    """Replays a tier of the cases as `slotune backtest` would."""
    manifest = pd.read_csv(root / "cases" / "dev" / "manifest.csv").set_index("series")
    windows = pd.read_csv(root / "cases" / "dev" / "windows.csv")
    windows[["start", "end"]] = windows[["start", "end"]].apply(_seconds)
    found = []
    for group in grouped(cases.series(root, tier)):
        said = _replayed(group)
        for recording in group:
            row: Any = manifest.loc[recording.name]
            events = windows[windows.series == recording.name]
            spans = tuple((a - row.tol_s, b + row.tol_s) for a, b in zip(events.start, events.end, strict=True))
            ways = {"family": str(row.family), "group": str(row.group)}
            stamps = np.rint(recording.stamps[np.isfinite(recording.stamps)])
            (begins_s,) = _seconds(pd.Series([row.score_start]))
            mine = tuple(said.get(recording.name, ()))
            found.append(Heard(recording.name, stamps, mine, ways, spans, float(row.resolution_s), float(begins_s)))
    return found


def _seconds(column: pd.Series) -> np.ndarray:
    return pd.DatetimeIndex(pd.to_datetime(column)).as_unit("s").asi8


def _replayed(group: Sequence[Recording]) -> dict[str, list[tuple[float, Anomaly]]]:
    said: dict[str, list[tuple[float, Anomaly]]] = {}

    def hear(at_s: float, anomalies: Sequence[Anomaly]) -> None:
        for anomaly in anomalies:
            said.setdefault(anomaly.service, []).append((at_s, anomaly))

    replay_group(group, Plan(DetectionSettings(), cases.LEARN_EVERY_S), lambda share: None, hear)
    return said


def examples(series: Heard) -> list[Example]:
    """What an installation would have learned from: an incident is real where it overlaps an event, and each anomaly is
    kept after 1, 2, 4, 8, ... judgements, as live (tuning.loop.examples)."""
    found, label, begun, last = [], "", 0.0, -np.inf
    # as live: over when nothing was seen for close_after_s, or not at the next judgement
    gap_s = max(DetectionSettings().close_after_s, series.step_s) + 1.0
    ends = _incidents(series, gap_s)
    for at_s, anomaly in series.said:
        if at_s < series.begins_s:
            continue  # nobody labelled that part
        if at_s - last > gap_s:
            label, begun = f"{series.name}@{at_s:.0f}", at_s
        last = at_s
        if anomaly.at_s == at_s and anomaly.evidence and anomaly.seen & (anomaly.seen - 1) == 0:
            real = any(start <= ends[begun] and begun <= end for start, end in series.windows)
            found.append(Example(label, series.name, at_s, anomaly.evidence, real))
    return found


def _incidents(series: Heard, gap_s: float) -> dict[float, float]:
    """By the beginning of each incident (what is said without a longer gap), its end."""
    ends: dict[float, float] = {}
    begun, last = 0.0, -np.inf
    for at_s, _ in series.said:
        if at_s < series.begins_s:
            continue
        if at_s - last > gap_s:
            begun = at_s
        ends[begun] = last = at_s
    return ends
