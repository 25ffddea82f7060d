"""A change is judged on the promise that was broken; the others, and tokens, are its guards; resolved needs all."""

from __future__ import annotations

import numpy as np
import pytest

from detection.model import MetricWindow, Objective, Slo, Span
from tests.fakes.planning import AT_S
from tuning.model import Diagnosis, Option, Plan
from tuning.ports import Evidence
from tuning.verification.before_after import BeforeAfterVerifier
from tuning.verification.settings import VerificationSettings

TTFT = Objective(signal="ttft_p95_ms", limit_ms=500)
SLO = Slo(ttft_p95_ms=500, itl_p95_ms=50)
BEFORE = {"ttft_p95_ms": 9400.0, "itl_p95_ms": 30.0, "p95_ms": 12000.0, "qps": 4.0, "generation_tokens_per_s": 280.0,
          "queue_depth": 15.0, "abort_rate": 0.0, "unanswered_rate": 0.0}  # fmt: skip
AFTER = BEFORE | {"ttft_p95_ms": 300.0, "queue_depth": 0.0, "p95_ms": 2500.0}


def side(levels, start_s, seed):
    rng = np.random.default_rng(seed)
    span = Span(start_s, start_s + 175, 5.0)
    values = {name: level * np.exp(0.03 * rng.normal(size=span.points)) for name, level in levels.items()}
    return Evidence(window=MetricWindow("chat", span, values), slo=SLO, objective=TTFT)


def judge(after, before=BEFORE):
    plan = Plan(id="p", incident_id="i", service="chat", decided_at_s=AT_S, mode="act", objective=TTFT,
                diagnosis=Diagnosis(cause="kv_cache_full"), chosen=Option(changes=()))  # fmt: skip
    verifier = BeforeAfterVerifier(VerificationSettings(min_requests=50))
    return verifier.judge(plan, side(before, AT_S - 300, 1), side(after, AT_S, 2))


def test_the_broken_promise_is_what_is_judged():
    found = judge(AFTER)
    assert (found.verdict, found.resolved) == ("improved", True)
    assert found.p95_before_ms == pytest.approx(9400, rel=0.05) and found.p95_after_ms == pytest.approx(300, rel=0.05)
    assert found.reason.startswith("TTFT P95 ")


@pytest.mark.parametrize(
    ("after", "guard", "words"),
    [
        ({"itl_p95_ms": 70.0}, "itl_p95_ms", "over its limit of 50 ms"),
        ({"generation_tokens_per_s": 150.0, "queue_depth": 40.0}, "generation_tokens_per_s", "generated tokens fell"),
        ({"unanswered_rate": 0.2}, "unanswered_rate", "requests that ended without an answer rose from 0.00%"),
        ({"abort_rate": 0.2}, "abort_rate", "requests that were aborted rose"),
    ],
)
def test_a_win_that_loses_elsewhere_is_none(after, guard, words):
    found = judge(AFTER | after, BEFORE | ({"queue_depth": 0.0} if guard == "generation_tokens_per_s" else {}))
    held = {g.signal: g for g in found.guards}
    if guard == "generation_tokens_per_s":
        # more waits than before, so that less was not asked for
        grew = AFTER | after
        found = judge_growing(grew)
        held = {g.signal: g for g in found.guards}
    assert not held[guard].ok and words in held[guard].reason
    assert found.verdict == "worse"


def judge_growing(after):
    plan = Plan(id="p", incident_id="i", service="chat", decided_at_s=AT_S, mode="act", objective=TTFT,
                diagnosis=Diagnosis(cause="kv_cache_full"), chosen=Option(changes=()))  # fmt: skip
    late = side(after, AT_S, 2)
    values = dict(late.window.values) | {"queue_depth": np.linspace(0, 400, late.window.span.points)}
    late = Evidence(window=MetricWindow("chat", late.window.span, values), slo=SLO, objective=TTFT)
    return BeforeAfterVerifier(VerificationSettings(min_requests=50)).judge(plan, side(BEFORE, AT_S - 300, 1), late)


def test_a_promise_that_was_broken_before_and_is_no_worse_stops_nothing_and_is_not_resolved():
    found = judge(AFTER | {"itl_p95_ms": 72.0}, BEFORE | {"itl_p95_ms": 70.0})
    assert all(g.ok for g in found.guards if g.signal == "itl_p95_ms")
    assert (found.verdict, found.resolved) == ("improved", False)


def test_a_promise_of_which_nothing_is_seen_cannot_be_told():
    after = {name: level for name, level in AFTER.items() if name != "itl_p95_ms"}
    found = judge(after)
    assert (found.verdict, found.resolved) == ("improved", None)


def test_fewer_tokens_of_a_load_that_went_are_no_loss():
    found = judge(AFTER | {"generation_tokens_per_s": 150.0, "qps": 3.9})
    assert {g.signal: g.ok for g in found.guards}["generation_tokens_per_s"]
