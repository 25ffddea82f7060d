"""Threshold rules: for, keep_firing_for, hysteresis, gaps. One row per case."""

from __future__ import annotations

import numpy as np
import pytest

from detection.detectors.rules import ThresholdRules, rules_for
from detection.model import MetricWindow, Service, Slo, Span
from detection.rule import Rule, evaluate
from detection.settings import DetectionSettings, LimitSettings, RuleOverride

N = float("nan")
RULE = Rule("r", "p95_ms", 100.0, "act", for_s=60, keep_firing_for_s=60, clear=90)
LOW = Rule("r", "busy", 0.1, "warn", for_s=60, keep_firing_for_s=0, below=True)


@pytest.mark.parametrize(
    ("rule", "values", "since"),
    [
        pytest.param(RULE, [50] * 8, None, id="never above"),
        pytest.param(RULE, [100] * 8, None, id="at the threshold is not above"),
        pytest.param(RULE, [50, 50, 120, 120, 120], None, id="not long enough"),
        pytest.param(RULE, [50, 120, 120, 120, 120, 120], 15, id="for reached: since the first breach"),
        pytest.param(RULE, [120, 120, 50, 120, 120], None, id="an interruption starts anew"),
        pytest.param(RULE, [120, 120, N, 120, 120], 0, id="a gap does not interrupt"),
        pytest.param(RULE, [120] * 5 + [50] * 3, 0, id="keeps firing for a while"),
        pytest.param(RULE, [120] * 5 + [50] * 4, None, id="and then lets go"),
        pytest.param(RULE, [120] * 5 + [95] * 9, 0, id="between clear and threshold it stays"),
        pytest.param(RULE, [120] * 5 + [50] * 3 + [120] + [50] * 3, 0, id="a relapse keeps the onset"),
        pytest.param(RULE, [N] * 8, None, id="no samples"),
        pytest.param(RULE, [], None, id="empty"),
        pytest.param(RULE, [120] + [N] * 8 + [120], None, id="a long gap starts anew"),
        pytest.param(LOW, [0.05] * 5, 0, id="below"),
        pytest.param(LOW, [0.5] * 5, None, id="not below"),
    ],
)
def test_evaluate(rule: Rule, values: list[float], since: float | None) -> None:
    times = 15.0 * np.arange(len(values))
    assert evaluate(rule, times, np.array(values, dtype=float)).since_s == since


@pytest.mark.parametrize(
    ("values", "beyond"),
    [([120] * 6, 75), ([120] * 5 + [50] * 3, 60), ([120] * 5 + [95] * 3, 60), ([120] * 5 + [50, N, N], 60), ([50] * 9, None)],
)
def test_it_says_when_it_was_last_beyond_its_limit(values: list[float], beyond: float | None) -> None:
    times = 15.0 * np.arange(len(values))
    assert evaluate(RULE, times, np.array(values, dtype=float)).beyond_s == beyond


def service(**slo: float) -> Service:
    return Service(name="s", serving="slotune_demo", slo=Slo(**{"p95_ms": 100.0, "for_s": 60.0, **slo}))


def window(**signals: float) -> dict[str, MetricWindow]:
    span = Span(0.0, 3600.0, 15.0)
    return {"s": MetricWindow("s", span, {name: np.full(span.points, value) for name, value in signals.items()})}


@pytest.mark.parametrize(
    ("signals", "fires"),
    [
        pytest.param({"p95_ms": 101}, {"p95_ms"}, id="p95 over the SLO"),
        pytest.param({"p95_ms": 99, "p99_ms": 301}, {"p99_ms"}, id="p99 at three times the SLO"),
        pytest.param({"error_rate": 0.02, "qps": 10}, {"error_rate"}, id="errors"),
        pytest.param({"error_rate": 0.5, "qps": 0.1}, set(), id="errors of six requests say nothing"),
        pytest.param({"queue_depth": 101}, {"queue_depth"}, id="queue backlog above 100"),
        pytest.param({"gpu_memory": 0.91}, {"gpu_memory"}, id="GPU memory above 90 %"),
        pytest.param({"load_failures": 0.011}, {"load_failures"}, id="load failures above 1 %"),
        pytest.param({"busy": 0.05}, {"busy"}, id="idle"),
        pytest.param({"p95_ms": 99, "error_rate": 0.0, "queue_depth": 3, "busy": 0.5}, set(), id="all well"),
    ],
)
def test_the_usual_rules(signals: dict[str, float], fires: set[str]) -> None:
    scores = ThresholdRules([service()], DetectionSettings()).score(window(**signals), {}, 3600.0)
    assert {score.signal for score in scores if score.tier} == fires


def test_overrides() -> None:
    settings = DetectionSettings(
        rules={
            "queue_backlog": RuleOverride(threshold=10, for_s=0, tier="warn"),
            "errors": RuleOverride(enabled=False),
            "quality": RuleOverride(threshold=0.9),
        }
    )
    rules = {rule.name: rule for rule in rules_for(service(), settings)}
    assert (rules["queue_backlog"].threshold, rules["queue_backlog"].for_s, rules["queue_backlog"].tier) == (
        10,
        0,
        "warn",
    )
    assert "errors" not in rules
    assert rules["quality"].threshold == 0.9
    assert "quality" not in {rule.name for rule in rules_for(service(), DetectionSettings())}


GPU = LimitSettings(name="gpu_busy", signal="gpu_util", above=0.9, for_s=300)


def fired(settings: DetectionSettings, **signals: float) -> list[tuple[str | None, str | None, str]]:
    detector = ThresholdRules([service()], settings)
    found = detector.score(window(**signals), {}, 3600.0)
    return [(score.signal, score.tier, score.reason) for score in found if score.tier]


def test_a_limit_of_ones_own_is_a_rule_beside_the_others() -> None:
    settings = DetectionSettings(limits=(GPU,))
    said = "GPU utilisation is 95 %: above 90 % for 3600 s (rule gpu_busy)"
    assert fired(settings, gpu_util=0.95) == [("gpu_util", "warn", said)]
    assert fired(settings, gpu_util=0.9) == []
    assert fired(DetectionSettings(), gpu_util=0.95) == []
    assert fired(settings, p95_ms=101.0)[0][:2] == ("p95_ms", "act")


def test_a_limit_needs_its_time_and_may_be_for_some_services_only() -> None:
    span = Span(0.0, 3600.0, 15.0)
    late = np.where(span.times() > 3600 - 240, 0.95, 0.5)
    windows = {"s": MetricWindow("s", span, {"gpu_util": late})}
    assert not [s for s in ThresholdRules([service()], DetectionSettings(limits=(GPU,))).score(windows, {}, 3600.0) if s.tier]
    soon = GPU.model_copy(update={"for_s": 120.0, "severity": "act"})
    found = ThresholdRules([service()], DetectionSettings(limits=(soon,))).score(windows, {}, 3600.0)
    assert [score.tier for score in found] == ["act"]
    elsewhere = GPU.model_copy(update={"services": ("other",)})
    assert fired(DetectionSettings(limits=(elsewhere,)), gpu_util=0.95) == []


def test_a_limit_may_be_a_floor() -> None:
    settings = DetectionSettings(limits=(LimitSettings(name="few", signal="replicas", below=2, severity="act"),))
    assert [found[:2] for found in fired(settings, replicas=1.0)] == [("replicas", "act")]
    assert fired(settings, replicas=2.0) == []


@pytest.mark.parametrize(
    ("newest", "words"),
    [
        (400.0, "P95 latency is 400 ms: above 100 ms for 3600 s (rule latency_p95)"),
        (80.0, "P95 latency went above 100 ms 3600 s ago and is 80 ms now (rule latency_p95)"),
    ],
    ids=["still above", "just back under it"],
)
def test_the_reason_does_not_contradict_itself(newest: float, words: str) -> None:
    made = window(p95_ms=400.0)["s"]
    made.values["p95_ms"][-2:] = newest
    (score,) = [s for s in ThresholdRules([service()], DetectionSettings()).score({"s": made}, {}, 3600.0) if s.tier == "act"]
    assert score.reason == words
