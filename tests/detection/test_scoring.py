"""Thresholds and comparisons of judging, as worked examples that can be checked by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detection import detectors, pipeline, scoring
from detection.baselines import BaselineSet, GroupBaseline
from detection.calibration import block_maxima, block_s_of, chance_per_block, conformal_threshold
from detection.detectors.clock import Clock
from detection.detectors.fluctuation import Fluctuation
from detection.detectors.local_outlier import LocalOutlier
from detection.detectors.pca_residual import PcaResidual
from detection.detectors.sigma import Sigma
from detection.ensemble import Votes
from detection.methods import Methods, View
from detection.model import MetricWindow, Score, Service, Slo, Span
from detection.panel import Floats, panel_at
from detection.series import running_max
from detection.settings import DetectionSettings
from detection.weekly import Habit

N = float("nan")
DAY_S = 86_400.0
SETTINGS = DetectionSettings(history_s=7 * DAY_S, min_history_s=3600.0)
METHODS = Methods.of({"clock": Clock(), "sigma": Sigma(), "pca_residual": PcaResidual(), "fluctuation": Fluctuation(2.0)})


def row(*values: float) -> Floats:
    return np.array([values], np.float32)


@pytest.mark.parametrize(
    ("value", "bands", "edges", "voted"),
    [
        pytest.param(5.0, {"a": (0.0, 2.0)}, (-2, 2), {"a": 2.5}, id="above"),
        pytest.param(-5.0, {"a": (0.0, 2.0)}, (-2, 2), {"a": 2.5}, id="below"),
        pytest.param(2.0, {"a": (0.0, 2.0)}, (-2, 2), {}, id="at the edge is inside"),
        pytest.param(5.0, {"a": (0.0, 2.0), "b": (4.0, 2.0)}, (0, 4), {"a": 2.5}, id="median of two edges"),
        pytest.param(5.0, {"a": (0.0, 2.0), "b": (N, 2.0)}, (-2, 2), {"a": 2.5}, id="an unknown centre is left out"),
        pytest.param(5.0, {"a": (0.0, 2.0), "b": (1.0, N)}, (-2, 2), {"a": 2.5}, id="an unknown width is left out"),
        pytest.param(
            9.0, {"a": (0.0, 1.0), "b": (0.0, 3.0), "c": (0.0, 8.0)}, (-3, 3), {"a": 9.0, "b": 3.0, "c": 1.125},
            id="of three the middle",
        ),
    ],
)  # fmt: skip
def test_expected(value: float, bands: dict[str, tuple[float, float]], edges: tuple[float, float], voted: dict[str, float]) -> None:
    low, high, found = scoring.expected(value, bands)
    assert (low, high) == edges
    assert found == pytest.approx(voted)


def test_expected_without_any_band() -> None:
    low, high, voted = scoring.expected(1.0, {"a": (N, 1.0)})
    assert np.isnan(low)
    assert np.isnan(high)
    assert voted == {}


def judged(warn: float, act: float = 0.0, joint: tuple[float, float] | None = None, own: float | None = None, now: float = 10.0) -> scoring.Judged:
    """One service of three signals at one time; p95_ms is the one that does anything."""
    stats = {
        "clock_center": np.full((3, 96), 1.0, np.float32), "clock_scale": np.full((3, 96), 0.25, np.float32),
        "mean": np.full(3, 2.0, np.float32), "sd": np.full(3, 1.0, np.float32), "least": np.zeros(3, np.float32),
    }  # fmt: skip
    x = np.full((3, 1), np.log1p(now), np.float32)
    view = View(x, np.array([0.0]), 300.0, stats)
    levels = [np.array([[[level], [0.0], [0.0]]], np.float32) for level in (warn, act)]
    joints = {"pca_residual": (row(joint[0]), row(joint[1]))} if joint is not None else {}
    rows = np.tile(np.array([3.0, 1.0, 0.0, 0.0, 0.0, 0.0], np.float32), (1, 1, 1))
    owned = {"fluctuation": np.array([[[own], [0.0]]], np.float32)} if own is not None else {}
    return scoring.Judged(view, levels[0], levels[1], joints, rows, owned)


GROUP = GroupBaseline(
    ("s",), ("p95_ms", "mean_ms", "qps"), 300.0, np.array([0.0]), np.array([7 * DAY_S]),
    {
        "pca_residual/basis": np.zeros((1, 6, 6), np.float32), "pca_residual/mean": np.zeros((1, 6), np.float32),
        "pca_residual/sd": np.ones((1, 6), np.float32), "own/fluctuation": np.full((1, 2), 1.5, np.float32),
    },
)  # fmt: skip


def told(case: scoring.Judged, group: GroupBaseline = GROUP, methods: Methods = METHODS) -> list[tuple[str, str | None, str | None]]:
    scores = scoring.scores_at(case, group, 0, 60.0, SETTINGS, methods)
    return [(score.detector, score.signal, score.tier) for score in scores]


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        pytest.param(judged(1.0, 1.0), [], id="at the threshold nothing"),
        pytest.param(judged(1.01), [("votes", "p95_ms", "warn")], id="above it a warning"),
        pytest.param(judged(1.01, 1.01), [("votes", "p95_ms", "act")], id="above both to act on"),
        pytest.param(judged(0.0, 1.01), [("votes", "p95_ms", "act")], id="act alone is enough"),
        pytest.param(judged(0.0, joint=(1.0, 1.0)), [], id="joint at the threshold nothing"),
        pytest.param(judged(0.0, joint=(1.01, 0.5)), [("pca_residual", "p95_ms", "warn")], id="joint above it"),
        pytest.param(judged(0.0, joint=(2.0, 2.0)), [("pca_residual", "p95_ms", "warn")], id="joint alone never acts"),
        pytest.param(
            judged(1.01, joint=(2.0, 2.0)), [("votes", "p95_ms", "warn"), ("pca_residual", "p95_ms", "act")],
            id="with a vote it acts",
        ),
        pytest.param(
            judged(1.0, joint=(2.0, 2.0)), [("pca_residual", "p95_ms", "warn")], id="a vote at its threshold is none"
        ),
        pytest.param(
            judged(1.01, joint=(2.0, 1.0)), [("votes", "p95_ms", "warn"), ("pca_residual", "p95_ms", "warn")],
            id="at the act threshold it warns",
        ),
        pytest.param(judged(0.0, own=1.0), [], id="fluctuation at the threshold"),
        pytest.param(judged(0.0, own=1.01), [("fluctuation", "p95_ms", "warn")], id="fluctuation above it"),
        pytest.param(judged(N, N, joint=(N, N), own=N), [], id="unknown is nothing"),
    ],
)  # fmt: skip
def test_what_reaches_a_tier(case: scoring.Judged, expected: list[tuple[str, str | None, str | None]]) -> None:
    assert told(case) == expected


def test_a_vote_is_explained_in_plain_units() -> None:
    (score,) = scoring.scores_at(judged(1.5, 1.2), GROUP, 0, 60.0, SETTINGS, METHODS)
    # clock: 1 +- 4 * 0.25 and sigma: 2 +- 3 * 1, on the log1p scale: median edges -0.5 and 3.5
    assert (score.observed, score.score, score.at_s) == (pytest.approx(10.0), pytest.approx(1.5), 60.0)
    assert score.expected_low == pytest.approx(np.expm1(-0.5), rel=1e-5)
    assert score.expected_high == pytest.approx(np.expm1(3.5), rel=1e-5)
    assert score.contributions == pytest.approx({"vote:clock": (np.log1p(10.0) - 1) / 1.0}, rel=1e-5)
    assert score.reason.endswith("expected -0.3935 to 32.12")


def test_the_habit_of_the_week_is_put_back_before_people_see_it() -> None:
    case = judged(1.5)
    flat = np.ones((3, 1), np.float32)
    habit = Habit(0.5 * flat, 0 * flat, flat)
    (score,) = scoring.scores_at(replace(case, view=replace(case.view, habit=habit)), GROUP, 0, 60.0, SETTINGS, METHODS)
    assert score.observed == pytest.approx(np.expm1(np.log1p(10.0) + 0.5), rel=1e-5)
    assert score.expected_high == pytest.approx(np.expm1(4.0), rel=1e-5)


@pytest.mark.parametrize(("days", "note"), [(7, ""), (8, ""), (3.5, "50% of the wanted history")])
def test_a_young_baseline_says_so(days: float, note: str) -> None:
    group = replace(GROUP, history_s=np.array([days * DAY_S]))
    (score,) = scoring.scores_at(judged(1.5), group, 0, 60.0, SETTINGS, METHODS)
    assert ("baseline rests on" in score.reason) == bool(note)
    assert note in score.reason
    assert scoring.trust(group, 0, SETTINGS) == min(1.0, days / 7)


def test_a_joint_score_names_who_has_most_to_do_with_it() -> None:
    (score,) = scoring.scores_at(judged(0.0, joint=(1.5, 0.5)), GROUP, 0, 60.0, SETTINGS, METHODS)
    assert score.contributions == pytest.approx({"p95_ms": 0.9, "mean_ms": 0.1, "qps": 0.0})
    assert score.reason == "pca_residual: unusual together, mostly p95_ms (90%), mean_ms (10%), qps (0%)"
    assert (score.score, score.kind) == (1.5, "joint")


def test_fluctuation_tells_how_many_times_as_much() -> None:
    (score,) = scoring.scores_at(judged(0.0, own=2.0), GROUP, 0, 60.0, SETTINGS, METHODS)
    # twice a threshold of 1.5, in units of a ratio of 2
    assert "6.0 times as much" in score.reason
    assert (score.kind, score.symptom) == ("own", "fluctuation")


@pytest.mark.parametrize(
    ("case", "warn", "act"),
    [
        pytest.param(judged(0.5, 0.2), 0.5, 0.2, id="votes"),
        pytest.param(judged(0.5, 0.2, joint=(0.9, 0.8)), 0.9, 0.5, id="joint acts as far as a vote agrees"),
        pytest.param(judged(0.9, 0.2, joint=(0.9, 0.3)), 0.9, 0.3, id="and as far as itself"),
        pytest.param(judged(0.5, 0.2, own=0.7), 0.7, 0.2, id="fluctuation only warns"),
    ],
)
def test_the_level_of_a_service(case: scoring.Judged, warn: float, act: float) -> None:
    assert scoring.service_level(case)[0, 0] == pytest.approx(warn)
    assert scoring.service_level(case, "act")[0, 0] == pytest.approx(act)


def test_an_unknown_level_is_no_level() -> None:
    case = judged(0.0)
    unknown = replace(case, warn=case.warn * N, act=case.act * N)
    assert np.isnan(scoring.service_level(unknown)).all()
    assert scoring.telling(unknown).tolist() == [False]


@pytest.mark.parametrize(("level", "tells"), [(1.0, False), (1.01, True)])
def test_columns_that_tell(level: float, tells: bool) -> None:
    assert scoring.telling(judged(level)).tolist() == [tells]
    assert scoring.telling(judged(0.0, joint=(level, 0.0))).tolist() == [tells]
    assert scoring.telling(judged(0.0, own=level)).tolist() == [tells]


@pytest.mark.parametrize(("value", "tier"), [(1.4, "warn"), (1.6, "act")])
def test_a_confirmer_confirms_above_its_own_limit(value: float, tier: str) -> None:
    class Says(LocalOutlier):
        def score(self, rows, arrays):  # type: ignore[no-untyped-def]
            return np.full(rows.shape[:2], value)

    methods = Methods.of({**METHODS.joints, "local_outlier": Says()})
    group = replace(GROUP, arrays={**GROUP.arrays, "local_outlier/reach": np.zeros((1, 1), np.float32)})
    assert told(judged(0.0, joint=(2.0, 2.0)), group, methods) == [("pca_residual", "p95_ms", tier)]
    # one that has learned nothing has no say
    assert told(judged(0.0, joint=(2.0, 2.0)), GROUP, methods) == [("pca_residual", "p95_ms", "warn")]


def test_block_maxima_end_at_the_last_point() -> None:
    scores = row(9, 1, 2, 3, 4, N)
    np.testing.assert_array_equal(block_maxima(scores, 300.0, 600.0), row(9, 3, 4))
    np.testing.assert_array_equal(block_maxima(row(9, 1, 2, 3, 4), 300.0, 600.0), row(2, 4))
    np.testing.assert_array_equal(block_maxima(row(N, N, 1, 2), 300.0, 600.0), row(N, 2))
    np.testing.assert_array_equal(block_maxima(row(1, 5), 300.0, 6000.0), row(5))


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        pytest.param(0.5, 2.0, id="of three, rank 2"),
        pytest.param(0.26, 3.0, id="rank 2.96 is rounded up"),
        pytest.param(0.25, 3.0, id="the largest is the rarest that three can tell"),
        pytest.param(0.125, 3.0 + 1.0 / np.log(3) * np.log(2), id="rarer than that: the exponential tail"),
        pytest.param(0.9, 1.0, id="never below the smallest"),
    ],
)
def test_conformal_threshold(p: float, expected: float) -> None:
    assert conformal_threshold(row(3, 1, 2), p)[0] == pytest.approx(expected, rel=1e-5)
    assert conformal_threshold(row(3, N, 1, 2, N), p)[0] == pytest.approx(expected, rel=1e-5)
    assert np.isnan(conformal_threshold(row(N, N), p)[0])


def test_the_budget_as_a_chance() -> None:
    assert chance_per_block(28.0 / 4) == 0.25
    assert chance_per_block(100.0) == 0.95
    assert chance_per_block(7.0, DAY_S) == 0.95
    assert block_s_of(7 * DAY_S) == 6 * 3600.0
    assert block_s_of(DAY_S) == 3 * 3600.0
    assert block_s_of(3600.0) == 3600.0


END_S = 1_700_006_400.0
SIGNALS = ("mean_ms", "p95_ms", "qps")
SERVICES = [Service(name=name, serving="x", slo=Slo(p95_ms=1e9)) for name in ("a", "b")]


def windows(points: int, end_s: float, seed: int) -> dict[str, MetricWindow]:
    span = Span(end_s - (points - 1) * 900.0, end_s, 900.0)
    rng = np.random.default_rng(seed)
    return {
        service.name: MetricWindow(service.name, span, {s: 50 * np.exp(0.05 * rng.normal(size=points)) for s in SIGNALS})
        for service in SERVICES
    }


RUNNING = DetectionSettings(history_step_s=900.0)


@pytest.fixture(scope="module")
def baselines() -> BaselineSet:
    return pipeline.learn(SERVICES, windows(4 * 96, END_S, 1), {}, RUNNING)


def judge(live: dict[str, MetricWindow], baselines: BaselineSet, settings: DetectionSettings = RUNNING, services: list[Service] = SERVICES) -> list[Score]:
    methods = detectors.chosen(services, settings)
    return scoring.judge(services, live, baselines, END_S + 3600, settings, methods)


def test_only_watched_services_with_windows_are_judged(baselines: BaselineSet) -> None:
    live = windows(48, END_S + 3600, 2)
    for window in live.values():
        window.values["p95_ms"][-1] *= 5
    assert {score.service for score in judge(live, baselines)} == {"a", "b"}
    assert {score.service for score in judge(live, baselines, services=SERVICES[:1])} == {"a"}
    assert {score.service for score in judge({"b": live["b"]}, baselines)} == {"b"}
    third = Service(name="c", serving="x", slo=Slo(p95_ms=1e9))
    (unknown,) = [s for s in judge({**live, "c": live["a"]}, baselines, services=[*SERVICES, third]) if s.service == "c"]
    assert (unknown.score, unknown.reason) == (None, "no baseline has been learned yet")


@pytest.mark.parametrize(("short_s", "abstains"), [(0.0, False), (1.0, True)])
def test_as_much_history_as_is_needed_is_enough(baselines: BaselineSet, short_s: float, abstains: bool) -> None:
    live = windows(48, END_S + 3600, 2)
    live["a"].values["p95_ms"][-1] *= 5
    settings = RUNNING.model_copy(update={"min_history_s": 4 * DAY_S + short_s})
    scores = judge(live, baselines, settings)
    assert [score.score is None for score in scores if score.signal is None] == ([True, True] if abstains else [])
    assert any(score.tier == "act" for score in scores) != abstains
    if abstains:
        assert scores[0].reason == "only 5760 min of history, 5760 are needed"


def test_a_column_is_judged_alike_alone_and_among_others(baselines: BaselineSet) -> None:
    live = windows(64, END_S + 3600, 3)
    for signal in SIGNALS:
        live["a"].values[signal][-6:] *= 1.5
    (group,) = baselines.groups
    panel = panel_at(live, group.services, group.signals, 900.0, END_S + 3600, 64)
    methods = detectors.chosen(SERVICES, RUNNING)
    many, alone = (scoring.judge_panel(panel, group, first, RUNNING, methods) for first in (50, 63))
    for name in ("warn", "act"):
        np.testing.assert_allclose(getattr(many, name)[:, :, -1], getattr(alone, name)[:, :, -1], rtol=1e-4)
    assert many.joint["pca_residual"][0].shape == (2, 14)
    for name, (warn, act) in many.joint.items():
        np.testing.assert_allclose(warn[:, -1], alone.joint[name][0][:, -1], rtol=1e-4)
        np.testing.assert_allclose(act[:, -1], alone.joint[name][1][:, -1], rtol=1e-4)
        # acting needs more than warning, and the odd service stands out
        assert (act <= warn).all()
    assert many.joint["pca_residual"][0][0, -1] > 1 > many.joint["pca_residual"][0][1, -1]
    np.testing.assert_allclose(many.own["fluctuation"][:, :, -1], alone.own["fluctuation"][:, :, -1], rtol=1e-4)


def test_what_moves_less_than_is_news_is_no_joint_anomaly(baselines: BaselineSet) -> None:
    live = windows(64, END_S + 3600, 3)
    for signal in SIGNALS:
        live["a"].values[signal][-6:] *= 1.5
    timid = RUNNING.model_copy(update={"min_effect": 2.0})
    (group,) = baselines.groups
    panel = panel_at(live, group.services, group.signals, 900.0, END_S + 3600, 64)
    methods = detectors.chosen(SERVICES, timid)
    warn, _ = scoring.judge_panel(panel, group, 50, timid, methods).joint["pca_residual"]
    # half as much again is a quarter of what would be news here; it counts on the mean of six judgements
    assert 0.15 < warn[0, -1] < 0.35
    # after the first of them it is a sixth of that
    assert warn[0, -6] < 0.1


def shifted(settings: DetectionSettings, baselines: BaselineSet, methods: Methods, signals: tuple[str, ...]) -> Floats:
    """The joint warn level of service a, whose signals are half as high again for the last six judgements."""
    live = windows(64, END_S + 3600, 3)
    for signal in signals:
        live["a"].values[signal][-6:] *= 1.5
    (group,) = baselines.groups
    panel = panel_at(live, group.services, group.signals, 900.0, END_S + 3600, 64)
    warn, act = scoring.judge_panel(panel, group, 50, settings, methods).joint["pca_residual"]
    assert (act <= warn).all()
    out: Floats = warn[0]
    return out


def test_what_no_single_signal_votes_for_has_to_be_stranger(baselines: BaselineSet) -> None:
    eager = RUNNING.model_copy(update={"min_effect": 0.001})
    methods = detectors.chosen(SERVICES, eager)
    (group,) = baselines.groups
    low, alone = (group.arrays[f"joint/pca_residual/{name}"][0] for name in ("warn", "alone"))
    voted = shifted(eager, baselines, methods, SIGNALS)
    silent = shifted(eager, baselines, replace(methods, bands={}), SIGNALS)
    assert alone > low
    assert voted[-1] / silent[-1] == pytest.approx(alone / low, rel=1e-4)


@pytest.mark.parametrize(
    ("signals", "seen", "expected"),
    [
        # thresholds: 2 in a single judgement, 1.5 twice running
        pytest.param(2, [1.8, 1.0], [0.9, 0.67], id="one judgement has to pass the higher one"),
        pytest.param(2, [1.8, 1.8], [0.9, 1.2], id="two running pass the lower one"),
        pytest.param(2, [1.8, N], [0.9, N], id="a gap is no second time"),
        pytest.param(2, [3.0, 1.0], [1.5, 0.67], id="one that is high enough"),
        pytest.param(1, [1.8, 1.8], [0.9, 0.9], id="a single signal has one threshold"),
    ],
)
def test_what_is_seen_twice_running_needs_less(signals: int, seen: list[float], expected: list[float]) -> None:
    scores = np.array([seen] * signals, np.float32)
    arrays = {f"threshold/{tier}": np.ones(signals, np.float32) for tier in ("warn", "act")}
    arrays |= {f"service/{by}": row(limit)[0] for by, limit in (("warn", 4.0), ("act", 2.0), ("twice", 1.5))}
    group = GroupBaseline(("a",), SIGNALS[:signals], 900.0, row(0.0)[0], row(0.0)[0], arrays)
    warn, act = scoring.vote_levels(group, Votes(scores, scores))
    np.testing.assert_allclose(act[0, 0], expected, atol=0.005)
    # what is acted on is a warning, too
    assert (np.nan_to_num(warn[0, 0]) >= np.where(np.array(expected) > 1.1, 0.75, 0)).all()
    assert (warn[0, 0, 1] > 1) == (signals == 2 and expected[1] > 1)


class CarriedByTheFirst(PcaResidual):
    """Says of every row that the first signal alone carries it."""

    def carried(self, rows: Floats, arrays: object, signals: int) -> Floats:
        out = np.zeros((*rows.shape[:2], signals), np.float32)
        out[..., 0] = 1
        return out


def test_a_joint_anomaly_is_news_where_what_carries_it_moved(baselines: BaselineSet) -> None:
    methods = detectors.chosen(SERVICES, RUNNING)
    carried = replace(methods, joints={**methods.joints, "pca_residual": CarriedByTheFirst()})
    assert shifted(RUNNING, baselines, methods, SIGNALS[1:])[-1] > 1
    assert shifted(RUNNING, baselines, carried, SIGNALS[1:])[-1] < 1
    assert shifted(RUNNING, baselines, carried, SIGNALS[:2])[-1] > 1


@pytest.mark.parametrize(("count", "expected"), [(1, [3, 1, 2, 0]), (2, [3, 3, 2, 2]), (9, [3, 3, 3, 3])])
def test_the_largest_of_the_last_few(count: int, expected: list[float]) -> None:
    assert running_max(row(3, 1, 2, 0), count).tolist() == [expected]


def test_a_level_of_nothing_is_nought_and_not_unknown() -> None:
    assert scoring.service_level(judged(0.0)).tolist() == [[0.0]]
