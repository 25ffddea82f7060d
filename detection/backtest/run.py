"""A whole backtest: recordings in, flags and a summary out, resumable group by group."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from detection import detectors
from detection.backtest.recorded import VALUE, Recording
from detection.backtest.replay import Replay
from detection.model import Anomaly, Service, Slo, make_id
from detection.settings import DetectionSettings
from detection.signals import SIGNALS

GROUP = 32
# hourly data needs more than a week to know its days: at least two weeks of hours
MIN_POINTS = 336
NO_SLO = Slo(p95_ms=1e12)
Progress = Callable[[str, float, float], None]
"""Called with what is replayed, days done and days in all."""


@dataclass(frozen=True)
class Outcome:
    """What a replay of one recording said.

    frame: one row per judged original timestamp: timestamp (epoch seconds), warn, act (0 or 1), score, act_score (the
    largest in units of the threshold of warn and of act). anomalies: one row per anomaly onset.
    incidents: one row per incident.
    """

    name: str
    days: float
    frame: pd.DataFrame
    anomalies: pd.DataFrame
    incidents: pd.DataFrame
    odd: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What to replay and how. slo: None judges without SLO rules. registry: where detectors are looked up."""

    settings: DetectionSettings
    learn_every_s: float = 3600.0
    slo: Slo | None = None
    registry: detectors.Registry = field(default_factory=lambda: detectors.REGISTRY)

    def fingerprint(self, group: Sequence[Recording]) -> str:
        """Changes whenever the result could: the settings, the data's extent, or its values."""
        digest = hashlib.sha256(self.settings.model_dump_json().encode())
        digest.update(f"{self.learn_every_s}{self.slo}".encode())
        for recording in group:
            digest.update(f"{recording.name}{recording.window.span}".encode())
            for name in sorted(recording.window.values):
                digest.update(name.encode() + recording.window.values[name].tobytes())
        return digest.hexdigest()[:16]


def replay_all(
    recordings: Sequence[Recording], plan: Plan, keep: Path | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """Replays everything; what is in `keep` from an earlier run with the same settings and data is taken from there."""
    groups = grouped(recordings)
    total = sum(days_of(r) for group in groups for r in group)
    done, found = 0.0, []
    for group in groups:
        place = keep / plan.fingerprint(group) if keep is not None else None
        outcomes = read_kept(place) if place is not None else None
        if outcomes is None:
            base = done
            size = sum(days_of(r) for r in group)

            def report(share: float, base: float = base, size: float = size, name: str = group[0].name) -> None:
                if progress is not None:
                    progress(name, base + share * size, total)

            outcomes = replay_group(group, plan, report)
            if place is not None:
                write_kept(place, outcomes)
        done += sum(days_of(r) for r in group)
        if progress is not None:
            progress(group[-1].name, done, total)
        found += outcomes
    return found


def days_of(recording: Recording) -> float:
    """How many days a recording spans."""
    return recording.window.span.points * recording.window.span.step_s / 86_400


def grouped(recordings: Sequence[Recording]) -> list[list[Recording]]:
    """Recordings on one grid are replayed together, as a sweep judges all services at once."""
    same: dict[tuple[object, ...], list[Recording]] = defaultdict(list)
    for recording in recordings:
        span = recording.window.span
        # single series have nothing in common; services with the same signals share a forest
        alone = recording.name if set(recording.window.values) == {VALUE} else ""
        same[span.start_s, span.points, span.step_s, alone].append(recording)
    return [group[i : i + GROUP] for group in same.values() for i in range(0, len(group), GROUP)]


def replay_group(
    group: Sequence[Recording],
    plan: Plan,
    report: Callable[[float], None],
    hear: Callable[[float, Sequence[Anomaly]], object] | None = None,
) -> list[Outcome]:
    """Replays recordings that share a grid. hear: is told the anomalies of each judgement, see Replay."""
    span = group[0].window.span
    services = [Service(name=r.name, serving="recorded", slo=plan.slo or NO_SLO) for r in group]
    settings = plan.settings.model_copy(
        update={
            "history_step_s": span.step_s,
            "history_s": max(plan.settings.history_s, MIN_POINTS * span.step_s),
            "close_after_s": max(plan.settings.close_after_s, 3 * span.step_s),
        }
    )
    if not any(name in SIGNALS for r in group for name in r.window.values):
        # rules speak of known signals, and a gap in a bare series is no outage
        settings = settings.model_copy(update={"detectors": tuple(n for n in settings.detectors if n != "rules")})
    learn_every_s = max(plan.learn_every_s, span.step_s)
    windows = {r.name: r.window for r in group}
    replay = Replay(services, windows, settings, learn_every_s, plan.registry, hear=hear)
    for upto_s in replay.run():
        report((upto_s - span.start_s) / max(span.end_s - span.start_s, 1.0))
    return [_outcome(recording, replay) for recording in group]


def _outcome(recording: Recording, replay: Replay) -> Outcome:
    verdict = replay.verdicts[recording.name]
    real = np.isfinite(recording.stamps)
    frame = pd.DataFrame(
        {
            "timestamp": recording.stamps[real],
            "warn": np.array(verdict.warn, dtype=np.int8)[real],
            "act": np.array(verdict.act, dtype=np.int8)[real],
            "score": np.array(verdict.score)[real],
            "act_score": np.array(verdict.act_score)[real],
        }
    )
    anomalies = [
        {"signal": a.signal, "tier": a.tier, "since_s": a.since_s, "at_s": a.at_s, "score": a.score,
         "detectors": " ".join(a.detectors), "reason": a.reason}
        for a in replay.onsets
        if a.service == recording.name
    ]  # fmt: skip
    incidents = [
        {"id": i.id, "symptom": i.symptom, "tier": i.tier, "opened_at_s": i.opened_at_s,
         "detected_at_s": i.detected_at_s, "signals": " ".join(i.signals), "reason": i.reason}
        for i in replay.incidents.values()
        if i.service == recording.name
    ]  # fmt: skip
    return Outcome(
        recording.name, days_of(recording), frame, pd.DataFrame(anomalies), pd.DataFrame(incidents), recording.odd
    )


def write_kept(place: Path, outcomes: Sequence[Outcome]) -> None:
    """Keeps the results of a group; the manifest is written last, so a half-written group does not count."""
    place.mkdir(parents=True, exist_ok=True)
    names = []
    for outcome in outcomes:
        stem = make_id(outcome.name)
        for kind in ("frame", "anomalies", "incidents"):
            getattr(outcome, kind).to_csv(place / f"{stem}.{kind}.csv", index=False)
        names.append({"name": outcome.name, "stem": stem, "days": outcome.days, "odd": outcome.odd})
    (place / "manifest.json").write_text(json.dumps(names))


def read_kept(place: Path) -> list[Outcome] | None:
    """The kept results of a group, None when there are none or they are damaged."""
    try:
        manifest = json.loads((place / "manifest.json").read_text())
        return [
            Outcome(
                item["name"],
                item["days"],
                _frame(place / f"{item['stem']}.frame.csv"),
                _frame(place / f"{item['stem']}.anomalies.csv"),
                _frame(place / f"{item['stem']}.incidents.csv"),
                item["odd"],
            )
            for item in manifest
        ]
    except (OSError, ValueError, KeyError):
        return None


def _frame(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
