"""What a backtest writes: flags.csv, summary.json, and the figures that they hold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from detection.backtest.run import Outcome
from detection.errors import ConfigError
from detection.model import FloatArray, Tier

MERGE_S = 1800.0
WEEK_DAYS = 7.0


def flags(outcomes: Sequence[Outcome], tier: Tier) -> pd.DataFrame:
    """series, timestamp (epoch seconds), flag (0 or 1) and score (in units of the tier's threshold) of each point."""
    parts = [
        pd.DataFrame(
            {
                "series": outcome.name,
                "timestamp": outcome.frame["timestamp"],
                "flag": outcome.frame[tier].astype(int),
                "score": outcome.frame["score" if tier == "warn" else "act_score"].round(4),
            }
        )
        for outcome in outcomes
        if len(outcome.frame)
    ]
    columns = ["series", "timestamp", "flag", "score"]
    frame = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    whole = frame["timestamp"].astype(float)
    if len(frame) and bool((whole == whole.round()).all()):
        frame["timestamp"] = whole.round().astype("int64")
    return frame


def alarms(at: FloatArray, gap_s: float) -> list[tuple[float, float]]:
    """Flagged times, ascending, as runs no further apart than gap_s: one call to a person each."""
    if at.size == 0:
        return []
    cut = np.flatnonzero(np.diff(at) > gap_s)
    return list(zip(at[np.r_[0, cut + 1]].tolist(), at[np.r_[cut, at.size - 1]].tolist(), strict=True))


def read_labels(path: Path) -> pd.DataFrame:
    """Labelled windows: series,start,end[,onset] as epoch seconds. ConfigError where they are not."""
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConfigError("the labels cannot be read as CSV", where=str(path)) from error
    missing = {"series", "start", "end"} - set(frame.columns)
    if missing:
        raise ConfigError(f"the columns {', '.join(sorted(missing))} are missing", where=str(path))
    if "onset" not in frame.columns:
        frame["onset"] = frame["start"]
    for column in ("start", "end", "onset"):
        if not pd.api.types.is_numeric_dtype(frame[column]):
            stamps = pd.to_datetime(frame[column], utc=True, errors="coerce", format="ISO8601")
            frame[column] = (stamps - pd.Timestamp(0, tz="UTC")) / pd.Timedelta("1s")
    return frame


def summary(
    outcomes: Sequence[Outcome], tier: Tier, labels: pd.DataFrame | None = None, merge_s: float = MERGE_S
) -> dict[str, Any]:
    """Alarms a week and service, flagged share, by detector and signal; with labels recall, precision, false alarms,
    delay, and the flagged share of the quiet time: a long alarm counts once, and only that shows how long it stood."""
    services = {outcome.name: _service(outcome, tier, labels, merge_s) for outcome in outcomes}
    days = sum(outcome.days for outcome in outcomes)
    total = sum(item["alarms"] for item in services.values())
    detectors, signals = Counter[str](), Counter[str]()
    for outcome in outcomes:
        if len(outcome.anomalies):
            chosen = outcome.anomalies if tier == "warn" else outcome.anomalies[outcome.anomalies["tier"] == "act"]
            detectors.update(name for names in chosen["detectors"].astype(str) for name in names.split())
            signals.update(chosen["signal"].astype(str))
    found: dict[str, Any] = {
        "tier": tier,
        "services": len(outcomes),
        "days": round(days, 3),
        "judgements": int(sum(len(outcome.frame) for outcome in outcomes)),
        "flagged_share": round(_share(outcomes, tier), 6),
        "alarms": total,
        "alarms_per_week_per_service": round(total * WEEK_DAYS / days, 3) if days else None,
        "incidents": int(sum(len(outcome.incidents) for outcome in outcomes)),
        "by_detector": dict(detectors.most_common()),
        "by_signal": dict(signals.most_common()),
        "by_service": services,
    }
    return found | (_totals(services, days) if labels is not None else {})


def _share(outcomes: Sequence[Outcome], tier: Tier) -> float:
    judged = sum(len(outcome.frame) for outcome in outcomes)
    return sum(float(outcome.frame[tier].sum()) for outcome in outcomes if len(outcome.frame)) / max(judged, 1)


def _service(outcome: Outcome, tier: Tier, labels: pd.DataFrame | None, merge_s: float) -> dict[str, Any]:
    at = outcome.frame["timestamp"].to_numpy(dtype=float) if len(outcome.frame) else np.empty(0)
    on: NDArray[np.bool_] = outcome.frame[tier].to_numpy() > 0 if len(outcome.frame) else np.empty(0, bool)
    step_s = float(np.median(np.diff(at))) if at.size > 1 else 60.0
    runs = alarms(at[on], max(merge_s, 3 * step_s))
    item: dict[str, Any] = {
        "days": round(outcome.days, 3),
        "alarms": len(runs),
        "alarms_per_week": round(len(runs) * WEEK_DAYS / outcome.days, 3) if outcome.days else None,
        "flagged_share": round(float(on.mean()), 6) if on.size else 0.0,
    }
    if outcome.odd:
        item["odd_data"] = outcome.odd
    if labels is None:
        return item
    windows = labels[labels["series"] == outcome.name]
    hits, delays, true = 0, [], 0
    spans = windows[["start", "end", "onset"]].to_numpy(dtype=np.float64)
    quiet = np.ones(at.size, dtype=bool)
    for start_s, end_s, onset_s in spans.tolist():
        within = (at >= start_s) & (at <= end_s)
        quiet &= ~within
        inside = at[on & within]
        if inside.size:
            hits += 1
            delays.append(max(0.0, float(inside[0]) - onset_s))
    for first_s, last_s in runs:
        true += int(((spans[:, 0] <= last_s) & (spans[:, 1] >= first_s)).any())
    return item | {"events": len(windows), "found": hits, "true_alarms": true, "delays_s": delays} | {
        "quiet_judgements": int(quiet.sum()),
        "quiet_flagged": int((on & quiet).sum()),
    }


def _totals(services: dict[str, dict[str, Any]], days: float) -> dict[str, Any]:
    events = sum(item["events"] for item in services.values())
    count = sum(item["alarms"] for item in services.values())
    true = sum(item["true_alarms"] for item in services.values())
    delays = [delay for item in services.values() for delay in item["delays_s"]]
    quiet = sum(item["quiet_judgements"] for item in services.values())
    flagged = sum(item["quiet_flagged"] for item in services.values())
    return {
        "events": events,
        "recall": round(sum(item["found"] for item in services.values()) / events, 4) if events else None,
        "quiet_flagged_share": round(flagged / quiet, 6) if quiet else None,
        "precision": round(true / count, 4) if count else None,
        "false_alarms_per_service_day": round((count - true) / days, 4) if days else None,
        "median_delay_s": float(np.median(delays)) if delays else None,
    }


def write(out: Path, outcomes: Sequence[Outcome], tier: Tier, found: dict[str, Any]) -> None:
    """flags.csv, anomalies.csv, incidents.csv and summary.json into a folder that exists."""
    flags(outcomes, tier).to_csv(out / "flags.csv", index=False)
    for kind in ("anomalies", "incidents"):
        parts = [getattr(o, kind).assign(series=o.name) for o in outcomes if len(getattr(o, kind))]
        if parts:
            pd.concat(parts, ignore_index=True).to_csv(out / f"{kind}.csv", index=False)
    (out / "summary.json").write_text(json.dumps(found, indent=2) + "\n")
