"""What Prometheus would say of the simulated service: rates over a window, quantiles from histogram buckets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from benchmarks.control.simulator import EDGES_S, SimulatedService
from benchmarks.simulated import START_S
from detection.model import BucketWindow, FloatArray, MetricWindow, Service, Span

_LARGEST = 128


class _Totals:
    """Cumulative counters, a row per second (the first is zero), in an array that grows by doubling."""

    def __init__(self, *shape: int) -> None:
        self._rows, self._count = np.zeros((2048, *shape)), 1

    @property
    def rows(self) -> FloatArray:
        return self._rows[: self._count]

    def add(self, rises: FloatArray) -> None:
        """rises: what each further second added, a row each."""
        count = self._count + len(rises)
        while count > len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self._count : count] = self._rows[self._count - 1] + np.cumsum(rises, axis=0)
        self._count = count


class SimulatedSource:
    """A MetricsSource over one simulated service (whatever its name), with a rate window of `rate_window_s`."""

    def __init__(self, simulated: SimulatedService, rate_window_s: float) -> None:
        self.simulated = simulated
        self.window = int(rate_window_s)
        self._sums: dict[str, FloatArray] = {}
        self._tables: dict[int, _Totals] = {}
        self._hists = _Totals(EDGES_S.size + 1)
        self._sizes = _Totals(3, _LARGEST + 1)

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        self._extend()
        values = self._values(span)
        wanted = {name: values[name] for name in signals if name in values}
        stale = dict.fromkeys(wanted, self._age_s())
        return {s.name: MetricWindow(s.name, span, wanted, "histogram", None, stale) for s in services}

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        ends = self._ends(span)
        answer: dict[str, MetricWindow] = {}
        for replica in self.simulated.replicas:
            values = self._replica(replica.number, ends)
            wanted = {name: values[name] for name in signals if name in values}
            name = f"replica-{replica.number}"
            answer[name] = MetricWindow(services[0].name, span, wanted, "histogram", name, {})
        return {s.name: answer for s in services}

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        self._extend()
        ends = self._ends(span)
        step = int(span.step_s)
        good = self._scraped(ends, step)
        counts = np.full((ends.size, EDGES_S.size + 1), np.nan)
        counts[good] = self._hists.rows[ends[good]] - self._hists.rows[ends[good] - step]
        upper = np.append(EDGES_S, np.inf) * 1e3
        return {s.name: BucketWindow(s.name, span, upper, counts) for s in services}

    def batch_stats(self, seconds: float) -> tuple[tuple[float, float, float], ...]:
        """(rows, batches, seconds) of the last `seconds`, one per batch size."""
        sums = np.zeros((3, _LARGEST + 1))
        for second in self.simulated.seconds[-int(seconds) :]:
            sums[:, : second.sizes.shape[1]] += second.sizes
        return tuple((float(k), float(sums[0, k]), float(sums[1, k])) for k in np.flatnonzero(sums[0]))

    def _age_s(self) -> float:
        """Seconds since the last scrape that brought something."""
        age = 0
        for second in reversed(self.simulated.seconds):
            if not second.silent:
                break
            age += 1
        return float(age)

    def _ends(self, span: Span) -> np.ndarray:
        return np.round(span.times() - START_S).astype(int)

    def _scraped(self, ends: np.ndarray, window: int) -> np.ndarray:
        """Which points have a whole window behind them, and a scrape at their end."""
        seconds = self.simulated.seconds
        return np.array([window <= end <= len(seconds) and not seconds[end - 1].silent for end in ends.tolist()])

    def _extend(self) -> None:
        """Cumulative counters: one row per second, the first is all zero."""
        seconds = self.simulated.seconds
        known = len(self._hists.rows) - 1
        if known == len(seconds):
            return
        new = seconds[known:]
        hist = np.array([np.bincount(np.searchsorted(EDGES_S, s.latencies), minlength=EDGES_S.size + 1) for s in new])
        self._hists.add(hist)
        sizes = np.zeros((len(new), 3, _LARGEST + 1))
        for k, second in enumerate(new):
            sizes[k, :, : second.sizes.shape[1]] = second.sizes
        self._sizes.add(sizes)
        rows: dict[str, list[float]] = {
            "count": [s.latencies.size for s in new],
            "latency": [float(s.latencies.sum()) for s in new],
            "queue": [s.queue_s for s in new],
            "errors": [s.errors for s in new],
            "batches": [s.batches for s in new],
            "rows": [s.rows for s in new],
            "batch_s": [s.batch_s for s in new],
            "gap_n": [s.gaps[0] for s in new],
            "gap_s": [s.gaps[1] for s in new],
            "gap_q": [s.gaps[2] for s in new],
        }
        gauges: dict[str, list[float]] = {
            "depth": [s.depth for s in new],
            "ready": [s.ready for s in new],
            "batch": [s.batch for s in new],
            "timeout": [s.timeout_ms for s in new],
        }
        for name, values in rows.items():
            old = self._sums.get(name, np.zeros(1))
            self._sums[name] = np.concatenate([old, old[-1] + np.cumsum(values)])
        for name, values in gauges.items():
            old = self._sums.get(name, np.zeros(1))
            self._sums[name] = np.concatenate([old, np.asarray(values, dtype=float)])

    def _values(self, span: Span) -> dict[str, FloatArray]:
        ends = self._ends(span)
        good = self._scraped(ends, self.window)
        hi, lo = ends[good], ends[good] - self.window

        def rise(name: str) -> FloatArray:
            return np.asarray(self._sums[name][hi] - self._sums[name][lo])

        def spread(values: FloatArray) -> FloatArray:
            full = np.full(ends.size, np.nan)
            full[good] = values
            return full

        hist = self._hists.rows[hi] - self._hists.rows[lo]
        made, seconds, squares = np.moveaxis(self._sizes.rows[hi] - self._sizes.rows[lo], 1, 0)
        level = seconds**2 / np.maximum(made, 1.0)
        count, errors, batches, gaps = rise("count"), rise("errors"), rise("batches"), rise("gap_n")
        with np.errstate(divide="ignore", invalid="ignore"):
            mean_gap = rise("gap_s") / gaps
            values = {
                "p50_ms": _quantile(hist, 0.5),
                "p95_ms": _quantile(hist, 0.95),
                "p99_ms": _quantile(hist, 0.99),
                "mean_ms": 1e3 * rise("latency") / count,
                "qps": (count + errors) / self.window,
                "error_rate": errors / (count + errors),
                "queue_ms": 1e3 * rise("queue") / count,
                "batch_ms": 1e3 * rise("batch_s") / batches,
                "rows_per_batch": rise("rows") / batches,
                "arrival_cv2": rise("gap_q") / gaps / mean_gap**2 - 1.0,
                "batch_cv2": (squares - level).sum(axis=1) / level.sum(axis=1),
                "queue_depth": self._sums["depth"][hi],
                "replicas": self._sums["ready"][hi],
                "batch_size": self._sums["batch"][hi],
                "batch_timeout_ms": self._sums["timeout"][hi],
                "busy": np.minimum(1.0, rise("batch_s") / self.window / np.maximum(1, self._sums["ready"][hi])),
            }
        return {name: spread(np.where(np.isfinite(v), v, np.nan)) for name, v in values.items()}

    def _replica(self, number: int, ends: np.ndarray) -> dict[str, FloatArray]:
        """Rates of one replica; only of the last five minutes, further back nobody looks at one replica."""
        table = self._by_replica(number)
        known = len(self.simulated.seconds)
        good = self._scraped(ends, self.window) & (ends > known - 300)
        rise = table[ends[good]] - table[ends[good] - self.window]
        hist, batches, rows, seconds = rise[:, :-3], rise[:, -3], rise[:, -2], rise[:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            found = {
                "p95_ms": _quantile(hist, 0.95),
                "qps": hist.sum(axis=1) / self.window,
                "error_rate": np.zeros(hist.shape[0]),
                "batch_ms": 1e3 * seconds / batches,
                "rows_per_batch": rows / batches,
            }
        values = {}
        for name, part in found.items():
            values[name] = np.full(ends.size, np.nan)
            values[name][good] = np.where(np.isfinite(part), part, np.nan)
        return values

    def _by_replica(self, number: int) -> FloatArray:
        """Cumulative histogram, batches, rows and batch seconds of one replica, a row per second."""
        table = self._tables.setdefault(number, _Totals(EDGES_S.size + 4))
        new = self.simulated.seconds[len(table.rows) - 1 :]
        if new:
            fresh = np.zeros((len(new), EDGES_S.size + 4))
            for k, second in enumerate(new):
                latencies = second.by_replica.get(number)
                if latencies is not None and latencies.size:
                    index = np.searchsorted(EDGES_S, latencies)
                    fresh[k, :-3] = np.bincount(index, minlength=EDGES_S.size + 1)
                fresh[k, -3:] = second.replica_batches.get(number, (0, 0, 0.0))
            table.add(fresh)
        return table.rows


def _quantile(hist: FloatArray, q: float) -> FloatArray:
    """PromQL's histogram_quantile in ms: linear inside the bucket, the last finite edge beyond it. hist: (n, k)."""
    total = hist.sum(axis=1)
    cumulative = np.cumsum(hist, axis=1)
    rank = q * total
    index = np.minimum((cumulative < rank[:, None]).sum(axis=1), EDGES_S.size)
    answer = np.full(total.size, np.nan)
    for k in np.flatnonzero(total > 0):
        i = int(index[k])
        if i >= EDGES_S.size:
            answer[k] = EDGES_S[-1] * 1e3
            continue
        below = cumulative[k, i - 1] if i else 0.0
        lower = EDGES_S[i - 1] if i else 0.0
        answer[k] = 1e3 * (lower + (EDGES_S[i] - lower) * (rank[k] - below) / max(hist[k, i], 1e-9))
    return answer
