"""The histories that a rehearsal replays: from recordings (CSV) or Prometheus, and what makes one no ground for it.

A recording is what `slotune compare` and `slotune backtest` read: NAME.csv with a timestamp and a column per signal. It
may have `desired_replicas` and `int8` (0 or 1) as well, and beside it a folder NAME with buckets.csv (a column per
upper edge in ms, the last one inf: what fell into each bucket in a step) and replicas/REPLICA.csv.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from detection.backtest import csv_text, recorded
from detection.errors import ConfigError
from detection.model import BucketWindow, FloatArray, MetricWindow, Service, Span
from detection.ports import MetricsSource
from detection.signals import SIGNALS, percentile
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.drivers import DESIRED, INT8, missing
from tuning.loop.observe import REPLICA_SIGNALS

LEAST_POINTS, LEAST_S = 60, 1800.0
COARSEST_S = 300.0
_KNOWN_SHARE = 0.5
_FINE_S = 2 * 86_400.0
"""Up to so long a history is read from Prometheus with its histograms and replicas."""
_FAR_UNDER, _FAR_OVER = 0.003, 100.0
"""A P95 that is nearly always this share of the SLO, or this many times, is in another unit."""
_GROWS, _GROWN = 0.98, 50.0
_SHARES = ("error_rate", "busy")
_BUCKETS, _REPLICAS = "buckets.csv", "replicas"


def files(path: Path) -> list[Path]:
    """The recordings at a path: a file, or those of a folder. ConfigError where there are none."""
    if not path.exists():
        raise ConfigError("there is no such file or folder", where=str(path))
    found = sorted([*path.glob("*.csv"), *path.glob("*.csv.gz")]) if path.is_dir() else [path]
    if not found:
        raise ConfigError("there are no .csv files in this folder", where=str(path))
    return found


def name_of(file: Path) -> str:
    """Of the service that a recording is of."""
    return file.name.removesuffix(".gz").removesuffix(".csv")


def from_recording(file: Path) -> History:
    """ConfigError with the file and what is wrong with it."""
    recording = recorded.of_service(file)
    window = replace(recording.window, percentile_source="histogram")
    beside = file.parent / recording.name
    return History(window, _replicas(beside, window.span), _buckets(beside, window))


def _replicas(folder: Path, span: Span) -> dict[str, MetricWindow]:
    found = {}
    for file in sorted((folder / _REPLICAS).glob("*.csv")):
        read = recorded.of_service(file, span.step_s)
        name = file.name.removesuffix(".csv")
        values = {signal: _onto(span, read.window.span, series) for signal, series in read.window.values.items()}
        found[name] = MetricWindow(folder.name, span, values, "histogram", name)
    return found


def _buckets(folder: Path, window: MetricWindow) -> BucketWindow | None:
    file = folder / _BUCKETS
    if not file.is_file():
        return None
    table = csv_text.read(file)
    try:
        edges = sorted((float(name), name) for name in table.columns if name != csv_text.TIMESTAMP)
    except ValueError:
        raise ConfigError(
            "its columns are timestamp and upper edges in ms, the last one inf", where=str(file)
        ) from None
    if csv_text.TIMESTAMP not in table.columns or not edges or not np.isinf(edges[-1][0]):
        raise ConfigError("its columns are timestamp and upper edges in ms, the last one inf", where=str(file))
    counts = {name: csv_text.numbers(name, table.columns[name], table.comma, file) for _, name in edges}
    grid = recorded.to_grid(folder.name, csv_text.seconds(table.columns[csv_text.TIMESTAMP], file), counts).window
    columns = [_onto(window.span, grid.span, grid.values[name]) for _, name in edges]
    return BucketWindow(window.service, window.span, np.array([edge for edge, _ in edges]), np.stack(columns, axis=1))


def _onto(want: Span, have: Span, values: FloatArray) -> FloatArray:
    """Values of one grid at the times of another of the same step; NaN outside."""
    index = np.round((want.times() - have.start_s) / have.step_s).astype(int)
    inside = (index >= 0) & (index < values.size)
    return np.where(inside, values[np.clip(index, 0, values.size - 1)], np.nan)


def from_source(source: MetricsSource, services: Sequence[Service], span: Span) -> dict[str, History]:
    """Histories by service; a service without any series is absent. Short ones with their histograms and replicas."""
    read = source.read(services, tuple(SIGNALS), span)
    if unreadable := getattr(read, "unreadable", {}):
        name, why = next(iter(unreadable.items()))
        raise ConfigError(f"the history of {name} cannot be read: {why}")
    fine = span.end_s - span.start_s <= _FINE_S
    buckets = source.read_buckets(services, span) if fine else {}
    replicas = source.read_replicas(services, REPLICA_SIGNALS, span) if fine else {}
    return {
        name: History(replace(window, stale_s={}), dict(replicas.get(name, {})), buckets.get(name))
        for name, window in read.items()
    }


def problem(history: History, service: Service) -> str:
    """Why this history is no ground for a rehearsal, as a sentence; "" where it is."""
    window, name = history.window, history.window.service
    span = window.span
    if service.engine != "dynamic_batching":
        return f"{name} is served by {service.engine.replace('_', ' ')}, which a rehearsal cannot model yet"
    if service.slo.p95_ms is None:
        return f"{name} promises {percentile(service.slo.main.signal)}, and a rehearsal models the P95 of requests only"
    if lacking := missing(window):
        titles = ", ".join(f"{SIGNALS[signal].title} ({signal})" for signal in lacking)
        return f"the history of {name} has no {titles}, without which no setting can be rehearsed"
    known = int(np.isfinite(window.values["p95_ms"]).sum())
    length_s = (span.points - 1) * span.step_s
    if known < LEAST_POINTS or length_s < LEAST_S:
        return (
            f"the history of {name} has {known} points of P95 over {length_s / 60:.0f} minutes; a rehearsal needs "
            f"{LEAST_POINTS} points and {LEAST_S / 60:.0f} minutes"
        )
    if span.step_s > COARSEST_S:
        return (
            f"the history of {name} has a point every {span.step_s:g} s; a rehearsal needs one every {COARSEST_S:g} s"
        )
    if known < _KNOWN_SHARE * span.points:
        return f"{1 - known / span.points:.0%} of the history of {name} are gaps; a rehearsal needs at least half of it"
    return _implausible(window, service.slo.p95_ms)


def _implausible(window: MetricWindow, slo_ms: float) -> str:
    """Another unit, or a counter where a rate is expected."""
    name, values = window.service, window.values
    p95, qps, took = (values[signal][np.isfinite(values[signal])] for signal in ("p95_ms", "qps", "batch_ms"))
    for signal in ("p95_ms", "qps", "batch_ms"):
        if (count := int((values[signal] < 0).sum())) > 0:
            return (
                f"{signal} of {name} is negative at {count} points: a counter that was reset was differenced; export "
                "rate(), which knows resets"
            )
    if qps.size > LEAST_POINTS and (np.diff(qps) >= 0).mean() > _GROWS and qps[-1] > _GROWN * max(qps[0], 1.0):
        return f"qps of {name} only grows, like a counter: export its rate() per second"
    for signal in _SHARES:
        if signal in values and float(np.nanmax(values[signal], initial=0.0)) > 1.5:
            return f"{signal} of {name} reaches {np.nanmax(values[signal]):.3g}: it is a share of 1, no percentage"
    middle = float(np.median(p95))
    if float(np.quantile(p95, 0.99)) < _FAR_UNDER * slo_ms or float(np.quantile(p95, 0.5)) > _FAR_OVER * slo_ms:
        return (
            f"P95 of {name} is {middle:.3g} ms in the median, and its SLO is {slo_ms:g} ms: is the history in another "
            "unit than ms?"
        )
    if float(np.median(took)) > 5 * float(np.quantile(p95, 0.9)):
        return (
            f"a batch of {name} takes {float(np.median(took)):.3g} ms and P95 is {middle:.3g} ms: one of them is in "
            "another unit than ms"
        )
    return ""


def oddities(history: History) -> tuple[str, ...]:
    """What is odd about a history that is good enough, as sentences."""
    window = history.window
    gaps = 1 - float(np.isfinite(window.values["p95_ms"]).mean())
    said = [f"{gaps:.0%} of its points are gaps: nothing is concluded there."] if gaps > 0.05 else []
    if "rows_per_batch" not in window.values:
        said.append("Rows per batch were not recorded: larger batches are a guess.")
    if "queue_depth" not in window.values and "queue_ms" not in window.values:
        said.append("Queues were not recorded: while they grew, fewer requests are taken to have come than did.")
    if DESIRED not in window.values and "replicas" in window.values:
        said.append("Replicas asked for were not recorded: the most that ran within an hour is taken for them.")
    if INT8 not in window.values:
        said.append("Precision was not recorded: all of it is taken for FP32.")
    return tuple(said)


def save(folder: Path, histories: Mapping[str, History]) -> None:
    """Writes histories as the recordings that `from_recording` reads."""
    for name, history in histories.items():
        _write(folder / f"{name}.csv", history.window.span, history.window.values)
        for replica, window in history.replicas.items():
            _write(folder / name / _REPLICAS / f"{replica}.csv", window.span, window.values)
        if history.buckets is not None:
            edges = [f"{edge:.12g}" for edge in history.buckets.upper_ms]
            columns = {edge: history.buckets.counts[:, k] for k, edge in enumerate(edges)}
            _write(folder / name / _BUCKETS, history.buckets.span, columns)


def _write(file: Path, span: Span, values: Mapping[str, FloatArray]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["timestamp", *values])
            columns = list(values.values())
            for k, at_s in enumerate(span.times().tolist()):
                writer.writerow([f"{at_s:.3f}", *("" if np.isnan(c[k]) else repr(float(c[k])) for c in columns)])
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(file)) from error
