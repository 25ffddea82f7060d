"""What Prometheus would say of the simulated language model: rates over a window, quantiles from a server's buckets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from benchmarks.llm.edges import E2E_S, GAP_S, TOKENS, TTFT_S
from benchmarks.llm.world import Second, World
from benchmarks.simulated import START_S
from detection.model import BucketWindow, FloatArray, MetricWindow, Reading, Service, Span

_SUMS: dict[str, Callable[[Second], float]] = {
    "begun": lambda s: s.begun,
    "ttft_n": lambda s: len(s.ttft),
    "ttft": lambda s: sum(s.ttft),
    "done": lambda s: len(s.e2e),
    "e2e": lambda s: sum(s.e2e),
    "gap_n": lambda s: sum(n for _, n in s.gaps),
    "gap": lambda s: sum(v * n for v, n in s.gaps),
    "queue": lambda s: s.queue_s,
    "prefill": lambda s: s.prefill_s,
    "decode": lambda s: s.decode_s,
    "prompt": lambda s: s.prompt_tokens,
    "hit": lambda s: s.hit_tokens,
    "generated": lambda s: s.generated,
    "steps": lambda s: s.steps,
    "step_tokens": lambda s: s.step_tokens,
    "preempted": lambda s: s.preempted,
    "came": lambda s: s.came,
    "errors": lambda s: s.errors,
    "prompt_len": lambda s: sum(s.prompts),
    "output_len": lambda s: sum(s.outputs),
    "running": lambda s: s.running,
}
_GAUGES: dict[str, Callable[[Second], float]] = {
    "waiting": lambda s: s.waiting,
    "usage": lambda s: s.usage,
    "ready": lambda s: s.ready,
}
_HISTOGRAMS: dict[str, tuple[FloatArray, Callable[[Second], list[tuple[float, float]]]]] = {
    "ttft": (TTFT_S, lambda s: [(v, 1) for v in s.ttft]),
    "itl": (GAP_S, lambda s: s.gaps),
    "e2e": (E2E_S, lambda s: [(v, 1) for v in s.e2e]),
    "prompt_tokens": (TOKENS, lambda s: [(v, 1) for v in s.prompts]),
    "output_tokens": (TOKENS, lambda s: [(v, 1) for v in s.outputs]),
}


class WorldSource:
    """A MetricsSource over one simulated service (whatever its name), with a rate window of `rate_window_s`."""

    def __init__(self, world: World, rate_window_s: float) -> None:
        self.world, self.window = world, int(rate_window_s)
        self._sums = {name: np.zeros(1) for name in (*_SUMS, *_GAUGES)}
        self._hists = {name: np.zeros((1, edges.size + 1)) for name, (edges, _) in _HISTOGRAMS.items()}

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Reading[MetricWindow]:
        values = self._values(span)
        wanted = {name: values[name] for name in signals if name in values}
        fresh = dict.fromkeys(wanted, 0.0)
        return Reading({s.name: MetricWindow(s.name, span, wanted, "histogram", None, fresh) for s in services})

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Reading[Mapping[str, MetricWindow]]:
        return Reading({})

    def read_buckets(self, services: Sequence[Service], span: Span) -> Reading[BucketWindow]:
        return Reading({})

    def _extend(self) -> None:
        new = self.world.seconds[self._sums["came"].size - 1 :]
        if not new:
            return
        for name, of in _SUMS.items():
            old = self._sums[name]
            self._sums[name] = np.concatenate([old, old[-1] + np.cumsum([of(s) for s in new])])
        for name, of in _GAUGES.items():
            self._sums[name] = np.concatenate([self._sums[name], [float(of(s)) for s in new]])
        for name, (edges, values_of) in _HISTOGRAMS.items():
            rows = np.zeros((len(new), edges.size + 1))
            for k, second in enumerate(new):
                rows[k] = bucketed(self.world, name, values_of(second))
            old_rows = self._hists[name]
            self._hists[name] = np.concatenate([old_rows, old_rows[-1] + np.cumsum(rows, axis=0)])

    def _values(self, span: Span) -> dict[str, FloatArray]:
        self._extend()
        ends = np.round(span.times() - START_S).astype(int)
        good = (ends >= self.window) & (ends < self._sums["came"].size)
        hi = ends[good]
        lo, overhead = hi - self.window, self.world.profile.overhead_ms

        def rise(name: str) -> FloatArray:
            return np.asarray(self._sums[name][hi] - self._sums[name][lo], dtype=np.float64)

        def at(name: str) -> FloatArray:
            return np.asarray(self._sums[name][hi], dtype=np.float64)

        ready = np.maximum(1.0, at("ready"))
        with np.errstate(divide="ignore", invalid="ignore"):
            values = {
                "qps": rise("done") / self.window,
                "arrivals_per_s": (rise("ttft_n") + at("waiting") - self._sums["waiting"][lo]) / self.window,
                "error_rate": rise("errors") / (rise("done") + rise("errors")),
                "ttft_ms": 1e3 * rise("ttft") / rise("ttft_n") + overhead,
                "itl_ms": 1e3 * rise("gap") / rise("gap_n"),
                "e2e_ms": 1e3 * rise("e2e") / rise("done") + overhead,
                "queue_ms": 1e3 * rise("queue") / rise("begun"),
                "prefill_ms": 1e3 * rise("prefill") / rise("ttft_n"),
                "decode_ms": 1e3 * rise("decode") / rise("done"),
                "prompt_tokens_per_s": rise("prompt") / self.window,
                "generation_tokens_per_s": rise("generated") / self.window,
                "prefix_hit_rate": rise("hit") / rise("prompt"),
                "steps_per_s": rise("steps") / self.window,
                "step_tokens": rise("step_tokens") / rise("steps"),
                "preemptions_per_s": rise("preempted") / self.window,
                "prompt_tokens": rise("prompt_len") / rise("done"),
                "output_tokens": rise("output_len") / rise("done"),
                "running": rise("running") / self.window / ready,
                "queue_depth": at("waiting"),
                "kv_usage": at("usage"),
                "replicas": at("ready"),
            }
        for name, (edges, _) in _HISTOGRAMS.items():
            counts = self._hists[name][hi] - self._hists[name][lo]
            if name.endswith("tokens"):
                values[f"{name}_p95"] = quantile(counts, edges, 0.95)
                continue
            for level in (50, 95, 99):
                values[f"{name}_p{level}_ms"] = 1e3 * quantile(counts, edges, level / 100)
        values |= {f"p{level}_ms": values[f"e2e_p{level}_ms"] for level in (50, 95, 99)} | {"mean_ms": values["e2e_ms"]}
        full = {}
        for name, found in values.items():
            full[name] = np.full(ends.size, np.nan)
            full[name][good] = np.where(np.isfinite(found), found, np.nan)
        return full


def bucketed(world: World, name: str, seen: list[tuple[float, float]]) -> FloatArray:
    """How many of the (value, weight) fall into each bucket of a histogram; a request's time holds the overhead."""
    edges, _ = _HISTOGRAMS[name]
    if not seen:
        return np.zeros(edges.size + 1)
    values, weights = np.array(seen).T
    values = values + (world.profile.overhead_ms / 1e3 if name in ("ttft", "e2e") else 0.0)
    return np.asarray(np.bincount(np.searchsorted(edges, values), weights, edges.size + 1), dtype=np.float64)


def exported_p95_ms(world: World, signal: str, start_s: float, end_s: float) -> float:
    """What Prometheus reads for "ttft_p95_ms" or "itl_p95_ms" over a stretch; NaN where nothing was answered."""
    name = signal.removesuffix("_p95_ms")
    edges, values_of = _HISTOGRAMS[name]
    seen = [pair for second in world.seconds[int(start_s) : int(end_s)] for pair in values_of(second)]
    return 1e3 * float(quantile(bucketed(world, name, seen)[None], edges, 0.95)[0])


def quantile(counts: FloatArray, edges: FloatArray, level: float) -> FloatArray:
    """PromQL's histogram_quantile: linear inside the bucket, the last finite edge beyond it. counts: (n, k + 1)."""
    total, below = counts.sum(axis=1), np.cumsum(counts, axis=1)
    index = np.minimum((below < level * total[:, None]).sum(axis=1), edges.size)
    answer = np.full(total.size, np.nan)
    for k in np.flatnonzero(total > 0):
        i = int(index[k])
        if i >= edges.size:
            answer[k] = edges[-1]
            continue
        lower = edges[i - 1] if i else 0.0
        before = below[k, i - 1] if i else 0.0
        answer[k] = lower + (edges[i] - lower) * (level * total[k] - before) / max(counts[k, i], 1e-9)
    return answer
