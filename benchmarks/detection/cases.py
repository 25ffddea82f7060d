"""The labelled cases: ours, and the usual ways beside it, scored by the cases' own score.py."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from detection.backtest.recorded import VALUE, Recording, load, to_grid
from detection.backtest.run import Outcome, Plan, replay_all
from detection.settings import DetectionSettings

LEARN_EVERY_S = 6 * 3600.0  # as in `slotune backtest`; a live installation learns hourly
FACTORS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 6.0)
SIGMAS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0)
WEEK_S = 7 * 86_400.0
# the joint detectors' steps, share and keeping were chosen on these servers only
DEVELOPED_ON = ("asd/omi-1", "asd/omi-3", "asd/omi-6")
ONLY_REPORTED = ("asd/omi-2", "asd/omi-4", "asd/omi-8")
Flagger = Callable[[Recording], np.ndarray]


def find(given: str | None) -> Path | None:
    """The folder of the labelled cases (with score.py), None when there is none."""
    repo = Path(__file__).resolve().parents[2]
    for place in [Path(given)] if given else [repo.parent / "shared" / "detection-cases"]:
        if (place / "score.py").exists() and (place / "cases" / "dev").is_dir():
            return place
    return None


def series(root: Path, tier: str) -> list[Recording]:
    """The recordings of one tier of the cases."""
    manifest = pd.read_csv(root / "cases" / "dev" / "manifest.csv")
    names = set(manifest[manifest.tier == tier].series)
    if tier != "multi":
        return [r for r in load(root / "cases" / "dev" / "points.csv.gz") if r.name in names]
    found = []
    for file in sorted((root / "cases" / "dev" / "multi").glob("asd*.npz")):
        data = np.load(file)
        first = data["t_train"].size - int((WEEK_S + 86_400) / 300)
        at = np.concatenate([data["t_train"], data["t_test"]]).astype(float)[first:]
        values = np.concatenate([data["X_train"], data["X_test"]]).astype(float)[first:]
        columns = {f"m{i:02d}": values[:, i] for i in range(values.shape[1])}
        found.append(to_grid(file.stem.replace("__", "/"), at, columns))
    return found


def ours(recordings: Sequence[Recording], learn_every_s: float = LEARN_EVERY_S) -> tuple[list[Outcome], float]:
    """Replays as `slotune backtest` does with its defaults; also the CPU seconds that it took."""
    start = time.process_time()
    outcomes = replay_all(recordings, Plan(DetectionSettings(), learn_every_s))
    return outcomes, time.process_time() - start


def score(root: Path, tier: str, flags: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict[str, Any]:
    """score.py's line for flags by series as (timestamps, flags)."""
    rows = [
        pd.DataFrame({"series": name, "timestamp": np.rint(at).astype("int64"), "flag": on.astype(int)})
        for name, (at, on) in flags.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "flags.csv"
        pd.concat(rows).to_csv(file, index=False)
        command = [sys.executable, str(root / "score.py"), str(file), "--cases", str(root / "cases"), "--tier", tier]
        done = subprocess.run([*command, "--by", "none", "--only-present"], capture_output=True, text=True, check=True)
    head, line = (row.split() for row in done.stdout.strip().splitlines()[-2:])
    found = dict(zip(head, line, strict=True))
    keys = {"recall": "ev.recall", "chance": "chance", "precision": "ev.prec", "false_alarms_per_day": "FA/day"}
    keys |= {"point_fpr": "pt.FPR", "delay_min_median": "delay.med"}
    return {name: float(found[key]) if found[key] != "-" else None for name, key in keys.items()}


def flags_of(outcomes: Sequence[Outcome], tier: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """What `score` wants, from replays."""
    return {o.name: (o.frame["timestamp"].to_numpy(), o.frame[tier].to_numpy() > 0) for o in outcomes}


def curve(root: Path, recordings: Sequence[Recording], outcomes: Sequence[Outcome]) -> dict[str, list[dict[str, Any]]]:
    """Recall at every false-alarm rate on the ops series, ours and mean +- k sigma: a dict per threshold."""
    by_tier = {
        column: [
            {o.name: (o.frame["timestamp"].to_numpy(), o.frame[column].to_numpy() > k) for o in outcomes}
            for k in FACTORS
        ]
        for column in ("score", "act_score")
    }
    deviations = [(r, sigmas(r), np.isfinite(r.stamps)) for r in recordings]
    sigma_by = [{r.name: (r.stamps[real], (z > k)[real]) for r, z, real in deviations} for k in SIGMAS]
    ways = {
        "slotune, warn": (FACTORS, by_tier["score"]),
        "slotune, act": (FACTORS, by_tier["act_score"]),
        "mean +- k sigma": (SIGMAS, sigma_by),
    }
    return {
        name: [{"threshold": k} | score(root, "ops", on) for k, on in zip(limits, flags, strict=True)]
        for name, (limits, flags) in ways.items()
    }


def plot(found: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """Recall over false alarms of both, to a picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    for (name, points), color in zip(found.items(), ("#1b6ca8", "#c0392b", "#9a9a9a"), strict=True):
        known = [p for p in points if p["recall"] is not None]
        x, y = [p["false_alarms_per_day"] for p in known], [p["recall"] for p in known]
        axes.plot(x, y, marker="o", markersize=4, color=color, label=name)
    axes.set(xlabel="false alarms per series-day", ylabel="event recall", xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def compare(root: Path, recordings: Sequence[Recording]) -> dict[str, dict[str, Any]]:
    """The usual ways on the ops series: recall, false alarms, delay, CPU seconds."""
    ways: dict[str, Flagger] = {
        "naive forest, contamination 5 %, 1 h windows": naive_forest,
        "mean +- 3 s, previous 7 days": three_sigma,
        "seasonal bands (statsmodels STL, daily)": seasonal,
        "PyOD ECOD, previous 7 days": ecod,
    }
    table = {}
    for name, way in ways.items():
        start, flags = time.process_time(), {}
        for recording in recordings:
            on = way(recording)
            real = np.isfinite(recording.stamps)
            flags[recording.name] = (recording.stamps[real], on[real])
        table[name] = score(root, "ops", flags) | {"cpu_s": round(time.process_time() - start, 1)}
    return table


def _values(recording: Recording) -> np.ndarray:
    values = pd.Series(recording.window.values[VALUE]).ffill().bfill()
    return values.to_numpy()


def naive_forest(recording: Recording) -> np.ndarray:
    """fit_predict on each hour (at least 12 points) by itself."""
    from sklearn.ensemble import IsolationForest

    x = _values(recording)
    size = max(12, round(3600 / recording.window.span.step_s))
    out = np.zeros(x.size, bool)
    for first in range(0, x.size - size + 1, size):
        forest = IsolationForest(n_estimators=10, contamination=0.05, random_state=0)
        out[first : first + size] = forest.fit_predict(x[first : first + size, None]) < 0
    return out


def three_sigma(recording: Recording) -> np.ndarray:
    """Further than three standard deviations from the mean of the previous seven days."""
    return sigmas(recording) > 3


def sigmas(recording: Recording) -> np.ndarray:
    """How many standard deviations each value is from the mean of the previous seven days."""
    x = pd.Series(_values(recording))
    past = x.shift(1).rolling(max(12, round(WEEK_S / recording.window.span.step_s)), min_periods=12)
    z: np.ndarray = ((x - past.mean()).abs() / past.std()).to_numpy()
    return z


def _daily(recording: Recording, judge: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> np.ndarray:
    """Fits on the previous seven days and judges the next day, day after day."""
    x, day = _values(recording), max(1, round(86_400 / recording.window.span.step_s))
    out = np.zeros(x.size, bool)
    for first in range(2 * day + 1, x.size, day):
        out[first : first + day] = judge(x[max(0, first - 7 * day) : first], x[first : first + day], day)
    return out


def seasonal(recording: Recording) -> np.ndarray:
    """STL of the past, its last day and trend as forecast, four robust standard deviations around it."""
    from statsmodels.tsa.seasonal import STL

    def judge(past: np.ndarray, new: np.ndarray, day: int) -> np.ndarray:
        if day < 2 or past.size < 2 * day + 1:
            return np.zeros(new.size, bool)
        fit = STL(past, period=day).fit()
        sd = 1.4826 * np.median(np.abs(fit.resid)) + 1e-9
        return np.asarray(np.abs(new - fit.trend[-1] - fit.seasonal[-day:][: new.size]) > 4 * sd)

    # at one minute a day has 1,440 points and STL takes minutes a fit: every fifth point stands for the rest
    coarse = recording.window.span.step_s < 200
    if not coarse:
        return _daily(recording, judge)
    thin = to_grid(recording.name, recording.stamps, {VALUE: _values(recording)}, 300.0)
    on = _daily(thin, judge)
    index = np.clip(np.arange(recording.stamps.size) // 5, 0, on.size - 1)
    out: np.ndarray = on[index] & (np.arange(recording.stamps.size) % 5 == 0)
    return out


def ecod(recording: Recording) -> np.ndarray:
    """ECOD with its usual contamination, fitted on the past week, asked about each new day."""
    from pyod.models.ecod import ECOD

    def judge(past: np.ndarray, new: np.ndarray, day: int) -> np.ndarray:
        model = ECOD(contamination=0.01)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(past[:, None])
            return np.asarray(model.predict(new[:, None]) > 0)

    return _daily(recording, judge)
