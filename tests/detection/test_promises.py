"""An SLO names any of four latencies: what each becomes in the file, in the rules and in incidents."""

from __future__ import annotations

import numpy as np
import pytest

from detection.detectors.rules import RULES, ThresholdRules, rules_for
from detection.incidents import symptom_of
from detection.model import OBJECTIVES, Anomaly, MetricWindow, Objective, Service, Slo, Span
from detection.settings import DetectionSettings
from detection.signals import SIGNALS
from tuning.services_yaml import ServicesFileError, loads

FOUR_LINES = """
mail: {to: [oncall@example.com]}
services:
  - name: chat
    serving: vllm
    selectors: {model_name: llama}
    slo: {ttft_p95: 800ms, itl_p95: 60ms}
"""


def test_a_language_model_needs_four_lines():
    service = loads(FOUR_LINES).services[0].to_service()
    assert service.slo.objectives == (
        Objective(signal="ttft_p95_ms", limit_ms=800, for_s=60),
        Objective(signal="itl_p95_ms", limit_ms=60, for_s=60),
    )
    assert service.slo.main.signal == "ttft_p95_ms" and service.slo.p95_ms is None


def test_each_promise_may_have_its_own_patience():
    text = FOUR_LINES.replace("itl_p95: 60ms", "itl_p95: 60ms, itl_p95_for: 5m, for: 10s")
    assert [one.for_s for one in loads(text).services[0].to_service().slo.objectives] == [10, 300]


def test_an_slo_that_promises_nothing_is_a_mistake():
    with pytest.raises(ServicesFileError) as caught:
        loads(FOUR_LINES.replace("ttft_p95: 800ms, itl_p95: 60ms", "error_rate: 1%"))
    assert "is missing (or ttft_p95, itl_p95, e2e_p95 of a language model, iteration of a training job)" in str(caught.value)
    with pytest.raises(ValueError, match="promises nothing"):
        Slo(error_rate=0.1)


def test_the_engines_limit_is_read_from_the_template_by_its_own_name():
    lever = (
        "    levers: {batch_size: {actuator: pod_spec, connection: c, namespace: n, target: t, arg: --max-num-seqs}}\n"
    )
    assert loads(FOUR_LINES + lever).services[0].to_service().levers["batch_size"].options["knob"] == "max_num_seqs"
    other = (FOUR_LINES + lever).replace("vllm", "triton").replace("ttft_p95: 800ms, itl_p95: 60ms", "p95: 1s")
    assert loads(other).services[0].to_service().levers["batch_size"].options["knob"] == "batch_size"


def service(**slo: float) -> Service:
    return Service(name="chat", serving="vllm", slo=Slo(**slo))


@pytest.mark.parametrize(
    ("slo", "names"),
    [
        ({"p95_ms": 100}, ["latency_p95", "latency_p99"]),
        ({"ttft_p95_ms": 100, "itl_p95_ms": 10}, ["ttft_p95", "itl_p95"]),
        ({"p95_ms": 100, "e2e_p95_ms": 200}, ["latency_p95", "latency_p99", "e2e_p95"]),
    ],
)
def test_each_promise_is_a_rule(slo, names):
    rules = rules_for(service(**slo), DetectionSettings())
    assert [rule.name for rule in rules][: len(names)] == names and rules[len(names)].name == "errors"
    assert set(names) <= set(RULES)


def test_a_promise_that_is_broken_for_long_enough_fires_under_its_own_name():
    chat = service(ttft_p95_ms=100.0, itl_p95_ms=10.0, itl_p95_for_s=30.0)
    span = Span(0, 120, 5)
    values = {"ttft_p95_ms": np.full(span.points, 50.0), "itl_p95_ms": np.where(span.times() >= 60, 12.0, 5.0)}
    window = {"chat": MetricWindow("chat", span, values)}
    detector = ThresholdRules([chat], DetectionSettings())
    assert [score.tier for score in detector.score(window, {}, 80.0)] == [None]
    (late,) = detector.score(window, {}, 120.0)
    assert (late.signal, late.tier) == ("itl_p95_ms", "act") and "ITL P95 is 12 ms: above 10 ms" in late.reason


def test_requests_that_end_without_an_answer_are_something_to_act_on():
    chat = service(ttft_p95_ms=100.0)
    span = Span(0, 120, 5)
    values = {"unanswered_rate": np.full(span.points, 1.0), "abort_rate": np.full(span.points, 0.5)}
    scores = ThresholdRules([chat], DetectionSettings()).score({"chat": MetricWindow("chat", span, values)}, {}, 120.0)
    assert {score.signal: score.tier for score in scores} == {"unanswered_rate": "act", "abort_rate": "warn"}


@pytest.mark.parametrize(
    ("signal", "symptom"),
    [
        *((signal, "training" if signal == "iteration_ms" else "latency") for signal in OBJECTIVES),
        ("itl_p50_ms", "latency"), ("preemptions_per_s", "saturation"), ("unanswered_rate", "unanswered"),
        ("rejected_per_s", "errors"),
    ],
)  # fmt: skip
def test_what_a_signal_is_a_symptom_of(signal, symptom):
    anomaly = Anomaly(id="a", service="chat", signal=signal, tier="act", since_s=0, at_s=1, observed=1.0, expected_low=None,
                      expected_high=None, score=1, detectors=("rules",), reason="")  # fmt: skip
    assert symptom_of(anomaly) == symptom and signal in SIGNALS


def test_without_traffic_there_is_no_first_token_and_no_incident():
    """A gap is neither 0 nor over the limit: nothing is said of a service that nobody asks, also where the last that was
    measured was a single slow answer."""
    chat = service(ttft_p95_ms=100.0, itl_p95_ms=10.0, for_s=60.0)
    span = Span(0, 600, 5)
    calm, slow = np.where(span.times() < 200, 5.0, np.nan), np.where(span.times() == 200, 900.0, np.nan)
    for values in (np.full(span.points, np.nan), calm, np.where(np.isnan(calm), slow, calm)):
        window = {"chat": MetricWindow("chat", span, {"ttft_p95_ms": values, "itl_p95_ms": values})}
        assert not any(score.tier for score in ThresholdRules([chat], DetectionSettings()).score(window, {}, 600.0))
