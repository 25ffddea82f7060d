"""Whether the next process is well: beside its peers, by the signal that named the one before it."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import MetricWindow, Slo, Span
from tuning.model import Outcome, SickReplica
from tuning.verification.restarted import with_replica

SLO = Slo(p95_ms=100.0, error_rate=0.01, accuracy_drop=0.01)
SPAN = Span(0.0, 60.0, 5.0)
SLOW = {"kind": "slow", "signal": "batch_ms", "own": 25.0, "peers": 10.0}
FAILS = {"kind": "wrong", "signal": "error_rate", "own": 0.4, "peers": 0.0}
DIFFERS = {"kind": "wrong", "signal": "agreement", "own": 0.8, "peers": 0.99}
LEAKS = {"kind": "leaking", "signal": "memory_gb", "own": 3.0, "peers": 1.0}


def windows(signal: str, **levels: float) -> dict[str, MetricWindow]:
    return {label: MetricWindow("s", SPAN, {signal: np.full(SPAN.points, level)}) for label, level in levels.items()}


def judged(sick: dict[str, object], after: dict[str, float], verdict: str = "unchanged") -> Outcome:
    one = SickReplica.model_validate({"label": "r1", "sentence": "", **sick})
    base = Outcome.model_validate(
        {"id": "o", "plan_id": "p", "service": "s", "verdict": verdict, "resolved": True, "at_s": 1.0, "reason": "P95 +0%"}
    )
    before = windows(one.signal, r0=1.0, r1=1.0, r2=1.0)
    return with_replica(base, one, before, windows(one.signal, **after), SLO)


@pytest.mark.parametrize(
    ("sick", "after", "verdict"),
    [
        (SLOW, {"r0": 10.0, "r1": 11.9, "r2": 10.0}, "improved"),
        (SLOW, {"r0": 10.0, "r1": 12.1, "r2": 10.0}, "unchanged"),
        (SLOW, {"r0": 10.0, "r1": 14.9, "r2": 15.0}, "improved"),  # within its peers' spread
        (SLOW, {"r0": 10.0, "r2": 10.0, "r3": 10.0}, "improved"),  # another label came in its place
        (SLOW, {"r0": 10.0, "r2": 10.0, "r3": 30.0}, "unchanged"),
        (SLOW, {"r0": 10.0, "r1": 25.0, "r2": 10.0, "r3": 10.0}, "improved"),  # what is left of the old one is not it
        (SLOW, {"r0": 10.0, "r2": 10.0}, "inconclusive"),
        (SLOW, {"r1": 10.0}, "inconclusive"),
        (FAILS, {"r0": 0.0, "r1": 0.009, "r2": 0.0}, "improved"),
        (FAILS, {"r0": 0.0, "r1": 0.02, "r2": 0.0}, "unchanged"),
        (FAILS, {"r0": 0.02, "r1": 0.02, "r2": 0.02}, "improved"),  # as its peers
        (DIFFERS, {"r0": 0.99, "r1": 0.985, "r2": 0.99}, "improved"),
        (DIFFERS, {"r0": 0.99, "r1": 0.97, "r2": 0.99}, "unchanged"),
        (LEAKS, {"r0": 1.0, "r1": 2.9, "r2": 1.0}, "improved"),
        (LEAKS, {"r0": 1.0, "r1": 2.95, "r2": 1.0}, "unchanged"),
        (LEAKS, {"r3": 1.0}, "improved"),  # no peer is needed
    ],
)
def test_the_verdict_is_on_the_replica(sick: dict[str, object], after: dict[str, float], verdict: str) -> None:
    found = judged(sick, after)
    assert found.verdict == verdict and found.resolved is True
    assert found.reason.endswith("(the service: P95 +0%)")


def test_a_service_that_got_worse_is_worse_whatever_the_replica_does() -> None:
    assert judged(SLOW, {"r0": 10.0, "r1": 10.0, "r2": 10.0}, "worse").verdict == "worse"


def test_the_sentence_holds_the_figures() -> None:
    said = judged(SLOW, {"r0": 10.0, "r1": 10.5, "r2": 10.0}).reason
    assert said.startswith("r1: mean compute time of a batch 10.5 ms, its peers 10 ms (before: 25 ms)")
