"""Predictions on the real ONNX Runtime demo service: 12 changes of batch and load, predicted and observed side by side.

One server process, one open-loop load generator (Poisson), metrics scraped once a second from the server's own
/metrics, and turned into the signals that the loop has. Before each change the model has learned from what was seen so
far, as in production; then the change is made, settles, and P95 is read from the server's histogram. Writes
benchmarks/results/control_real.json.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from demo import models, web
from demo.measure import batch_seconds
from demo.open_loop import Control
from demo.processes import Child, free_port, wait_until
from detection.model import Incident, MetricWindow, Service, Slo, Span
from tuning.model import Interval, Observation, Setting
from tuning.planning import latency_model as lm
from tuning.planning.batching import assess
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Candidate, Knowledge
from tuning.planning.predict import predict
from tuning.planning.settings import PlanningSettings

RESULTS = Path(__file__).parent.parent / "results" / "control_real.json"
ROOT = Path(__file__).parent.parent.parent
RATE_WINDOW_S, SETTLE_S, LOOK_S = 5.0, 4.0, 16.0
SETTINGS = PlanningSettings(rate_window_s=RATE_WINDOW_S, recent_s=20.0, simulated_batches=3000)

LEARN = ((8, 4, 0.4), (8, 4, 0.75), (8, 8, 0.7))
"""(batch limit, batch size of the capacity, share of that capacity): three ordinary loads to learn from."""
CHANGES = ((16, 8, 0.7), (16, 8, 0.45), (4, 4, 0.6), (4, 4, 0.8), (8, 4, 0.8), (8, 8, 0.8), (32, 8, 0.8), (32, 16, 0.7),
           (16, 16, 0.7), (16, 8, 0.9), (8, 8, 0.65), (2, 2, 0.7), (4, 2, 0.7), (4, 4, 0.7))  # fmt: skip


@dataclass
class Row:
    """One change: what was set, what was predicted before, what was seen after."""

    change: str
    qps: float
    predicted_ms: float
    low_ms: float
    high_ms: float
    observed_ms: float

    @property
    def error(self) -> float:
        return self.predicted_ms / self.observed_ms - 1


class Scraped:
    """The server's own counters, once a second, and the signals that come of them."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.times: list[float] = []
        self.totals: list[dict[str, float]] = []
        self.buckets: list[dict[float, float]] = []
        self.sizes: list[dict[int, tuple[float, float, float]]] = []

    def follow(self, seconds: float) -> None:
        """Scrape every second for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            started = time.monotonic()
            self._scrape()
            time.sleep(max(0.0, 1.0 - (time.monotonic() - started)))

    def _scrape(self) -> None:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://{self.address}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        totals: dict[str, float] = {}
        buckets: dict[float, float] = {}
        sizes: dict[int, list[float]] = {}
        columns = {"inference_batches_total": 0, "inference_batch_seconds_total": 1,
                   "inference_batch_seconds_squared_total": 2}  # fmt: skip
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == "inference_request_duration_seconds_bucket":
                    edge = float(sample.labels["le"])
                    buckets[edge] = buckets.get(edge, 0.0) + sample.value
                elif sample.name in columns:
                    entry = sizes.setdefault(int(sample.labels["batch_size"]), [0.0, 0.0, 0.0])
                    entry[columns[sample.name]] += sample.value
                elif not sample.name.endswith("_bucket"):
                    totals[sample.name] = totals.get(sample.name, 0.0) + sample.value
        self.times.append(time.time())
        self.totals.append(totals)
        self.buckets.append(buckets)
        self.sizes.append({rows: (e[0], e[1], e[2]) for rows, e in sizes.items()})

    def p95_ms(self, seconds: float) -> float:
        """P95 of the last `seconds`, linear inside the bucket as in PromQL."""
        first = self._index(self.times[-1] - seconds)
        edges = sorted(self.buckets[-1])
        counts = np.array([self.buckets[-1][e] - self.buckets[first].get(e, 0.0) for e in edges])
        rank = 0.95 * counts[-1]
        k = int(np.searchsorted(counts, rank))
        below, lower = (counts[k - 1], edges[k - 1]) if k else (0.0, 0.0)
        return float(1e3 * (lower + (edges[k] - lower) * (rank - below) / max(counts[k] - below, 1e-9)))

    def _index(self, at_s: float) -> int:
        return int(np.argmin([abs(t - at_s) for t in self.times]))

    def window(self, batch: int) -> MetricWindow:
        """All that was seen, at a step of one second, rates over RATE_WINDOW_S."""
        end = self.times[-1]
        points = int(end - self.times[0])
        span = Span(end - points, end, 1.0)
        rows = [self._signals(t) for t in span.times()]
        values = {name: np.array([row.get(name, math.nan) for row in rows]) for name in rows[-1]}
        values["batch_size"] = np.full(span.points, float(batch))
        values["replicas"] = np.ones(span.points)
        return MetricWindow("ranker", span, values, "histogram")

    def _signals(self, at_s: float) -> dict[str, float]:
        new = self._index(at_s)
        old = self._index(at_s - RATE_WINDOW_S)
        seconds = self.times[new] - self.times[old]
        if seconds < 0.6 * RATE_WINDOW_S:
            return {}

        def rise(name: str) -> float:
            return self.totals[new].get(name, 0.0) - self.totals[old].get(name, 0.0)

        requests, batches = rise("inference_request_duration_seconds_count"), rise("inference_batch_rows_count")
        gaps = rise("inference_interarrival_seconds_count")
        if requests <= 0 or batches <= 0 or gaps <= 0:
            return {}
        mean_gap = rise("inference_interarrival_seconds_sum") / gaps
        return {
            "qps": requests / seconds,
            "mean_ms": 1e3 * rise("inference_request_duration_seconds_sum") / requests,
            "queue_ms": 1e3 * rise("inference_queue_duration_seconds_sum") / requests,
            "batch_ms": 1e3 * rise("inference_batch_duration_seconds_sum") / batches,
            "rows_per_batch": rise("inference_batch_rows_sum") / batches,
            "busy": min(1.0, rise("inference_busy_seconds_total") / seconds),
            "queue_depth": self.totals[new].get("inference_queue_depth", math.nan),
            "arrival_cv2": rise("inference_interarrival_seconds_squared_sum") / gaps / mean_gap**2 - 1.0,
            "batch_cv2": self._batch_cv2(old, new),
        }

    def _batch_cv2(self, old: int, new: int) -> float:
        """Squared variation of the time of batches of one size, as the preset asks for it."""
        none = (0.0, 0.0, 0.0)
        rises = [np.subtract(e, self.sizes[old].get(n, none)) for n, e in self.sizes[new].items()]
        level = sum(seconds**2 / made for made, seconds, _ in rises if made > 0)
        squares = sum(float(squared) for made, _, squared in rises if made > 0)
        return float((squares - level) / level) if level > 0 else math.nan


def _since(onset_s: float) -> Incident:
    return Incident(
        id="real",
        service="ranker",
        symptom="latency",
        tier="act",
        severity="info",
        opened_at_s=onset_s,
        detected_at_s=onset_s,
        signals=(),
        anomalies=(),
        reason="a change of load or batch",
    )


def foresee(
    scraped: Scraped, state: dict[str, object], old: int, new: int, qps: float
) -> tuple[Interval, dict[str, object]]:
    """P95 of the coming setting at the coming rate, and the state as learned so far."""
    setting = Setting(lever="batch_size", values={"batch_size": old, "batch_timeout_ms": 0.0})
    observation = Observation(
        service=Service(name="ranker", serving="slotune_demo", slo=Slo(p95_ms=1000.0)),
        window=scraped.window(old),
        at_s=scraped.times[-1],
        settings={"batch_size": setting},
        latency_model=state,
    )
    # The last setting is taken as the present regime: its batch times say how fast the machine is right now.
    situation = assess(_since(scraped.times[-1] - LOOK_S), observation, SETTINGS)
    rate = Interval(value=qps, low=0.97 * qps, high=1.03 * qps)
    situation = replace(situation, arrivals=Forecast(rate, "announced"), backlog=0.0)
    coming = Candidate({"batch_size": new, "batch_timeout_ms": 0.0, "replicas": 1})
    found = predict([coming], observation, situation, Knowledge(), SETTINGS)[0]
    return found.shown["p95_ms"], lm.dump(situation.learned)


def main() -> int:
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        repository = models.repository(home / "models", models.cached(Path(".demo") / "models"), "ranker")
        address = f"127.0.0.1:{free_port()}"
        options = ["--cpu", "0", "--model", "ranker", "--model-repository", str(repository), "--batch-size", "8"]
        serve = [sys.executable, "-m", "demo.server", "--port", address.rsplit(":", 1)[1], *options]
        server = Child("server", serve, home / "server.log", cwd=ROOT)
        load: Child | None = None
        try:
            wait_until(lambda: web.answers(f"http://{address}/v2/health/ready"), 60.0, "the server")
            took = batch_seconds(address, (1, 2, 4, 8, 16))
            control = home / "control.json"
            Control((address,), ((1.0, None),), 1).write(control)
            out = str(home / "load.jsonl")
            send = [sys.executable, "-m", "demo.load", "--control", str(control), "--out", out]
            load = Child("load", send, home / "load.log", cwd=ROOT, nice=-5)
            rows = _measure(address, control, took)
        finally:
            for child in (load, server):
                if child is not None:
                    child.stop()
    return _report(rows)


def _measure(address: str, control: Path, took: dict[int, float]) -> list[Row]:
    scraped = Scraped(address)
    rows: list[Row] = []
    state: dict[str, object] = {}
    batch = 0
    for k, (limit, of, share) in enumerate((*LEARN, *CHANGES)):
        qps = share * of / took[of]
        ahead = None
        if k >= len(LEARN):
            ahead, state = foresee(scraped, state, batch, limit, qps)
        _post(address, limit)
        Control((address,), ((qps, None),), k + 2).write(control)
        scraped.follow(SETTLE_S + LOOK_S)
        if ahead is not None:
            change = f"batch {batch} -> {limit}" if limit != batch else f"batch {limit}, load to {qps:.0f}/s"
            row = Row(change, round(qps, 1), ahead.value, ahead.low, ahead.high, scraped.p95_ms(LOOK_S))
            rows.append(row)
            shown = f"predicted {row.predicted_ms:7.1f} ({row.low_ms:.1f}-{row.high_ms:.1f})"
            print(f"{row.change:28s} {shown}  observed {row.observed_ms:7.1f}  {row.error:+.0%}", flush=True)
        batch = limit
    return rows


def _post(address: str, batch: int) -> None:
    body = json.dumps({"batch_size": batch, "batch_timeout_ms": 0.0}).encode()
    request = urllib.request.Request(f"http://{address}/config", body, {"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=10) as answer:
        answer.read()


def _report(rows: list[Row]) -> int:
    near = sum(abs(row.error) <= 0.2 for row in rows)
    inside = sum(row.low_ms <= row.observed_ms <= row.high_ms for row in rows)
    median = float(np.median([abs(row.error) for row in rows])) if rows else math.nan
    print(f"{near} of {len(rows)} within 20 %, {inside} in the 90 % interval, median error {median:.0%}")
    document = {
        "command": "python -m benchmarks.control --real",
        "inputs": "the signals that the loop has",
        "service": "demo server, ONNX Runtime on one CPU core",
        "changes": len(rows),
        "within_20_percent": int(near),
        "in_interval": int(inside),
        "median_error": round(median, 3),
        "rows": [
            {"change": r.change, "qps": r.qps, "predicted_p95_ms": round(r.predicted_ms, 1),
             "interval_ms": [round(r.low_ms, 1), round(r.high_ms, 1)], "observed_p95_ms": round(r.observed_ms, 1)}
            for r in rows
        ],
    }  # fmt: skip
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    return 0
