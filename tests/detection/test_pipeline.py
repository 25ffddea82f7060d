"""Learning and detecting: what a user relies on, and that replay and live sweep say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from detection import pipeline
from detection.backtest.recorded import to_grid
from detection.backtest.replay import Replay
from detection.backtest.run import Plan, replay_group
from detection.baselines import BaselineSet, BaselineUnreadable
from detection.drift import check_drift
from detection.model import Anomaly, MetricWindow, Service, Slo, Span
from detection.peers import compare
from detection.settings import DetectionSettings, LearningSettings

SETTINGS = DetectionSettings()
SIGNALS = ("p95_ms", "mean_ms", "qps", "queue_depth", "error_rate")
END_S = 1_700_006_400.0
SERVICES = [Service(name=f"s{i}", serving="slotune_demo", slo=Slo(p95_ms=1000)) for i in range(3)]


def windows(start_s: float, end_s: float, step_s: float = 300.0, seed: int = 0) -> dict[str, MetricWindow]:
    span = Span(start_s, end_s, step_s)
    rng = np.random.default_rng(seed)
    day = 1 + 0.3 * np.sin(2 * np.pi * span.times() / 86_400)
    level = {"p95_ms": 30.0, "mean_ms": 15.0, "qps": 200.0, "queue_depth": 20.0, "error_rate": 0.001}
    return {
        service.name: MetricWindow(
            service.name, span, {s: level[s] * day * np.exp(0.05 * rng.normal(size=span.points)) for s in SIGNALS}
        )
        for service in SERVICES
    }


@pytest.fixture(scope="module")
def history() -> dict[str, MetricWindow]:
    return windows(END_S - 4 * 86_400, END_S)


@pytest.fixture(scope="module")
def baselines(history: dict[str, MetricWindow]) -> BaselineSet:
    return pipeline.learn(SERVICES, history, {}, SETTINGS)


def test_a_slow_service_is_found_explained_and_the_others_are_left_alone(baselines: BaselineSet) -> None:
    live = windows(END_S - 7200, END_S + 600, 60.0, seed=1)
    for name in ("p95_ms", "mean_ms"):
        live["s1"].values[name][-10:] *= 4
    anomalies, _, _ = pipeline.detect(SERVICES, live, baselines, END_S + 600, SETTINGS)
    assert {a.service for a in anomalies} == {"s1"}
    p95 = next(a for a in anomalies if a.signal == "p95_ms")
    assert p95.tier == "act"
    assert len(p95.detectors) >= 3
    assert p95.observed is not None
    assert p95.expected_high is not None
    assert p95.observed > p95.expected_high
    assert "expected" in p95.reason


def test_rules_work_without_any_baseline() -> None:
    live = windows(END_S - 600, END_S, 15.0)
    live["s0"].values["p95_ms"][:] = 2000.0
    anomalies, scores, _ = pipeline.detect(SERVICES, live, BaselineSet(), END_S, SETTINGS)
    assert [(a.service, a.signal, a.tier) for a in anomalies] == [("s0", "p95_ms", "act")]
    abstained = {s.service: s.reason for s in scores if s.score is None}
    assert set(abstained) == {"s0", "s1", "s2"}
    assert all(abstained.values())


def test_a_service_without_series_is_absent_and_one_that_vanished_is_worse() -> None:
    live = windows(END_S - 3600, END_S, 60.0)
    del live["s0"]
    for values in live["s1"].values.values():
        values[-5:] = np.nan
    anomalies, _, _ = pipeline.detect(SERVICES, live, BaselineSet(), END_S, SETTINGS)
    assert {a.service: (a.signal, a.tier) for a in anomalies} == {
        "s0": ("absent_data", "warn"),
        "s1": ("absent_data", "act"),
    }


def test_a_new_service_says_how_much_it_trusts_its_baseline() -> None:
    young = {"s0": windows(END_S - 1800, END_S)["s0"]}
    learned = pipeline.learn(SERVICES[:1], young, {}, SETTINGS)
    _, scores, _ = pipeline.detect(
        SERVICES[:1], windows(END_S - 7200, END_S + 300, 60.0), learned, END_S + 300, SETTINGS
    )
    assert any("min of history" in s.reason for s in scores if s.score is None)
    assert 0 < learned.trust("s0", SETTINGS.history_s) < 0.01


def test_bytes_and_back(baselines: BaselineSet) -> None:
    back = BaselineSet.from_bytes(baselines.to_bytes())
    live = windows(END_S - 7200, END_S + 600, 60.0, seed=1)
    live["s1"].values["p95_ms"][-10:] *= 4
    assert pipeline.detect(SERVICES, live, back, END_S + 600, SETTINGS) == pipeline.detect(
        SERVICES, live, baselines, END_S + 600, SETTINGS
    )
    for broken in (b"", b"nonsense", baselines.to_bytes()[:1000]):
        with pytest.raises(BaselineUnreadable, match="learned again"):
            BaselineSet.from_bytes(broken)


def test_an_open_alarm_freezes_the_baseline_for_a_day(baselines: BaselineSet) -> None:
    level = windows(END_S - 4 * 86_400, END_S, seed=3)
    for values in level["s1"].values.values():
        values *= 3
    frozen = pipeline.learn(SERVICES, level, {}, SETTINGS, baselines, {"s1": END_S - 3600})
    relearned = pipeline.learn(SERVICES, level, {}, SETTINGS, baselines, {"s1": END_S - 2 * 86_400})

    def median(found: BaselineSet) -> float:
        group = next(g for g in found.groups if "s1" in g.services)
        row = group.services.index("s1") * len(group.signals) + group.signals.index("p95_ms")
        return float(np.expm1(group.arrays["series/q50"][row]))

    assert median(frozen) == pytest.approx(30, rel=0.1)
    assert median(relearned) == pytest.approx(90, rel=0.1)


def test_incidents_are_left_out_of_what_is_learned(history: dict[str, MetricWindow]) -> None:
    spoiled = {name: replace(w, values={s: v.copy() for s, v in w.values.items()}) for name, w in history.items()}
    spoiled["s0"].values["p95_ms"][-300:-200] *= 10
    times = history["s0"].span.times()
    learned = pipeline.learn(SERVICES, spoiled, {"s0": [(times[-300], times[-201])]}, SETTINGS)
    group = learned.groups[0]
    row = group.services.index("s0") * len(group.signals) + group.signals.index("p95_ms")
    assert np.expm1(group.arrays["series/q99"][row]) < 60


def test_replay_and_live_sweep_say_the_same(history: dict[str, MetricWindow]) -> None:
    whole = windows(END_S - 4 * 86_400, END_S + 4 * 3600, seed=5)
    for name in ("p95_ms", "queue_depth"):
        whole["s2"].values[name][-40:-20] *= 5
    replay = Replay(SERVICES, whole, SETTINGS, learn_every_s=12 * 3600.0, done_s=END_S)
    for _ in replay.run():
        pass
    past = {name: w.between(END_S - SETTINGS.history_s, END_S) for name, w in whole.items()}
    learned, state = pipeline.learn(SERVICES, past, {}, SETTINGS), None
    quiet = SETTINGS.model_copy(update={"detectors": tuple(n for n in SETTINGS.detectors if n != "rules")})
    for index, at_s in enumerate(replay.verdicts["s2"].times):
        live = {name: w.between(at_s - pipeline.lookback_s(SETTINGS, 300.0), at_s) for name, w in whole.items()}
        anomalies, _, state = pipeline.detect(SERVICES, live, learned, at_s, quiet, state)
        for service in SERVICES:
            tiers = {a.tier for a in anomalies if a.service == service.name}
            assert replay.verdicts[service.name].act[index] == ("act" in tiers), (service.name, index)
            assert replay.verdicts[service.name].warn[index] == bool(tiers), (service.name, index)
    assert any(replay.verdicts["s2"].act)


def flagged(values: np.ndarray, tier: str, step_s: float = 300.0) -> float:
    at = END_S + step_s * np.arange(values.size)
    (outcome,) = replay_group([to_grid("x", at, {"value": values})], Plan(SETTINGS, 6 * 3600.0), lambda _: None)
    return float(outcome.frame[tier].mean())


@pytest.mark.parametrize("tier", ["act", "warn"])
def test_noise_constants_and_small_steps_raise_next_to_nothing(tier: str) -> None:
    rng = np.random.default_rng(7)
    assert flagged(rng.normal(10, 1, 4 * 288), tier) < 0.01
    assert flagged(np.full(4 * 288, 50.0), tier) == 0
    for level in (0.0, 1.0, 50.0, 1000.0):
        blip = np.full(4 * 288, level)
        blip[-100:-88] += 1
        assert flagged(blip, tier) == 0, level


def test_a_change_of_unit_is_seen() -> None:
    rng = np.random.default_rng(8)
    values = 0.03 * np.exp(0.1 * rng.normal(size=4 * 288))
    values[-50:] *= 1000  # seconds became milliseconds
    assert flagged(values, "act") > 0


def test_signals_that_come_and_go(baselines: BaselineSet) -> None:
    live = windows(END_S - 7200, END_S + 300, 60.0, seed=2)
    short = live["s0"].values.pop("mean_ms")
    live["s1"] = MetricWindow("s1", live["s1"].span, {**live["s1"].values, "gpu_util": short})
    anomalies, _, _ = pipeline.detect(SERVICES, live, baselines, END_S + 300, SETTINGS)
    assert [a for a in anomalies if a.tier == "act"] == []


def test_one_slow_replica_among_three() -> None:
    made = {f"r{i}": windows(END_S - 600, END_S, 15.0, seed=i)["s0"] for i in range(3)}
    assert compare(SERVICES[:1], {"s0": made}, END_S, SETTINGS) == []
    made["r1"].values["p95_ms"][:] *= 40
    scores = compare(SERVICES[:1], {"s0": made}, END_S, SETTINGS)
    assert [(s.replica, s.signal, s.tier) for s in scores] == [("r1", "p95_ms", "act")]
    assert compare(SERVICES[:1], {"s0": {"r1": made["r1"]}}, END_S, SETTINGS) == []


def test_drift_needs_two_days_and_is_judged_by_its_own_past() -> None:
    rng = np.random.default_rng(4)
    span = Span(END_S - 10 * 86_400 + 300, END_S, 300.0)
    calm = MetricWindow("s", span, {"input_mean": 5 + rng.normal(size=span.points)})
    assert not check_drift(calm, "input_mean").drifted
    moved = calm.values["input_mean"].copy()
    moved[-288:] += 3
    assert not check_drift(MetricWindow("s", span, {"input_mean": moved}), "input_mean").drifted
    moved[-576:-288] += 3
    assert check_drift(MetricWindow("s", span, {"input_mean": moved}), "input_mean").drifted
    young = check_drift(calm.between(END_S - 2 * 86_400, END_S), "input_mean")
    assert young.psi is None
    assert "needed" in young.reason


def test_what_is_odd_comes_with_evidence_and_a_rule_with_none(baselines: BaselineSet) -> None:
    live = windows(END_S - 7200, END_S + 600, 60.0, seed=1)
    live["s1"].values["mean_ms"][-10:] *= 4
    live["s2"].values["p95_ms"][-10:] = 2000.0
    anomalies, _, state = pipeline.detect(SERVICES, live, baselines, END_S + 600, SETTINGS)
    found = {(a.service, a.signal): a.evidence for a in anomalies}
    known = found["s1", "mean_ms"]
    assert known["agreeing"] >= 3 and known["change"] > 5 and known["upwards"] == 1 and known["tier_act"] == 1
    assert known["band_level"] > 1 and known["worse_up"] == 1 and known["signals"] == len(SIGNALS) and known["seen"] == 1
    assert found["s2", "p95_ms"] == {}
    again, _, _ = pipeline.detect(SERVICES, live, baselines, END_S + 600, SETTINGS, state)
    assert next(a for a in again if a.signal == "mean_ms" and a.service == "s1").evidence["seen"] == 2


def test_without_a_model_learning_changes_nothing(baselines: BaselineSet) -> None:
    live = windows(END_S - 7200, END_S + 600, 60.0, seed=1)
    live["s1"].values["mean_ms"][-10:] *= 4
    off = SETTINGS.model_copy(update={"learning": LearningSettings(rerank=False, adapt=False)})
    with_, without = (pipeline.detect(SERVICES, live, baselines, END_S + 600, one)[0] for one in (SETTINGS, off))
    assert any(one.evidence for one in with_) and not any(one.evidence for one in without)
    assert [one.model_copy(update={"evidence": {}}) for one in with_] == without


def test_replay_and_live_sweep_know_the_same() -> None:
    live = windows(END_S - 4 * 86_400, END_S + 3600, 300.0, seed=1)
    live["s1"].values["mean_ms"][-12:] *= 4
    replay = Replay(SERVICES, live, SETTINGS, 86_400.0)
    heard: dict[float, Sequence[Anomaly]] = {}
    replay.hear = heard.__setitem__
    for _ in replay.run():
        pass
    at_s = END_S + 3600 - 11 * 300.0
    (replayed,) = (a for a in heard[at_s] if a.service == "s1" and a.signal == "mean_ms")
    seen = {name: window.between(at_s - pipeline.lookback_s(SETTINGS, 300.0), at_s) for name, window in live.items()}
    swept, _, _ = pipeline.detect(SERVICES, seen, replay.baselines, at_s, SETTINGS)
    (one,) = (a for a in swept if a.service == "s1" and a.signal == "mean_ms")
    assert one.evidence.keys() == replayed.evidence.keys() and len(one.evidence) > 30
    own_clock = {"seen", "age_s"}
    assert {k: v for k, v in one.evidence.items() if k not in own_clock} == pytest.approx(
        {k: v for k, v in replayed.evidence.items() if k not in own_clock}, rel=1e-2, abs=1e-2
    )
