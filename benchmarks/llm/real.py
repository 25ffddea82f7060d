"""Predictions against a real vLLM on this machine's CPU: changes of rate, limits and lengths that were never seen.

Each series begins with some minutes at one setting, in which the engine learns from the server's own counters; then the
load or the server's limits change, and what clients saw is compared with what the engine had said from the calm alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.llm.vllm_service import Answer, Host, Load, Server, drive, plan, window_of
from detection.model import MetricWindow, Service, Slo
from tuning.model import Interval, Observation, Setting
from tuning.planning.engines import get
from tuning.planning.forecast import Forecast
from tuning.planning.ports import Candidate, Knowledge, Predicted
from tuning.planning.settings import PlanningSettings
from tuning.planning.tokens import TokenSituation

RATE_WINDOW_S, STEP_S = 15.0, 5.0
LOOK_S, SETTLE_S = 26.0, 4.0
KV_BYTES = 200_000_000
BASE = Load(5.0, (32, 200), (16, 96))
LIMITS = (32, 1024)
LEARN = (3.0, 5.0, 8.0, 4.0)
"""Rates of the calm, one after the other; the highest that was seen tells least where changes go beyond it."""
LEARN_S = 20.0


@dataclass(frozen=True)
class Try:
    """One change: a load under limits."""

    load: Load
    sequences: int = LIMITS[0]
    tokens: int = LIMITS[1]


def _load(rate: float, prompt: tuple[int, int] = BASE.prompt, output: tuple[int, int] = BASE.output) -> Load:
    return Load(rate, prompt, output)


SERIES: dict[str, tuple[Try, ...]] = {
    "rates": tuple(Try(_load(rate)) for rate in (2.0, 6.0, 7.0, 9.0, 10.0, 3.5)),
    "limits": (
        Try(_load(5.0), 4),
        Try(_load(6.0), 8),
        Try(_load(6.0), 16),
        Try(_load(7.0), 64),
        Try(_load(5.0), 32, 128),
        Try(_load(5.0), 32, 256),
    ),
    "lengths": (
        Try(_load(4.0, (200, 600))),
        Try(_load(3.0, (400, 1000))),
        Try(_load(4.0, output=(32, 200))),
        Try(_load(3.0, output=(100, 300))),
        Try(_load(3.0, (400, 1000)), 32, 256),
        Try(_load(3.0, (200, 600), (100, 300)), 16),
    ),
}


def main(python: Path, folder: Path, names: list[str], path: Path) -> int:
    """Run the named series, add their rows to the results. 0 where every series ran."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in kept if row["series"] not in names]
    host = Host(python, folder)
    try:
        for name in names:
            rows += series(name, host)
    finally:
        host.close()
    document = {"command": "make bench-llm", "real": True, "figures": figures(rows), "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["figures"], indent=1))
    return 0


def series(name: str, host: Host) -> list[dict[str, object]]:
    rng = np.random.default_rng(sum(map(ord, name)))
    server, limits = host.start(*LIMITS, KV_BYTES), LIMITS
    kv_tokens = server.metrics().get("kv_tokens", math.inf)
    asyncio.run(drive(server, plan(_load(4.0), 4.0, rng), []))
    scrapes: list[tuple[float, dict[str, float]]] = []
    for rate in LEARN:
        asyncio.run(drive(server, plan(_load(rate), LEARN_S, rng), scrapes))
    observation = observed(window_of(scrapes, RATE_WINDOW_S, STEP_S), kv_tokens, server)
    engine, settings = get("continuous_batching"), PlanningSettings(rate_window_s=RATE_WINDOW_S, verify_window_s=LOOK_S)
    situation = engine.assess(None, observation, settings, -math.inf)
    print(name, "learned", situation.steps.step(), "overhead", situation.steps.overhead_ms, situation.size, flush=True)
    rows = []
    for change in SERIES[name]:
        if (change.sequences, change.tokens) != limits:
            host.stop(server)
            server, limits = host.start(change.sequences, change.tokens, KV_BYTES), (change.sequences, change.tokens)
        predicted = predict(change, observation, situation, settings)
        answers = asyncio.run(drive(server, plan(change.load, SETTLE_S + LOOK_S, rng), []))
        rows.append(row(name, change, predicted, [a for a in answers if a.at_s >= SETTLE_S]))
        print(json.dumps(rows[-1]), flush=True)
    host.stop(server)
    return rows


def observed(window: MetricWindow, kv_tokens: float, server: Server) -> Observation:
    service = Service(name="vllm", serving="vllm", engine="continuous_batching",
                      slo=Slo(ttft_p95_ms=500.0, itl_p95_ms=100.0))  # fmt: skip
    facts = {} if math.isinf(kv_tokens) else {"kv_cache_tokens": kv_tokens, "block_size": 128}
    values = {"max_num_seqs": LIMITS[0], "max_num_batched_tokens": LIMITS[1]}
    setting = Setting(lever="batch_size", values=values, facts=facts)
    return Observation(service=service, window=window, at_s=window.span.end_s, settings={"batch_size": setting})


def predict(change: Try, observation: Observation, situation: TokenSituation, settings: PlanningSettings) -> Predicted:
    """What the engine says of the change's rate, limits and mean lengths, knowing only the calm."""
    size, rate = situation.size, change.load.rate
    assert size is not None
    prompts, outputs = change.load.mean_prompt / BASE.mean_prompt, change.load.mean_output / BASE.mean_output
    later = dataclasses.replace(
        situation,
        arrivals=Forecast(Interval(value=rate, low=0.95 * rate, high=1.05 * rate), "given"),
        size=dataclasses.replace(
            size,
            prompt=size.prompt * prompts,
            prompt_p95=size.prompt_p95 * prompts,
            output=size.output * outputs,
            output_p95=size.output_p95 * outputs,
        ),
        backlog=0.0,
    )
    setting = {"max_num_seqs": change.sequences, "max_num_batched_tokens": change.tokens, "replicas": 1}
    return get("continuous_batching").predict([Candidate(setting)], observation, later, Knowledge(), settings)[0]


def row(name: str, change: Try, predicted: Predicted, answers: list[Answer]) -> dict[str, object]:
    gaps = [gap for answer in answers for gap in answer.gaps_s]
    seen = {
        "ttft_p95_ms": 1e3 * float(np.quantile([a.ttft_s for a in answers], 0.95)),
        "itl_p95_ms": 1e3 * float(np.quantile(gaps, 0.95)),
        "e2e_p95_ms": 1e3 * float(np.quantile([a.e2e_s for a in answers], 0.95)),
    }
    shown = {key: predicted.shown[key] for key in seen}
    return {
        "series": name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "rate": change.load.rate,
        "prompt": change.load.prompt,
        "output": change.load.output,
        "max_num_seqs": change.sequences,
        "max_num_batched_tokens": change.tokens,
        "requests": len(answers),
        "load": round(predicted.load, 3),
        "unknown": predicted.unknown,
        "observed": {key: round(value, 1) for key, value in seen.items()},
        "predicted": {key: [round(v, 1) for v in (i.value, i.low, i.high)] for key, i in shown.items()},
    }


def figures(rows: list[dict[str, object]]) -> dict[str, object]:
    """By objective: the share of changes within 25 % and inside the 90 % interval."""
    found: dict[str, object] = {"changes": len(rows)}
    for key in ("ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms"):
        pairs = [(r["observed"][key], r["predicted"][key]) for r in rows]  # type: ignore[index]
        if pairs:
            found[key] = {
                "within_25_percent": round(float(np.mean([abs(p[0] / o - 1) <= 0.25 for o, p in pairs])), 3),
                "interval_covers": round(float(np.mean([p[1] <= o <= p[2] for o, p in pairs])), 3),
            }
    return found
