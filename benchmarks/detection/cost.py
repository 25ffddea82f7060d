"""What a sweep, the hourly baselines, and reading Prometheus' answer cost in CPU seconds and memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from detection import pipeline
from detection.model import MetricWindow, Service, Slo, Span
from detection.settings import DetectionSettings
from detection.sources import _client

SIGNALS = (
    "p95_ms",
    "p99_ms",
    "mean_ms",
    "qps",
    "error_rate",
    "queue_ms",
    "queue_depth",
    "batch_ms",
    "busy",
    "gpu_util",
)
END_S = 1_700_006_400.0


def fleet(
    services: int, days: float, end_s: float, seed: int, step_s: float = 300.0
) -> tuple[list[Service], dict[str, MetricWindow]]:
    """Services of ten signals with a daily curve, busier weekends and noise."""
    rng = np.random.default_rng(seed)
    span = Span(end_s - days * 86_400, end_s, step_s)
    day = 1 + 0.3 * np.sin(2 * np.pi * span.times() / 86_400)
    # the epoch began on a Thursday: its days 2 and 3 are a weekend
    day = day * np.where(np.isin(span.times() // 86_400 % 7, (2, 3)), 1.4, 1.0)
    known = [Service(name=f"s{i:05d}", serving="slotune_demo", slo=Slo(p95_ms=1e4)) for i in range(services)]
    level = np.array([30, 60, 15, 200, 0.001, 3, 4, 8, 0.4, 0.5])
    windows = {}
    for service in known:
        noise = rng.standard_normal((len(SIGNALS), span.points), dtype=np.float32)
        values = level[:, None] * day * np.exp(0.1 * noise)
        windows[service.name] = MetricWindow(service.name, span, dict(zip(SIGNALS, values, strict=True)), "histogram")
    return known, windows


def sweep_and_learn(services: int) -> dict[str, Any]:
    """CPU seconds of one learning and one sweep (the median of three) over `services` services of ten signals."""
    settings = DetectionSettings()
    known, history = fleet(services, 7, END_S, 1)
    span = pipeline.weeks_span(next(iter(history.values())).span, settings)
    assert span is not None
    _, weeks = fleet(services, (span.end_s - span.start_s) / 86_400, span.end_s, 3, span.step_s)
    start = time.process_time()
    baselines = pipeline.learn(known, history, {}, settings, weeks=weeks)
    learned = time.process_time() - start
    del history, weeks
    _, windows = fleet(services, 0.125, END_S + 300, 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times, state = [], None
    for _ in range(3):
        start = time.process_time()
        _, _, state = pipeline.detect(known, windows, baselines, END_S + 300, settings, state)
        times.append(time.process_time() - start)
    return {
        "services": services,
        "signals": len(SIGNALS),
        "learn_cpu_s": round(learned, 2),
        "sweep_cpu_s": round(float(np.median(times)), 3),
        "baseline_mb": round(len(baselines.to_bytes()) / 1e6, 1),
        "peak_mb_with_learning": round(before / 1024),
    }


def sweep_memory(services: int) -> dict[str, Any]:
    """Peak memory of a process that only sweeps: baselines from bytes, windows, one detect."""
    code = (
        "import sys\n"
        "from benchmarks.detection import cost\n"
        "from detection import pipeline\n"
        "from detection.baselines import BaselineSet\n"
        "from detection.settings import DetectionSettings\n"
        "baselines = BaselineSet.from_bytes(sys.stdin.buffer.read())\n"
        f"known, windows = cost.fleet({services}, 0.125, cost.END_S + 300, 2)\n"
        "pipeline.detect(known, windows, baselines, cost.END_S + 300, DetectionSettings())\n"
        "status = open('/proc/self/status').read()\n"
        "print(float(status.split('VmHWM:')[1].split()[0]) / 1024)\n"
    )
    known, history = fleet(services, 7, END_S, 1)
    data = pipeline.learn(known, history, {}, DetectionSettings()).to_bytes()
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    return {"services": services, "sweep_process_peak_mb": round(float(done.stdout))}


def parsing(series: int = 1000, points: int = 121, signals: int = 10) -> dict[str, Any]:
    """CPU seconds to read the answers of one sweep: `signals` answers of `series` series and two hours of minutes."""
    span = Span(END_S, END_S + 60.0 * (points - 1), 60.0)
    values = np.random.default_rng(0).random(points)
    samples = b",".join(b'[%d,"%.6f"]' % (t, v) for t, v in zip(span.times().astype(int), values, strict=True))
    rows = b",".join(b'{"metric":{"service":"s%05d"},"values":[%s]}' % (i, samples) for i in range(series))
    body = b'{"status":"success","data":{"resultType":"matrix","result":[' + rows + b"]}}"
    start = time.process_time()
    found = _client.parse(body, span, "bench")
    seconds = time.process_time() - start
    assert len(found) == series
    return {
        "samples": series * points * signals,
        "answer_mb": round(len(body) * signals / 1e6, 1),
        "parse_cpu_s": round(seconds * signals, 2),
    }
