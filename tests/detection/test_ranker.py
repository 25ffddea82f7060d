"""The re-ranker: what it learns from labels, what it may move, and that it never moves what was promised."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detection.model import Anomaly
from detection.ranker import Held, Judge, Ranker, RankerUnusable
from detection.ranker_fitting import NEVER, Example, folds_of, learn, missing, out_of_fold, threshold_at, thresholds
from detection.ranking import ranked
from detection.settings import DetectionSettings, LearningSettings

SETTINGS = DetectionSettings(learning=LearningSettings(move_tiers=True))
NOW_S = 1_000.0


def examples(count: int = 120, services: int = 8, seed: int = 0) -> list[Example]:
    """Real problems are large changes that last; the detectors' own tier knows nothing of it."""
    rng = np.random.default_rng(seed)
    found = []
    for n in range(count):
        real = bool(rng.random() < 0.4)
        for seen in (1, 2, 4):
            known = {
                "change": float(rng.normal(4.0 if real else 1.5, 0.7)),
                "hour": float(rng.uniform(0, 24)),
                "tier_act": float(rng.random() < 0.3),
                "seen": float(seen),
            }
            found.append(Example(f"i{n}", f"s{n % services}", 60.0 * n + seen, known, real))
    return found


@pytest.fixture(scope="module")
def ranker() -> Ranker:
    return learn(examples(), NOW_S)


def anomaly(change: float = 1.0, **more: object) -> Anomaly:
    values = {
        "id": "a", "service": "s1", "signal": "p95_ms", "tier": "warn", "since_s": NOW_S, "at_s": NOW_S, "observed": 1.0,
        "expected_low": 0.0, "expected_high": 0.5, "score": 2.0, "detectors": ("clock", "level"), "reason": "P95 is high",
        "kinds": ("vote",), "evidence": {"change": change, "hour": 12.0, "tier_act": 0.0, "seen": 1.0},
    }  # fmt: skip
    return Anomaly.model_validate(values | more)


def test_it_finds_more_at_no_more_false_alarms_on_services_that_it_has_not_seen(ranker):
    held = ranker.held
    assert ranker.used and held.found > held.found_before and held.alarms <= held.alarms_before
    judge = Judge(ranker)
    fresh = examples(seed=5)
    said = judge.probabilities([e.evidence for e in fresh])
    real = np.array([e.real for e in fresh])
    assert said[real].mean() > 0.8 > 0.3 > said[~real].mean()


def test_the_same_labels_give_the_same_model_and_other_labels_another(ranker):
    assert learn(examples(), NOW_S).id == ranker.id != learn(examples(seed=1), NOW_S).id
    again = Ranker.from_bytes(ranker.to_bytes())
    assert again == ranker and again.id == ranker.id


def test_a_warning_that_was_mostly_real_is_raised_and_one_that_was_not_stays(ranker):
    large, small = ranked([anomaly(5.0), anomaly(1.0)], NOW_S, SETTINGS, Judge(ranker))
    assert (large.tier, small.tier) == ("act", "warn") and large.probability > 0.8 > 0.3 > small.probability
    assert next(iter(large.because)) == "change" and large.model == ranker.id
    assert "a real problem with" in large.reason and "so it is acted on" in large.reason
    assert "the size of the change" in large.reason


def test_the_contributions_are_shap_values_of_the_log_odds(ranker):
    judge = Judge(ranker)
    low, high = {"change": 1.0, "hour": 12.0}, {"change": 5.0, "hour": 12.0}
    gained = judge.because(high)["change"] - judge.because(low)["change"]
    p_low, p_high = judge.probabilities([low, high])
    logit = np.log(p_high / (1 - p_high)) - np.log(p_low / (1 - p_low))
    assert gained == pytest.approx(logit, rel=0.15)


@pytest.mark.parametrize(
    "one",
    [anomaly(0.1, tier="act", kinds=("rule",), evidence={}), anomaly(0.1, tier="act", kinds=("vote", "rule")),
     anomaly(0.1, tier="act", evidence={}), anomaly(9.0, evidence={}, signal="absent_data")],
)  # fmt: skip
def test_a_rule_and_what_has_no_evidence_is_never_touched(ranker, one):
    assert ranked([one], NOW_S, SETTINGS, Judge(ranker)) == [one]


def test_what_a_detector_only_keeps_standing_and_fluctuation_are_not_raised(ranker):
    stale = anomaly(5.0, at_s=NOW_S - 2 * SETTINGS.keep_firing_for_s)
    own = anomaly(5.0, kinds=("own",))
    assert [one.tier for one in ranked([stale, own], NOW_S, SETTINGS, Judge(ranker))] == ["warn", "warn"]


def test_an_act_that_was_mostly_nothing_only_warns(ranker):
    judge = Judge(dataclasses.replace(ranker, keep_at=0.5))
    (one,) = ranked([anomaly(0.5, tier="act")], NOW_S, SETTINGS, judge)
    assert one.tier == "warn" and "so it only warns" in one.reason


def test_one_that_did_no_better_on_unseen_services_is_told_and_moves_nothing(ranker):
    worse = dataclasses.replace(ranker, held=Held(40, 60, 20, 10, 20, 10, 0, 0))
    (one,) = ranked([anomaly(5.0)], NOW_S, SETTINGS, Judge(worse))
    assert one.tier == "warn" and one.probability is not None


def test_off_and_untaught_are_as_without_it(ranker):
    off = SETTINGS.model_copy(update={"learning": LearningSettings(rerank=False)})
    assert ranked([anomaly(5.0)], NOW_S, off, Judge(ranker)) == [anomaly(5.0)]
    assert ranked([anomaly(5.0)], NOW_S, SETTINGS, None) == [anomaly(5.0)]


@pytest.mark.parametrize("data", [b"", b"x" * 40, (2**40).to_bytes(8, "big"), (2).to_bytes(8, "big") + b"{}"])
def test_damaged_bytes_are_a_sentence(data):
    with pytest.raises(RankerUnusable, match="learned again"):
        Ranker.from_bytes(data)


def test_damaged_trees_are_a_sentence(ranker):
    with pytest.raises(RankerUnusable, match="trees cannot be read"):
        Judge(dataclasses.replace(ranker, trees=b"{}"))


@pytest.mark.parametrize(
    ("count", "words"), [(0, "60 more labelled incidents"), (10, "50 more labelled"), (59, "1 more labelled")]
)
def test_it_says_how_many_labels_are_missing(count, words):
    assert words in missing(examples(count), LearningSettings())
    assert not missing(examples(120), LearningSettings())


def test_labels_of_one_kind_alone_teach_nothing():
    real = [dataclasses.replace(one, real=True) for one in examples(200)]
    assert missing(real, LearningSettings()) == "200 incidents are labelled (200 real); needed: 15 more of them no real problems"


def test_a_service_is_never_judged_by_trees_that_have_seen_it():
    many = examples(60, services=8)
    fold_of = {}
    for one, fold in zip(many, folds_of(many), strict=True):
        assert fold_of.setdefault(one.service, fold) == fold
    few = examples(60, services=2)
    by_incident = {}
    for one, fold in zip(few, folds_of(few), strict=True):
        assert by_incident.setdefault(one.incident_id, fold) == fold
    assert len(set(by_incident.values())) == 5


def test_thresholds_leave_all_as_it_is_where_nothing_is_better():
    real = np.array([True, True, False, False])
    assert thresholds(real, real, np.array([0.1, 0.2, 0.8, 0.9])) == (0.0, NEVER)


def test_thresholds_find_more_at_no_more_false_alarms():
    real = np.array([True, True, True, False, False])
    act = np.array([True, False, False, True, False])
    keep_at, raise_at = thresholds(real, act, np.array([0.9, 0.8, 0.7, 0.1, 0.2]))
    assert keep_at == raise_at and 0.2 < raise_at <= 0.7


@pytest.mark.parametrize(
    ("alarms", "found"), [(0, {0.9, 0.8}), (1, {0.9, 0.8, 0.6}), (2, {0.9, 0.8, 0.6}), (9, {0.9, 0.8, 0.6})]
)
def test_a_threshold_finds_most_within_its_false_alarms_and_makes_none_for_nothing(alarms, found):
    chance = np.array([0.9, 0.8, 0.7, 0.6, 0.2])
    real = np.array([True, True, False, True, False])
    at = threshold_at(real, chance, alarms)
    assert set(chance[real & (chance >= at)]) == found
    assert (chance[~real] >= at).sum() == (1 if 0.6 in found else 0)


def test_where_no_threshold_finds_anything_none_is_reached():
    assert threshold_at(np.array([False, True]), np.array([0.9, 0.1]), 0) == NEVER
    assert threshold_at(np.array([], bool), np.array([]), 3) == NEVER


def test_what_is_known_of_the_unseen_need_not_be_found_out_again(ranker):
    assert learn(examples(), NOW_S, out_of_fold(examples())) == ranker


@pytest.mark.parametrize(
    ("found", "alarms", "right", "wrong", "better"),
    [(25, 10, 5, 0, True), (25, 10, 4, 0, False), (25, 10, 12, 7, False), (20, 5, 5, 0, True), (23, 11, 20, 1, False),
     (24, 11, 20, 1, True), (19, 0, 20, 1, False), (20, 10, 0, 0, False)],
)  # fmt: skip
def test_it_is_used_only_where_it_is_better_and_that_is_no_luck(found, alarms, right, wrong, better):
    assert Held(40, 60, 20, 10, found, alarms, right, wrong).better is better


def test_labels_that_mean_nothing_move_nothing():
    """A person who tosses a coin teaches nothing: thresholds chosen on it do not hold on the services left out."""
    used = []
    for seed in range(6):
        rng = np.random.default_rng(seed)
        coin = {f"i{n}": bool(rng.random() < 0.5) for n in range(100)}
        used.append(learn([dataclasses.replace(e, real=coin[e.incident_id]) for e in examples(100, seed=seed)], 0.0).used)
    assert not any(used)
