"""Incidents of language models, drawn from two disjoint streams of seeds: "dev" (thresholds are chosen on it) and
"report" (figures are taken from it)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from benchmarks.llm.edges import GAP_S, TTFT_S
from benchmarks.llm.world import Faults, Mix, Profile, World

ONSET_S, END_S, JUDGED_S = 600.0, 1800.0, 1800.0
STRETCH_S, LOOK_S = 30.0, 240.0
STREAMS = {"dev": 1_000_000, "report": 2_000_000}
EDGES_S = {"ttft_p95_ms": TTFT_S, "itl_p95_ms": GAP_S}
OBJECTIVES = tuple(EDGES_S)


@dataclass(frozen=True)
class Scenario:
    """A service, its limits and objectives, and what befalls it at ONSET_S. Bounds are those of the levers."""

    name: str
    kind: str
    causes: tuple[str, ...]
    profile: Profile
    mix: Mix
    qps: float
    cv2: float
    sequences: int
    tokens: int
    replicas: int
    sequences_max: int
    replicas_max: int
    limits: dict[str, float]
    wave: tuple[float, float] = (0.1, 600.0)
    surge: Callable[[float], float] = lambda t: 1.0
    later: Mix | None = None
    slow: float = 1.0
    lost: int = 0
    errors: float = 0.0
    room: float = 1.0
    misset: int | None = None

    def faults(self) -> Faults:
        def on(t: float) -> bool:
            return t >= ONSET_S

        high, period_s = self.wave
        return Faults(
            rate=lambda t: self.qps * (1 + high * math.sin(2 * math.pi * t / period_s)) * self.surge(t - ONSET_S),
            mix=lambda t: self.later if self.later is not None and on(t) else self.mix,
            slow=lambda t, replica: self.slow if on(t) else 1.0,
            errors=lambda t: self.errors if on(t) else 0.0,
            lost=lambda t: self.lost if on(t) else 0,
            room=lambda t: self.room if on(t) else 1.0,
            cv2=self.cv2,
        )

    def begin(self, seed: int) -> World:
        """The service at the onset: the same history for every policy."""
        world = World(self.profile, self.faults(), sequences=self.sequences, tokens=self.tokens, replicas=self.replicas,
                      seed=seed)  # fmt: skip
        world.advance(ONSET_S)
        if self.misset is not None:
            world.set_limits(self.misset, self.tokens)
            world.pending = (world.now_s, (self.misset, self.tokens))
        return world


def draw(stream: str, number: int) -> Scenario:
    """Incident `number` of a stream; a service whose trouble cannot befall it is drawn again."""
    rng = np.random.default_rng(STREAMS[stream] + number)
    name = f"{stream} {number}"
    while True:
        calm = _service(name, rng)
        kinds, weights = zip(*((kind, weight) for kind, (weight, _) in KINDS.items()), strict=True)
        kind = str(rng.choice(kinds, p=np.array(weights) / sum(weights)))
        found = KINDS[kind][1](calm, rng)
        if found is not None:
            return replace(found, kind=kind)


_PROFILES = (
    # name, GPUs, base, per sequence, per prompt token, per 1,000 cached tokens (ms), cache in tokens
    ("8B", 1, (6.5, 13.0), (0.02, 0.09), (0.018, 0.06), (0.01, 0.05), (50_000, 400_000)),
    ("14B", 1, (11.0, 20.0), (0.03, 0.12), (0.03, 0.1), (0.015, 0.06), (40_000, 250_000)),
    ("32B", 2, (13.0, 26.0), (0.05, 0.15), (0.04, 0.12), (0.015, 0.06), (60_000, 300_000)),
    ("70B", 8, (16.0, 32.0), (0.05, 0.2), (0.03, 0.1), (0.01, 0.05), (200_000, 900_000)),
)


def _service(name: str, rng: np.random.Generator) -> Scenario:
    label, gpus, *ranges, cache = _PROFILES[int(rng.integers(len(_PROFILES)))]
    base, sequence, prompt, cached = (_log(rng, *pair) for pair in ranges)
    profile = Profile(
        label, gpus, base, sequence, prompt, cached, int(_log(rng, *cache)),
        bend=rng.uniform(0.0, 0.4), long_prompt=rng.uniform(0.0, 0.8), wave=rng.uniform(0.0, 0.06),
        noise=rng.uniform(0.02, 0.12), overhead_ms=rng.uniform(3.0, 40.0), start_s=_log(rng, 45.0, 180.0),
        restart_s=_log(rng, 30.0, 120.0),
    )  # fmt: skip
    mix = Mix(_log(rng, 150, 2500), rng.uniform(0.3, 1.2), _log(rng, 60, 400), rng.uniform(0.4, 1.0))
    sequences, tokens = int(rng.choice([32, 48, 64, 128, 256])), int(rng.choice([1024, 2048, 4096, 8192]))
    replicas = int(rng.choice([1, 1, 2, 3, 4]))
    # What a full replica answers, by the true iteration: the load is a share of it.
    held = min(sequences, 0.8 * profile.kv_tokens / (mix.prompt + mix.output))
    each_s = profile.iteration_s(int(held), 0, 0.0, held * (mix.prompt + mix.output / 2))
    answers = held / (mix.output * each_s + held * profile.prompt_ms * mix.prompt / 1e3)
    qps = min(8.0, replicas * answers * rng.uniform(0.3, 0.65))
    calm = Scenario(
        name, "none", ("healthy",), profile, mix, qps, 1.0 if rng.random() < 0.4 else _log(rng, 0.5, 4.0), sequences,
        tokens, replicas, min(512, sequences * int(rng.choice([1, 2, 4]))),
        math.ceil(replicas * float(rng.choice([1.0, 2.0, 3.0], p=[0.15, 0.45, 0.4]))), {},
        wave=(rng.uniform(0.0, 0.2), rng.uniform(300.0, 1200.0)),
    )  # fmt: skip
    return replace(calm, limits=_limits(calm, rng))


def _limits(calm: Scenario, rng: np.random.Generator) -> dict[str, float]:
    """Objectives that the service holds while all is well: `room` times its P95, and over what its stretches reach."""
    world = World(calm.profile, calm.faults(), sequences=calm.sequences, tokens=calm.tokens, replicas=calm.replicas,
                  seed=77)  # fmt: skip
    world.advance(ONSET_S - 1)
    found = {}
    for signal in OBJECTIVES:
        stretches = [world.p95_ms(signal, t, t + STRETCH_S) for t in np.arange(120.0, ONSET_S - 40.0, STRETCH_S)]
        value = max(
            rng.uniform(1.5, 4.0) * world.p95_ms(signal, 120.0, ONSET_S - 10.0), 1.3 * float(np.nanmax(stretches))
        )
        # Whoever can choose puts an objective where the server's histogram has an edge: only there it can be told.
        edges = 1e3 * EDGES_S[signal]
        found[signal] = float(edges[np.searchsorted(edges, value)])
    return found


# What goes wrong -------------------------------------------------------------------------------------------------


def _surge(calm: Scenario, rng: np.random.Generator) -> Scenario:
    factor = _log(rng, 1.5, 3.5)
    return replace(calm, causes=("load_surge",), surge=lambda t: factor if t >= 0 else 1.0)


def _ramp(calm: Scenario, rng: np.random.Generator) -> Scenario:
    factor, lasts = _log(rng, 1.5, 3.5), rng.uniform(120.0, 480.0)
    return replace(
        calm, causes=("load_surge",), surge=lambda t: 1 + (factor - 1) * min(1.0, t / lasts) if t >= 0 else 1.0
    )


def _longer_prompts(calm: Scenario, rng: np.random.Generator) -> Scenario:
    return replace(
        calm, causes=("longer_prompts",), later=replace(calm.mix, prompt=calm.mix.prompt * _log(rng, 2.0, 5.0))
    )


def _longer_outputs(calm: Scenario, rng: np.random.Generator) -> Scenario:
    return replace(
        calm, causes=("longer_outputs",), later=replace(calm.mix, output=calm.mix.output * _log(rng, 1.8, 4.0))
    )


def _too_few(calm: Scenario, rng: np.random.Generator) -> Scenario | None:
    """A release that sets max_num_seqs far too low."""
    size = max(1, int(calm.sequences * _log(rng, 0.03, 0.2)))
    return replace(calm, causes=("concurrency_limited",), misset=size) if size < calm.sequences else None


def _cache_shrinks(calm: Scenario, rng: np.random.Generator) -> Scenario:
    """A release that leaves the cache a fraction of its room (memory share, model length, another adapter)."""
    return replace(calm, causes=("kv_cache_full",), room=_log(rng, 0.05, 0.35))


def _lost(calm: Scenario, rng: np.random.Generator) -> Scenario | None:
    if calm.replicas < 2:
        return None
    return replace(calm, causes=("lost_capacity",), lost=int(rng.integers(1, calm.replicas)))


def _slower(calm: Scenario, rng: np.random.Generator) -> Scenario:
    return replace(calm, causes=("slower_engine",), slow=_log(rng, 1.4, 3.0))


def _prefix_lost(calm: Scenario, rng: np.random.Generator) -> Scenario:
    """Most of each prompt was known to the cache, and no longer is (a template with a time stamp, another router)."""
    before = replace(calm.mix, prompt=2 * calm.mix.prompt, hits=rng.uniform(0.5, 0.85))
    calm = replace(calm, mix=before)
    calm = replace(calm, limits=_limits(calm, rng))
    return replace(calm, causes=("prefix_cache_lost",), later=replace(before, hits=0.0))


def _errors(calm: Scenario, rng: np.random.Generator) -> Scenario:
    return replace(calm, causes=("errors",), errors=_log(rng, 0.05, 0.6))


def _none(calm: Scenario, rng: np.random.Generator) -> Scenario:
    return calm


KINDS: dict[str, tuple[float, Callable[[Scenario, np.random.Generator], Scenario | None]]] = {
    "cache too small": (1.0, _cache_shrinks),
    "errors": (0.5, _errors),
    "longer outputs": (1.2, _longer_outputs),
    "longer prompts": (1.2, _longer_prompts),
    "lost replica": (0.8, _lost),
    "none": (0.5, _none),
    "prefix lost": (0.8, _prefix_lost),
    "ramp": (1.0, _ramp),
    "slower engine": (1.0, _slower),
    "surge": (1.5, _surge),
    "too few sequences": (1.2, _too_few),
}
"""What can go wrong: how often (relative), and what draws it (None: not to this service)."""


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    """Uniform in the logarithm."""
    return float(math.exp(rng.uniform(math.log(low), math.log(high))))
