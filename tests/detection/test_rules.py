"""Threshold rules: for, keep_firing_for, hysteresis, gaps. One row per case."""

from __future__ import annotations

import numpy as np
import pytest

from detection.detectors.rules import ThresholdRules, rules_for
from detection.model import MetricWindow, Service, Slo, Span
from detection.rule import Rule, evaluate
from detection.settings import DetectionSettings, RuleOverride

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
