"""Somebody who knows everything: every option tried offline, the cheapest that cures is made."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np

from benchmarks.control.runs import (
    FAILED,
    Action,
    Run,
    cured,
    failed,
    set_batch,
    set_int8,
    set_replicas,
    violation_min,
)
from benchmarks.control.scenarios import END_S, Scenario
from benchmarks.control.score import EASED
from benchmarks.control.simulator import SimulatedService


@dataclass(frozen=True)
class Choice:
    """One option of the oracle: absolute values, None = as it is."""

    batch: tuple[int, float] | None = None
    replicas: int | None = None
    int8: bool = False

    def make(self, run: Run) -> None:
        if self.batch is not None:
            set_batch(run, *self.batch)
        if self.replicas is not None:
            set_replicas(run, self.replicas)
        if self.int8:
            set_int8(run)
        if len(run.actions) > 1:
            levers, text = "+".join(a.lever for a in run.actions), " and ".join(a.text for a in run.actions)
            run.actions = [Action(run.actions[0].at_s, levers, text, max(a.effect_s for a in run.actions))]

    @property
    def empty(self) -> bool:
        return self == Choice()


def choices(scenario: Scenario, service: SimulatedService) -> list[Choice]:
    """Every option, cheapest first: nothing, batches, INT8, INT8 with a batch, then replicas alone and with a batch.

    In a pair the batch is a large one, or as it is without its wait: what needs both halves of a pair to be cured is
    curable, whichever half of the batcher's setting that is.
    """
    waits = sorted({0.0, service.timeout_ms})
    sizes = sorted({2**k for k in range(8) if 2**k <= scenario.batch_max} | {scenario.batch_max})
    batches = [(size, wait) for size in sizes for wait in waits if (size, wait) != (service.batch, service.timeout_ms)]
    batches.sort(key=lambda b: (b[1] != service.timeout_ms, -b[0]))
    large = [scenario.batch_max, max(1, scenario.batch_max // 2)]
    halves = [*((size, wait) for wait in reversed(waits) for size in large), (service.batch, 0.0)]
    halves = [half for half in dict.fromkeys(halves) if half != (service.batch, service.timeout_ms)]
    found = [Choice(), *(Choice(batch=b) for b in batches)]
    if scenario.precision and not service.int8:
        found += [Choice(int8=True), *(Choice(batch=b, int8=True) for b in halves)]
    for count in range(service.desired + 1, scenario.replicas_max + 1):
        found.append(Choice(replicas=count))
        found += [Choice(batch=b, replicas=count) for b in halves]
    if scenario.precision and not service.int8:
        found.append(Choice(int8=True, replicas=scenario.replicas_max))
    return found


def oracle(scenario: Scenario, service: SimulatedService, at_s: float) -> tuple[Run, bool, bool]:
    """Try every option offline at `at_s`; make the cheapest that cures. (run, curable, eased: none cures, and one
    leads to half of the minutes over the SLO, or of the requests that fail, or less)

    Options whose true capacity is below the load at the end are not tried: they cannot do. Of the options that cost the
    same (at most three that cure are tried) the one with the fewest minutes over the SLO is made.
    """
    service.advance(at_s)
    best: tuple[tuple[float, float], Run] | None = None
    cures, least, idle = 0, math.inf, math.inf
    for choice in choices(scenario, service):
        price = (choice.replicas or service.desired) - service.desired
        if best is not None and (price > best[0][0] or cures >= 3):
            break
        if not choice.empty and not _can_carry(scenario, choice, service):
            continue
        run = _made(service, choice)
        minutes = violation_min(scenario, run.service)
        least, idle = min(least, minutes), minutes if choice.empty else idle
        if cured(scenario, run.service):
            cures += 1
            key = (float(price), minutes + (0.0 if not choice.empty else -1e9))
            if best is None or key < best[0]:
                best = (key, run)
            if choice.empty:
                break
    if best is not None:
        return best[1], True, False
    # What cannot carry the load in the end may help until then: the most that can be had is tried for that.
    most = _made(service, _most(scenario, service))
    least = min(least, violation_min(scenario, most.service))
    nothing = _made(service, Choice())
    refused, fewest = failed(nothing.service), failed(most.service)
    # Where requests fail whatever is done no minute is over the SLO with nothing done either, and nothing is eased.
    eased = (least <= EASED * idle and idle > 0) or (refused > FAILED and fewest <= EASED * refused)
    return nothing, False, eased


def _most(scenario: Scenario, service: SimulatedService) -> Choice:
    """Everything at once."""
    faster = scenario.precision and not service.int8
    return Choice((scenario.batch_max, service.timeout_ms), max(service.desired, scenario.replicas_max), faster)


def _made(service: SimulatedService, choice: Choice) -> Run:
    """The choice made now, and what comes of it."""
    run = Run(copy.deepcopy(service), held=choice.empty)
    choice.make(run)
    run.service.advance(END_S)
    return run


def _can_carry(scenario: Scenario, choice: Choice, service: SimulatedService) -> bool:
    """True capacity of every replica with full batches against the load of the last minutes."""
    profile, faults = service.profile, service.faults
    late = np.arange(scenario.judged_s - 120.0, scenario.judged_s, 5.0)
    replicas = max(1, (choice.replicas or service.desired) - faults.lost(scenario.judged_s - 1))
    batch = choice.batch[0] if choice.batch else service.batch
    slow = float(np.mean([faults.slow(t, k) for t in late for k in range(replicas)]))
    bend = 1 - profile.curve * min(1.0, (batch - 1) / 31)
    gain = profile.int8_gain if choice.int8 or service.int8 else 1.0
    took_s = (profile.alpha_ms + profile.beta_ms * batch * bend) / 1e3 * slow / gain
    return float(np.mean([faults.rate(t) for t in late])) < 1.02 * replicas * batch / took_s
