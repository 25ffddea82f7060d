"""What a server of a language model says of itself: tokens, running sequences, the KV cache. None: not exported."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from detection.model import MetricWindow
from tuning.model import Observation
from tuning.planning.reading import level, number, recent_s
from tuning.planning.settings import PlanningSettings

_LIMITS = ("max_num_seqs", "max_num_batched_tokens")


@dataclass(frozen=True)
class LanguageReading:
    """Medians, in the signals' own units (see detection.language_signals); the limits from the lever where it reads
    them."""

    ttft_ms: float | None = None
    itl_ms: float | None = None
    itl_p50_ms: float | None = None
    itl_p95_ms: float | None = None
    queue_ms: float | None = None
    queue_depth: float | None = None
    prefill_ms: float | None = None
    decode_ms: float | None = None
    running: float | None = None
    kv_usage: float | None = None
    preemptions_per_s: float | None = None
    prefix_hit_rate: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    arrivals_per_s: float | None = None
    qps: float | None = None
    unanswered_rate: float | None = None
    steps_per_s: float | None = None
    step_tokens: float | None = None
    replicas: float | None = None
    max_num_seqs: float | None = None
    max_num_batched_tokens: float | None = None

    @property
    def rate(self) -> float | None:
        """Requests that come a second; those that end where nothing tells the others."""
        return self.arrivals_per_s if self.arrivals_per_s is not None else self.qps


_SIGNALS = tuple(one.name for one in fields(LanguageReading) if one.name not in _LIMITS)


def is_language(window: MetricWindow) -> bool:
    """Whether the window is of a server of a language model: it counts sequences or tokens."""
    return any(signal in window.values for signal in ("running", "generation_tokens_per_s", "kv_usage"))


def read_language(observation: Observation, settings: PlanningSettings) -> LanguageReading | None:
    """The server now; None where it is none of a language model."""
    window = observation.window
    if not is_language(window):
        return None
    within_s = recent_s(observation, settings)
    lever = observation.settings.get("batch_size")
    limits = {name: number(lever, name) for name in _LIMITS}
    return LanguageReading(**{name: level(window, name, within_s) for name in _SIGNALS}, **limits)


def read_calm(calm: MetricWindow | None) -> LanguageReading:
    """The same before the incident: medians of the calm window, without the limits, which nothing exports."""

    def usual(signal: str) -> float | None:
        values = calm.values.get(signal) if calm is not None else None
        finite = values[np.isfinite(values)] if values is not None else np.empty(0)
        return float(np.median(finite)) if finite.size else None

    return LanguageReading(**{name: usual(name) for name in _SIGNALS})
