"""Pictures of a backtest: the services with most alarms, their series, and where the alarms stood."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from detection.backtest.recorded import Recording
from detection.backtest.run import Outcome
from detection.model import Tier

MOST = 6
SIGNALS = 6


def draw_worst(recordings: Sequence[Recording], outcomes: Sequence[Outcome], tier: Tier, out: Path) -> list[Path]:
    """One PNG for each of the services with most flagged points, up to six; returns the files."""
    by_name = {recording.name: recording for recording in recordings}
    ranked = sorted((o for o in outcomes if len(o.frame)), key=lambda o: (-int(o.frame[tier].sum()), o.name))
    return [draw(by_name[outcome.name], outcome, tier, out) for outcome in ranked[:MOST] if outcome.name in by_name]


def draw(recording: Recording, outcome: Outcome, tier: Tier, out: Path) -> Path:
    """The signals of one recording over time, flagged stretches shaded."""
    names = sorted(recording.window.values)[:SIGNALS]
    figure = Figure(figsize=(11, 1.2 + 1.5 * len(names)), layout="constrained")
    FigureCanvasAgg(figure)
    times = [datetime.fromtimestamp(t, UTC) for t in recording.window.span.times().tolist()]
    flagged = outcome.frame["timestamp"].to_numpy(dtype=float)[outcome.frame[tier].to_numpy() > 0]
    axes = np.atleast_1d(figure.subplots(len(names), 1, sharex=True))
    for axis, name in zip(axes, names, strict=True):
        axis.plot(times, recording.window.values[name], linewidth=0.6, color="#1f4e79")
        axis.set_ylabel(name, fontsize=8)
        for at in flagged[:2000]:
            axis.axvline(datetime.fromtimestamp(at, UTC), color="#c0392b", alpha=0.15, linewidth=1)
    axes[0].set_title(f"{recording.name}: {flagged.size} flagged points ({tier})", fontsize=10)
    path = out / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', recording.name)[:100]}.png"
    figure.savefig(path, dpi=90)
    return path
