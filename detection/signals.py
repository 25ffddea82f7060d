"""The one table of signals: name, unit, which way is worse, and how small a change is no news.

A preset says how a serving system's own metrics become these signals; everything behind the presets speaks only of
them. Durations are in milliseconds, shares in 0..1, rates per second.
"""

from __future__ import annotations

import numpy as np

from detection.language_signals import LANGUAGE
from detection.model import FloatArray
from detection.signal import Direction, Signal

__all__ = [
    "INPUT_CHECKS", "MOST", "SIGNALS", "Direction", "Signal", "of_unit", "percentile", "plausible", "shown", "title",
]  # fmt: skip

_TABLE = (
    Signal(
        "p50_ms",
        "ms",
        "up",
        "median latency",
        log=True,
        floor=1.0,
        without="the middle of the latencies is not watched",
    ),
    Signal(
        "p95_ms",
        "ms",
        "up",
        "P95 latency",
        log=True,
        floor=2.0,
        without="the SLO is not watched: no latency incident, and no change can be proven",
    ),
    Signal(
        "p99_ms",
        "ms",
        "up",
        "P99 latency",
        log=True,
        floor=2.0,
        without="the worst latencies give no warning",
    ),
    Signal(
        "mean_ms",
        "ms",
        "up",
        "mean latency",
        log=True,
        floor=1.0,
        without="a P95 beyond the histogram's last bucket has no witness",
    ),
    Signal(
        "qps",
        "1/s",
        "both",
        "requests per second",
        log=True,
        floor=1.0,
        without="load is unknown: no forecast, no saving, and results are not adjusted for load",
    ),
    Signal(
        "error_rate",
        "share",
        "up",
        "share of failed requests",
        floor=0.005,
        without="failed requests open no incident and stop no change",
    ),
    Signal(
        "queue_ms",
        "ms",
        "up",
        "mean time in queue",
        log=True,
        floor=2.0,
        without="waiting is not told apart from computing, so that causes are guessed from the playbook",
    ),
    Signal(
        "queue_depth",
        "requests",
        "up",
        "requests waiting",
        log=True,
        floor=5.0,
        without="a standing queue opens no incident, and its draining is not waited for",
    ),
    Signal(
        "batch_ms",
        "ms",
        "up",
        "mean compute time of a batch",
        log=True,
        floor=1.0,
        without="the latency model learns nothing: options are predicted from means only",
    ),
    Signal(
        "pre_ms",
        "ms",
        "none",
        "mean time of pre-processing",
        log=True,
        floor=1.0,
        without="work before the model is not told apart from the model",
    ),
    Signal(
        "compute_ms",
        "ms",
        "none",
        "mean time in the model",
        log=True,
        floor=1.0,
        without="the stages of a request have no shares",
    ),
    Signal(
        "post_ms",
        "ms",
        "none",
        "mean time of post-processing",
        log=True,
        floor=1.0,
        without="work after the model is not told apart from the model",
    ),
    Signal(
        "rows_per_batch",
        "rows",
        "none",
        "mean rows of a batch",
        without="whether batches are full is unknown: a larger batch size is not proposed for sure",
    ),
    Signal(
        "batch_size",
        "rows",
        "none",
        "configured maximum batch size",
        without="the batch limit is read from the lever alone, and its changes are not seen between sweeps",
    ),
    Signal(
        "batch_timeout_ms",
        "ms",
        "none",
        "configured batch timeout",
        without="the batch timeout is read from the lever alone",
    ),
    Signal(
        "busy",
        "share",
        "none",
        "share of time the service computes",
        floor=0.05,
        without="idle capacity is not found, and saturation only by its queue",
        kind="resource",
    ),
    Signal(
        "gpu_util",
        "share",
        "both",
        "GPU utilisation",
        floor=0.05,
        without="the GPU's load is not watched",
        kind="resource",
    ),
    Signal(
        "gpu_memory",
        "share",
        "up",
        "GPU memory in use",
        floor=0.03,
        without="memory that runs full opens no incident",
        kind="resource",
    ),
    Signal(
        "memory_limit_gb",
        "GB",
        "none",
        "memory that the process may use",
        without="when a leak ends is unknown: no leak opens an incident",
        kind="resource",
    ),
    Signal(
        "uptime_s",
        "s",
        "none",
        "time since the youngest replica was started",
        without="a replica that warms up is not told apart from a slow one",
        kind="resource",
    ),
    Signal(
        "load_failures",
        "share",
        "up",
        "share of failed model loads",
        floor=0.01,
        without="models that fail to load open no incident",
        kind="model",
    ),
    Signal(
        "replicas",
        "replicas",
        "down",
        "ready replicas",
        floor=0.5,
        without="lost replicas are not told apart from more load",
        kind="resource",
    ),
    Signal(
        "arrival_cv2",
        "ratio",
        "none",
        "squared coefficient of variation of the time between arrivals",
        without="bursts are taken to be those of random arrivals",
    ),
    Signal(
        "batch_cv2",
        "ratio",
        "none",
        "squared coefficient of variation of the time of batches of one size",
        without="a neighbour on the machine is not told apart from slower work",
    ),
    Signal(
        "accuracy",
        "share",
        "down",
        "accuracy or agreement, where the service exports it",
        floor=0.005,
        without="quality is not watched",
        kind="model",
    ),
    Signal(
        "data_schema",
        "x limit",
        "none",
        "columns of the inputs that differ",
        without="columns that come and go are not seen",
        kind="data",
    ),
    Signal(
        "data_missing",
        "x limit",
        "none",
        "missing values of the inputs",
        without="inputs that are no longer complete are not seen",
        kind="data",
    ),
    Signal(
        "data_outside",
        "x limit",
        "none",
        "values of the inputs outside their range",
        without="values that never were are not seen",
        kind="data",
    ),
    Signal(
        "data_drift",
        "x limit",
        "none",
        "drift of the inputs",
        without="a drift of the inputs is not named, and calibration data are only as old as their file",
        kind="data",
    ),
    Signal(
        "data_age",
        "x limit",
        "none",
        "age of the newest input",
        without="inputs that stand still are not seen",
        kind="data",
    ),
    Signal(
        "emulated",
        "share",
        "none",
        "1 where the figures come from an emulated accelerator",
        without="nothing",
    ),
    Signal(
        "cpu",
        "share",
        "none",
        "CPU in use",
        floor=0.05,
        without="whether the CPU is what it waits for is unknown",
        kind="resource",
    ),
    Signal(
        "memory_gb",
        "GB",
        "up",
        "memory in use",
        floor=0.25,
        without="memory that grows is not seen before it is gone",
        kind="resource",
    ),
    Signal(
        "network_mb_s",
        "MB/s",
        "none",
        "network traffic",
        floor=1.0,
        without="the network is not watched",
        kind="resource",
    ),
    Signal(
        "gpu_power_w",
        "W",
        "none",
        "GPU power",
        floor=10.0,
        without="the GPU's power is not watched",
        kind="resource",
    ),
    Signal(
        "gpu_temperature_c",
        "degC",
        "up",
        "GPU temperature",
        floor=5.0,
        without="a GPU that grows hot, and slower for it, is not seen",
        kind="resource",
    ),
    Signal(
        "iteration_ms",
        "ms",
        "up",
        "mean time of an iteration",
        log=True,
        floor=1.0,
        without="a training job's promise is not watched",
    ),
    Signal(
        "iterations_per_s",
        "1/s",
        "none",
        "iterations per second",
        log=True,
        without="a training job that stands still is not seen",
    ),
    Signal(
        "data_wait_ms",
        "ms",
        "none",
        "mean wait of an iteration for its data",
        log=True,
        without="a training that waits for its data is not told from one that computes",
    ),
    Signal(
        "loss",
        "",
        "none",
        "training loss",
        without="a loss that rises or stands still is not seen",
        kind="model",
    ),
    Signal(
        "agreement",
        "share",
        "down",
        "agreement of the served version with its reference",
        floor=0.005,
        without="after a swap to INT8 the answers are not compared",
        kind="model",
    ),
)

SIGNALS: dict[str, Signal] = {signal.name: signal for signal in (*_TABLE, *LANGUAGE)}


INPUT_CHECKS = ("schema", "missing", "outside", "drift", "age")
"""What is checked of a service's inputs (detection.inputs); `data_<check>` is the signal of each."""

MOST = 1e12
"""Beyond this no signal has a meaning: some exporters write a huge number where they have no value."""


def plausible(name: str, values: FloatArray) -> FloatArray:
    """The series with a gap wherever no such value can be: negative (no signal is) or beyond any meaning.

    A ratio of estimates may come out a little below 0, which means 0.
    """
    signal = SIGNALS.get(name)
    with np.errstate(invalid="ignore"):
        if signal is not None and signal.unit == "ratio":
            values = np.maximum(values, 0.0)
        bad = np.abs(values) > MOST if signal is None else (values < -1e-9) | (values > MOST)
    return np.where(bad, np.nan, values) if bad.any() else values


def title(name: str) -> str:
    """What people call a signal; its own name where the table does not know it."""
    return SIGNALS[name].title if name in SIGNALS else name


def shown(name: str, value: float) -> str:
    """A value of a signal for people, with its unit: "1,234 ms", "3.2 %", "48 /s"."""
    return of_unit(SIGNALS[name].unit if name in SIGNALS else "", value)


def of_unit(unit: str, value: float) -> str:
    """A value in a unit, for people."""
    if unit == "share":
        return f"{value * 100:.3g} %"
    number = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return f"{number} {'/s' if unit == '1/s' else unit}".strip()


def percentile(name: str) -> str:
    """What people call a percentile by itself: "P95", "TTFT P95"; the title of any other signal."""
    return "P95" if name == "p95_ms" else title(name)
