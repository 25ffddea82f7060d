"""Predictions against a real vLLM on this machine's CPU: changes of rate, limits and lengths that were never seen.

A minute at one setting, in which the engine learns from the server's own counters; then the load, the lengths or the
server's limits change, and what clients saw is compared with what the engine had said before from the calm alone. As
in the loop, the calm reaches up to each change: between two of them the first server is looked at for some seconds, so
that a machine that others slow down meanwhile is not taken for an error of the model. Loads are shares of what this
machine's server carries, so that a slow machine is not merely overloaded.

Two comparisons: what a plan says against what the server's own histograms then read (as in the loop, where a promise is
kept or broken by what Prometheus shows), and the percentile behind it against what clients saw, free of buckets.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.llm.vllm_service import (
    Answer,
    Host,
    Load,
    Scrapes,
    Server,
    drive,
    exported_p95_ms,
    plan,
    window_of,
)
from detection import presets
from detection.model import Incident, MetricWindow, Service, Slo
from tuning.model import Interval, Observation, Setting
from tuning.planning.engines import get
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Candidate, Knowledge, Predicted
from tuning.planning.settings import PlanningSettings
from tuning.planning.token_flow import Lengths
from tuning.planning.tokens import TokenSituation

RATE_WINDOW_S, STEP_S = 5.0, 1.0
LOOK_S, LOOK_REQUESTS, SETTLE_S = (20.0, 40.0), 200.0, 3.0
"""A look lasts until so many requests came, within these bounds: of forty requests a P95 is the second longest, of two
hundred the tenth."""
KV_BYTES = 400_000_000
PROMPT, OUTPUT = (32, 200), (16, 96)
LIMITS = (32, 1024)
LEARN = (0.25, 0.5, 0.7, 0.4)
"""Loads of the calm, one after the other, as shares of what the server carries; first guessed by a short look."""
LEARN_S, GUESS_RATE = 20.0, 2.0
HISTOGRAMS = {
    "ttft_p95_ms": "time_to_first_token_seconds",
    "itl_p95_ms": "inter_token_latency_seconds",
    "e2e_p95_ms": "e2e_request_latency_seconds",
}
CALM, CALM_S = 0.4, 10.0
"""The look between two changes: its load, and how long."""


@dataclass(frozen=True)
class Try:
    """One change. load: share of what the server would carry then, as predicted; with which lengths and limits."""

    series: str
    load: float
    prompt: tuple[int, int] = PROMPT
    output: tuple[int, int] = OUTPUT
    sequences: int = LIMITS[0]
    tokens: int = LIMITS[1]


CHANGES = (
    Try("rate", 0.2),
    Try("rate", 0.35),
    Try("rate", 0.5),
    Try("rate", 0.65),
    Try("rate", 0.75),
    Try("lengths", 0.4, (200, 600)),
    Try("lengths", 0.6, (300, 900)),
    Try("lengths", 0.5, (32, 200), (32, 200)),
    Try("lengths", 0.5, (32, 200), (100, 250)),
    Try("lengths", 0.4, (16, 64), (8, 32)),
    Try("max_num_seqs", 0.6, sequences=4),
    Try("max_num_seqs", 0.6, sequences=8),
    Try("max_num_seqs", 0.7, sequences=16),
    Try("max_num_seqs", 0.5, sequences=64),
    Try("max_num_batched_tokens", 0.5, tokens=128),
    Try("max_num_batched_tokens", 0.5, (200, 600), tokens=256),
    Try("max_num_batched_tokens", 0.5, (200, 600), tokens=2048),
)


def main(python: Path, folder: Path, path: Path, kept: Path | None, minutes: float) -> int:
    """Learn, then make every change that `kept` has not; the rows and their figures are the results."""
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept is not None and kept.exists() else []
    host = Host(python, folder)
    try:
        for found in run(host, CHANGES[len(rows) :], minutes):
            rows.append(found)
            print(json.dumps(found), flush=True)
            if kept is not None:
                with kept.open("a") as file:
                    file.write(json.dumps(found) + "\n")
    finally:
        host.close()
    command = "python -m benchmarks.llm --real --python PATH"
    document = {"command": command, "real": True, "figures": figures(rows), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["figures"], indent=1))
    return 0


def run(host: Host, changes: Sequence[Try], minutes: float = math.inf) -> Iterator[dict[str, object]]:
    """The rows of the changes, as they come; none is begun after `minutes`."""
    began, rng = time.monotonic(), np.random.default_rng(5)
    base = host.start(*LIMITS, KV_BYTES)
    calm = Calm(base.metrics().get("kv_tokens", math.inf))
    calm.learn(_looked(base, GUESS_RATE, LEARN_S, rng))
    for load in LEARN:
        calm.learn(_looked(base, load * calm.carried, LEARN_S, rng))
    for change in changes:
        if time.monotonic() - began > 60 * minutes:
            break
        observation, situation = calm.now(_looked(base, CALM * calm.carried, CALM_S, rng))
        asked, look_s, predicted = predict(change, observation, situation)
        limits = (change.sequences, change.tokens)
        server = base if limits == LIMITS else host.start(*limits, KV_BYTES)
        scrapes: Scrapes = []
        answers = asyncio.run(drive(server, plan(asked, SETTLE_S + look_s, rng), scrapes))
        if server is not base:
            host.stop(server)
        read = {name: exported_p95_ms(scrapes, of, SETTLE_S, SETTLE_S + look_s) for name, of in HISTOGRAMS.items()}
        yield row(change, asked, situation.pace, predicted, read, [a for a in answers if a.at_s >= SETTLE_S])
    host.stop(base)


def _looked(server: Server, rate: float, seconds: float, rng: np.random.Generator) -> MetricWindow:
    scrapes: Scrapes = []
    asyncio.run(drive(server, plan(Load(rate, PROMPT, OUTPUT), seconds, rng), scrapes))
    return window_of(scrapes, RATE_WINDOW_S, STEP_S)


class Calm:
    """What is known of the server: iterations learned from looks at it, their pace and the lengths from the newest."""

    def __init__(self, kv_tokens: float) -> None:
        self.kv_tokens, self.engine = kv_tokens, get("continuous_batching")
        self.state: Mapping[str, object] | None = None
        self.size: Lengths | None = None
        self.carried = 0.0

    def learn(self, window: MetricWindow) -> None:
        """Take a look in; `carried` is what the server carries by it."""
        self.state = self.engine.learn(self.state, window, ("", ""), RATE_WINDOW_S) or self.state
        situation = self.engine.assess(None, observed(window, self.kv_tokens, self.state), _settings(), -math.inf)
        self.size, self.carried = situation.size, self.engine.capacity(situation)

    def now(self, window: MetricWindow) -> tuple[Observation, TokenSituation]:
        """The situation under this look, from which nothing is learned but the present pace."""
        observation = observed(window, self.kv_tokens, self.state)
        incident = Incident(
            id="change", service="vllm", symptom="latency", tier="act", severity="warning", detected_at_s=0.0,
            opened_at_s=window.span.start_s - RATE_WINDOW_S, signals=(), anomalies=(), reason="")  # fmt: skip
        situation = self.engine.assess(incident, observation, _settings(), -math.inf)
        return observation, dataclasses.replace(situation, size=self.size)


def _settings(look_s: float = LOOK_S[0]) -> PlanningSettings:
    return PlanningSettings(rate_window_s=RATE_WINDOW_S, verify_window_s=look_s)


def observed(window: MetricWindow, kv_tokens: float, state: Mapping[str, object] | None = None) -> Observation:
    preset = presets.get("vllm")
    service = Service(name="vllm", serving="vllm", engine=preset.engine, edges_ms=dict(preset.edges_ms),
                      slo=Slo(ttft_p95_ms=500.0, itl_p95_ms=100.0))  # fmt: skip
    facts = {} if math.isinf(kv_tokens) else {"kv_cache_tokens": kv_tokens, "block_size": 128}
    values = {"max_num_seqs": LIMITS[0], "max_num_batched_tokens": LIMITS[1]}
    setting = Setting(lever="batch_size", values=values, facts=facts)
    return Observation(service=service, window=window, at_s=window.span.end_s, settings={"batch_size": setting},
                       latency_model=state)  # fmt: skip


def predict(change: Try, observation: Observation, situation: TokenSituation) -> tuple[Load, float, Predicted]:
    """(load, seconds of the look, what the engine says of it), knowing only the calm and what changes."""
    size, engine = situation.size, get("continuous_batching")
    assert size is not None
    prompts, outputs = sum(change.prompt) / sum(PROMPT), sum(change.output) / sum(OUTPUT)
    later = dataclasses.replace(
        situation,
        size=dataclasses.replace(
            size,
            prompt=size.prompt * prompts,
            prompt_p95=size.prompt_p95 * prompts,
            output=size.output * outputs,
            output_p95=size.output_p95 * outputs,
        ),
        max_num_seqs=change.sequences,
        max_num_batched_tokens=change.tokens,
        backlog=0.0,
    )
    rate = change.load * engine.capacity(later)
    look_s = float(np.clip(LOOK_REQUESTS / rate, *LOOK_S))
    given = Forecast(Interval(value=rate, low=0.95 * rate, high=1.05 * rate), "given")
    later = dataclasses.replace(later, arrivals=given)
    setting = {"max_num_seqs": change.sequences, "max_num_batched_tokens": change.tokens, "replicas": 1}
    found = engine.predict([Candidate(setting)], observation, later, Knowledge(), _settings(look_s))[0]
    return Load(rate, change.prompt, change.output), look_s, found


def row(
    change: Try, load: Load, pace: float, predicted: Predicted, read: Mapping[str, float], answers: list[Answer]
) -> dict[str, object]:
    """read: P95s as the server's histograms show them. observed and predicted are as exported, the clients' beside."""
    gaps = [gap for answer in answers for gap in answer.gaps_s]
    seen = {
        "ttft_p95_ms": 1e3 * float(np.quantile([a.ttft_s for a in answers], 0.95)),
        "itl_p95_ms": 1e3 * float(np.quantile(gaps, 0.95)),
        "e2e_p95_ms": 1e3 * float(np.quantile([a.e2e_s for a in answers], 0.95)),
    }
    return {
        "series": change.series,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "load": change.load,
        "rate": round(load.rate, 2),
        "prompt": change.prompt,
        "output": change.output,
        "max_num_seqs": change.sequences,
        "max_num_batched_tokens": change.tokens,
        "requests": len(answers),
        "pace": round(pace, 3),
        "unknown": predicted.unknown,
        "edge": bool(predicted.edge),
        "observed": {key: round(value, 1) for key, value in read.items()},
        "predicted": {key: _rounded(predicted.told(key)) for key in read},
        "client_observed": {key: round(value, 1) for key, value in seen.items()},
        "client_predicted": {key: _rounded(predicted.shown[key]) for key in seen},
    }


def _rounded(found: Interval) -> list[float]:
    return [round(value, 1) for value in (found.value, found.low, found.high)]


def figures(rows: list[dict[str, object]]) -> dict[str, object]:
    """By objective: the share of changes within 25 % and inside the 90 % interval, as exported and as clients saw."""
    found: dict[str, object] = {"changes": len(rows)}
    for side in ("", "client_"):
        for key in HISTOGRAMS:
            pairs = [(r[f"{side}observed"][key], r[f"{side}predicted"][key]) for r in rows]  # type: ignore[index]
            if pairs:
                found[f"{side}{key}"] = {
                    "within_25_percent": round(float(np.mean([abs(p[0] / o - 1) <= 0.25 for o, p in pairs])), 3),
                    "interval_covers": round(float(np.mean([p[1] <= o <= p[2] for o, p in pairs])), 3),
                }
    return found
