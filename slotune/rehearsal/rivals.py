"""Who else may set a counterfactual service: Kubernetes' autoscaler, and somebody who knows what comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from detection.model import Service
from slotune.rehearsal.batch_queue import Now
from slotune.rehearsal.counterfactual import Counterfactual

Made = Callable[[float], Counterfactual]
"""A fresh world that stands at a time."""
HPA_SYNC_S, HPA_STABLE_S = 15.0, 300.0
_ORACLE_STEP_S = 60.0
_LOAD_STEP = 0.05
_FULL = 0.97


@dataclass
class Autoscaler:
    """Kubernetes' published algorithm on utilisation with its defaults: target 80 %, tolerance 0.1, up by at most
    max(100 %, 4 pods) per sync, down by the highest recommendation of 300 s."""

    least: int
    most: int
    target: float = 0.8
    _recommended: list[tuple[float, int]] = field(default_factory=list)

    def wanted(self, at_s: float, busy: float, ready: int, desired: int) -> int:
        """Replicas to ask for. busy: utilisation of those that are ready, a share."""
        ratio, ready = busy / self.target, max(1, ready)
        count = desired if abs(ratio - 1) <= 0.1 else math.ceil(ready * ratio)
        count = max(self.least, min(self.most, count))
        self._recommended = [r for r in self._recommended if r[0] > at_s - HPA_STABLE_S] + [(at_s, count)]
        if count > desired:
            return min(count, max(2 * desired, desired + 4))
        return min(desired, max(r[1] for r in self._recommended))


def autoscaled(service: Service, make: Made, start_s: float, end_s: float) -> Counterfactual | None:
    """The history under HPA at its defaults, from the recorded number of replicas at least; None without the lever, or
    where utilisation was not recorded."""
    lever, world = service.levers.get("replicas"), make(start_s)
    if lever is None or "busy" not in world.window.values:
        return None
    scaler = Autoscaler(max(1, round(float(np.median(world.drivers.desired)))), int(lever.maximum))
    step_s = max(HPA_SYNC_S, world.drivers.step_s)
    for at_s in np.arange(start_s + step_s, end_s + 1e-6, step_s).tolist():
        world.advance(at_s)
        busy, ready = world.newest("busy"), world.newest("replicas")
        if math.isfinite(busy) and math.isfinite(ready):
            desired = world.knobs().desired
            if (count := scaler.wanted(at_s, busy, int(ready), desired)) != desired:
                world.put("replicas", count)
    world.advance(end_s)
    return world


def foreseen(service: Service, make: Made, start_s: float, end_s: float) -> Counterfactual | None:
    """The fewest replicas that keep the SLO at every moment, asked for early enough; batch and precision as recorded.
    None without the lever."""
    lever, world = service.levers.get("replicas"), make(start_s)
    if lever is None or service.slo.p95_ms is None:
        return None
    world.foreseen = True
    every = max(1, round(_ORACLE_STEP_S / world.drivers.step_s))
    times = world.window.span.times()
    points = [k for k in range(0, times.size, every) if start_s - 1e-6 <= times[k] <= end_s + 1e-6]
    counts = _fewest(world, service, points, every)
    lead = math.ceil((lever.effect_delay_s + _ORACLE_STEP_S) / _ORACLE_STEP_S)
    for k, point in enumerate(points):
        world.advance(float(times[point]))
        count = max(counts[k : k + lead + 1])
        if count != world.knobs().desired:
            world.put("replicas", count)
    world.advance(end_s)
    return world


def _fewest(world: Counterfactual, service: Service, points: list[int], every: int) -> list[int]:
    """The fewest replicas in each stretch whose steady P95 meets the SLO under the stretch's highest load."""
    lever, slo_ms = service.levers["replicas"], float(service.slo.p95_ms or 0.0)
    low, high = max(1, int(lever.minimum)), max(int(lever.minimum), int(lever.maximum), 1)
    causes: dict[tuple[float, ...], Now] = {}
    keys = []
    for point in points:
        now = _highest(world, point, every)
        load = now.rate * (now.alpha_s + now.beta_s * now.batch) / now.batch
        pace = now.alpha_s + now.beta_s * now.batch
        steps = (round(math.log(max(one, 1e-9)) / _LOAD_STEP) for one in (load, pace))
        keys.append((now.batch, now.timeout_s, *steps))
        causes.setdefault(keys[-1], now)
    loads = {key: now.rate * (now.alpha_s + now.beta_s * now.batch) / now.batch for key, now in causes.items()}
    counts = {key: min(high, max(low, math.ceil(load / _FULL))) for key, load in loads.items()}
    short = [key for key, now in causes.items() if now.rate > 0 and counts[key] < high]
    while short:
        asked = {key: replace(causes[key], ready=counts[key]) for key in short}
        world.steady.prepare(asked.values())
        short = [key for key, now in asked.items() if world.steady.p95_ms(now) > slo_ms]
        for key in short:
            counts[key] += 1
        short = [key for key in short if counts[key] < high]
    return [counts[key] for key in keys]


def _highest(world: Counterfactual, point: int, every: int) -> Now:
    """The causes of a stretch: its highest load, at its usual pace, on one replica."""
    d, part = world.drivers, slice(point, point + every)
    pace = float(np.median(d.slow[part])) / 1e3
    return Now(
        rate=float(d.rate[part].max()), cv2=float(d.cv2[point]), failed=0.0, batch=int(d.batch[point]),
        timeout_s=float(d.timeout_ms[point]) / 1e3, alpha_s=world.draw.alpha_ms * pace,
        beta_s=world.draw.beta_ms * pace, ready=1,
    )  # fmt: skip
