"""Worked examples of each engine's kind of service: calm, saturated, three times as slow, and too little exported."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.fakes.planning import AT_S, SATURATED, make_observation, make_service, make_settings
from tuning.model import Observation, Setting

Signals = Mapping[str, float | Sequence[float]]
ROWS = 2.5 + 1.5 * np.sin(np.linspace(0, 12, 61))
WAVE = 60.0 * (1 + 0.4 * np.sin(np.linspace(0, 12, 61)))


@dataclass(frozen=True)
class Subject:
    """calm, saturated, slow: signals (slow: calm with every iteration or batch three times as long). settings: with
    which the calm runs; `saturated_settings` with which it saturates."""

    calm: Signals
    saturated: Signals
    slow: Signals
    settings: Mapping[str, Setting]
    saturated_settings: Mapping[str, Setting]
    engine: str

    def observation(self, signals: Signals, *, saturated: bool = False, **kwargs: object) -> Observation:
        settings = dict(self.saturated_settings if saturated else self.settings)
        service = make_service().model_copy(update={"engine": self.engine})
        return make_observation(signals, service=service, settings=settings, **kwargs)

    def shown(self) -> dict[str, Observation]:
        """By name; only "calm" and "saturated" tell enough for a prediction."""
        return {
            "saturated": self.observation(self.saturated, saturated=True),
            "calm": self.observation(self.calm),
            "nothing": self.observation({}),
            "gaps": self.observation(dict.fromkeys(self.saturated, math.nan)),
            "only P95 and load": self.observation({"p95_ms": 600.0, "qps": 50.0}),
        }

    def late_onset(self) -> float:
        """An onset with enough before and after it in the window."""
        return AT_S - 300.0

    def without_levers(self) -> Observation:
        return dataclasses.replace(self.observation(self.calm), settings={"none": self.settings["replicas"]})


def _batching() -> Subject:
    calm = SATURATED | {"qps": 60.0, "p95_ms": 60.0, "mean_ms": 40.0, "queue_ms": 15.0, "queue_depth": 0.0,
                        "batch_ms": 20 + 2 * ROWS, "rows_per_batch": ROWS, "batch_size": 8.0, "busy": 0.4}  # fmt: skip
    slow = dict(calm, batch_ms=3 * (20 + 2 * ROWS))
    return Subject(calm, SATURATED, slow, make_settings(batch=8), make_settings(), "dynamic_batching")


PROMPT, OUTPUT = 100.0, 20.0


def token_signals(rate: np.ndarray | float, factor: float = 1.0, replicas: float = 2.0) -> dict[str, object]:
    """What a server exports whose iteration takes factor * (5 + 0.02 n + 0.002 p) ms, in its own equations."""
    each = np.broadcast_to(np.asarray(rate, dtype=float), (61,)) / replicas / 1e3
    itl = np.full(61, 5.0 * factor)
    for _ in range(60):
        sequences = each * (OUTPUT - 1) * itl + 1
        itl = factor * (5.0 + 0.02 * sequences + 0.002 * each * PROMPT * itl)
    prefill = factor * (5.0 + 0.02 * sequences + 0.002 * PROMPT)
    return {
        "qps": np.broadcast_to(np.asarray(rate, dtype=float), (61,)),
        "itl_ms": itl,
        "prefill_ms": prefill,
        "queue_ms": np.full(61, 2.0),
        "ttft_ms": prefill + 2.0 + 10.0,
        "generation_tokens_per_s": each * 1e3 * OUTPUT * replicas,
        "prompt_tokens_per_s": each * 1e3 * PROMPT * replicas,
        "prompt_tokens": PROMPT,
        "prompt_tokens_p95": 2 * PROMPT,
        "output_tokens": OUTPUT,
        "output_tokens_p95": 2 * OUTPUT,
        "running": each * OUTPUT * itl,
        "kv_usage": 0.2,
        "queue_depth": 0.0,
        "replicas": replicas,
        "p95_ms": 60.0,
        "ttft_p95_ms": 40.0,
        "itl_p95_ms": 10.0,
    }


def _language() -> Subject:
    def settings(sequences: int) -> dict[str, Setting]:
        limits = Setting(
            lever="batch_size",
            values={"max_num_seqs": sequences, "max_num_batched_tokens": 2048},
            facts={"kv_cache_tokens": 40_000, "block_size": 16},
        )
        return {**make_settings(), "batch_size": limits}

    saturated = {**token_signals(60.0), "queue_depth": np.linspace(0.0, 900.0, 61), "running": 2.0, "ttft_p95_ms": 9e3}
    return Subject(
        token_signals(WAVE), saturated, token_signals(WAVE, 3.0), settings(64), settings(2), "continuous_batching"
    )


SUBJECTS: dict[str, Subject] = {"continuous_batching": _language(), "dynamic_batching": _batching()}
