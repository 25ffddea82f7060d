"""When a release is to blame: worked examples with series of either version, scattered by seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detection.model import Anomaly, Incident, MetricWindow, Span
from tests.fakes.planning import AT_S, make_observation, make_service, make_settings
from tests.tuning.planning.test_diagnosis import SITUATION
from tuning.model import Release, Setting
from tuning.planning.diagnosis import diagnose
from tuning.planning.reading import read_now
from tuning.planning.releases import blamed, fresh, suspect
from tuning.planning.settings import PlanningSettings

STEP_S = 15.0
POINTS = 240
AGE = 20
"""Points since the release."""
RELEASE_S = AT_S - AGE * STEP_S
SETTINGS = PlanningSettings()
CALM = {"qps": 60.0, "rows_per_batch": 2.0, "batch_ms": 12.0, "p95_ms": 60.0, "mean_ms": 30.0, "queue_ms": 5.0, "queue_depth": 1.0, "busy": 0.5, "error_rate": 0.001, "replicas": 2.0, "batch_size": 8.0}


def release(old: str = "6", new: str = "7", *, at_s: float = RELEASE_S, hands: str = "others", proven: str = "6") -> Release:
    return Release(id=f"{old}{new}{at_s}", service="ranker", old=old, new=new, at_s=at_s, whole_s=at_s, seen_s=at_s + 30, hands=hands, proven=proven)


def incident(onset_s: float = RELEASE_S + 60, **also: float) -> Incident:
    def anomaly(signal: str, since_s: float, tier: str) -> Anomaly:
        return Anomaly(id=f"{signal}{since_s}", service="ranker", signal=signal, tier=tier, since_s=since_s, at_s=AT_S, observed=1, expected_low=0, expected_high=1, score=2, detectors=("x",), reason="x")

    found = (anomaly("p95_ms", onset_s, "act"), *(anomaly(name, since_s, "warn") for name, since_s in also.items()))
    return Incident(id="i", service="ranker", symptom="latency", tier="act", severity="critical", opened_at_s=min(a.since_s for a in found), detected_at_s=AT_S, signals=("p95_ms",), anomalies=found, reason="x")


def window(after: dict[str, float], *, seed: int = 0, began: int = AGE, scatter: float = 0.05, without: tuple[str, ...] = (), before: dict[str, float] | None = None) -> MetricWindow:
    """CALM until the release (or `began` points before the end), `after` from then on, each scattered by AR(1) noise."""
    rng = np.random.default_rng(seed)
    values = {}
    for name, level in {**CALM, **(before or {})}.items():
        if name in without:
            continue
        series = np.full(POINTS, level)
        series[-began:] = after.get(name, level)
        noise = np.zeros(POINTS)
        for k in range(1, POINTS):
            noise[k] = 0.6 * noise[k - 1] + rng.normal(0, 0.8 * scatter)
        values[name] = series if name in ("replicas", "batch_size") else np.maximum(series * np.exp(noise), 0)
    return MetricWindow("ranker", Span(AT_S - (POINTS - 1) * STEP_S, AT_S, STEP_S), values, "histogram")


def seen(after: dict[str, float], releases=None, *, settings=None, slo_drop: float | None = None, **kwargs):
    made = make_observation(service=make_service(), settings=settings or make_settings())
    if slo_drop is not None:
        made = dataclasses.replace(made, service=made.service.model_copy(update={"slo": made.service.slo.model_copy(update={"accuracy_drop": slo_drop})}))
    return dataclasses.replace(made, window=window(after, **kwargs), releases=tuple(releases or (release(),)))


def found(after: dict[str, float], *, overloaded: bool = False, onset_s: float = RELEASE_S + 60, **kwargs):
    return blamed(incident(onset_s), seen(after, **kwargs), SETTINGS, overloaded=overloaded)


SLOW = {"batch_ms": 30.0, "p95_ms": 400.0, "mean_ms": 150.0, "busy": 0.95}


def test_a_batch_of_the_same_size_that_takes_longer_is_blamed_with_ratio_and_interval():
    told = found(SLOW)
    assert told.release.new == "7" and told.slower.low <= 2.5 <= told.slower.high
    sentence = told.moved[0].sentence
    assert "with version 7" in sentence and "with version 6" in sentence and "the load does not explain it" in sentence
    assert "replaced version 6" in told.came and "60 s before this began" in told.came


def test_longer_batches_of_more_rows_are_the_loads_doing():
    """A line of 8 + 2 rows: four times the load fills batches."""
    line = {"rows_per_batch": 8.0, "batch_ms": 8 + 2 * 8.0, "qps": 240.0, "p95_ms": 400.0, "busy": 0.98, "queue_depth": 200.0}
    assert found(line, overloaded=True) is None


def test_fuller_batches_at_the_same_load_are_blamed_and_the_factor_is_told_as_far_as_it_is_known():
    told = found({"rows_per_batch": 6.0, "batch_ms": 60.0, "p95_ms": 400.0, "busy": 0.99}, overloaded=True)
    assert told is not None and "no more is asked for than before" in told.moved[0].sentence
    assert told.slower.high / told.slower.low > 1.5, "nobody saw batches of six with version 6"


FASTER = {"qps": 120.0, "p95_ms": 400.0, "busy": 0.99, "queue_depth": 90.0}
"""Twice the load beside the release."""


def test_more_load_in_the_same_minute_hides_no_version_whose_rows_take_longer_in_larger_batches():
    """8 ms + 2 ms a row, 2.7 times slower: batches of 2 rows took 12 ms, those of 4 rows take 43 ms."""
    told = found(FASTER | {"rows_per_batch": 4.0, "batch_ms": 2.7 * 16.0}, overloaded=True)
    assert [moved.what for moved in told.moved] == ["service_time"]
    sentence = told.moved[0].sentence
    assert "each row takes 1.8 times as long" in sentence and "larger batches make no row longer" in sentence
    assert told.slower.low < 1.8 and told.slower.low <= 2.7 <= told.slower.high


@pytest.mark.parametrize(
    "after",
    [
        {"rows_per_batch": 4.0, "batch_ms": 24.0},
        {"rows_per_batch": 4.0, "batch_ms": 26.0},
        {"rows_per_batch": 1.0, "batch_ms": 10.0},
        {"rows_per_batch": 4.0, "batch_ms": 43.0, "batch_size": 16.0},
    ],
    ids=["as its rows one by one", "hardly more", "smaller batches: rows take longer in them", "another batch limit"],
)
def test_what_the_rows_of_a_batch_explain_is_not_the_versions_fault(after):
    assert found(FASTER | after, overloaded=True) is None


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ({"batch_ms": 12.6, "p95_ms": 400.0}, "five per cent are a line's own misfit"),
        ({"p95_ms": 400.0, "queue_ms": 200.0, "qps": 120.0, "busy": 0.99, "queue_depth": 90.0}, "a queue alone"),
        ({"p95_ms": 400.0, "replicas": 1.0, "busy": 0.99, "rows_per_batch": 4.0, "batch_ms": 14.0}, "a lost replica"),
    ],
)
def test_what_a_version_does_not_explain_is_not_its_fault(after, why):
    assert found(after, overloaded=True) is None, why


@pytest.mark.parametrize("began", [AGE + 40, AGE - 14])
def test_what_began_before_the_release_or_well_after_it_is_not_its_fault(began):
    assert found(SLOW, began=began) is None


@pytest.mark.parametrize(
    ("releases", "onset_s", "new"),
    [
        ((release(),), RELEASE_S + 60, "7"),
        ((release(),), RELEASE_S - 2 * STEP_S, "7"),
        ((release(hands="slotune"),), RELEASE_S + 60, None),
        ((release("5", "6", at_s=RELEASE_S - 900), release()), RELEASE_S + 60, "7"),
        ((release(), release("7", "8", at_s=RELEASE_S + 120)), RELEASE_S + 60, None),
        ((release(), release("7", "6", at_s=RELEASE_S + 120, hands="slotune")), RELEASE_S + 60, None),
        ((), RELEASE_S + 60, None),
    ],
    ids=["before", "with the onset", "our own", "the newest", "its owner is at work", "taken back", "none"],
)
def test_who_is_suspected(releases, onset_s, new):
    made = dataclasses.replace(seen(SLOW), releases=releases)
    told = suspect(incident(onset_s), made, SETTINGS)
    assert (told.new if told is not None else None) == new


@pytest.mark.parametrize(("points_before", "new"), [(2, "7"), (3, None), (30, None)])
def test_a_release_that_came_after_the_onset_is_not_suspected(points_before, new):
    """P95 was broken so many points before the release was seen, and has been since; a rate window is two points."""
    made = seen(SLOW, began=AGE + points_before + 1)
    told = suspect(incident(RELEASE_S - points_before * STEP_S), made, SETTINGS)
    assert (told.new if told is not None else None) == new


def test_an_incident_that_is_still_open_from_an_earlier_trouble_does_not_clear_it():
    """What the incident was opened for had passed: every promise was kept when the release came."""
    assert suspect(incident(RELEASE_S - 1800), seen(SLOW), SETTINGS) is not None


def test_a_warning_from_before_the_release_does_not_clear_it():
    """The traffic was unusual first; what hurts came after the release."""
    assert suspect(incident(RELEASE_S + 60, qps=RELEASE_S - 600), seen(SLOW), SETTINGS) is not None


def test_a_version_that_serves_no_more_is_not_suspected():
    settings = {**make_settings(), "release": Setting(lever="release", values={"version": "8"})}
    assert suspect(incident(), seen(SLOW, settings=settings), SETTINGS) is None


def test_errors_are_blamed_where_the_service_could_answer_more():
    told = found({"error_rate": 0.08})
    assert [moved.what for moved in told.moved] == ["errors"] and told.slower is None
    assert "8." in told.moved[0].sentence and "+" in told.moved[0].sentence


def test_errors_of_a_full_queue_are_not_blamed_on_a_release_of_the_same_minute():
    flooded = {"error_rate": 0.3, "qps": 200.0, "busy": 1.0, "queue_depth": 900.0, "p95_ms": 4000.0, "rows_per_batch": 8.0, "batch_ms": 24.0}
    assert found(flooded, overloaded=True) is None


def test_errors_under_more_load_that_could_still_be_carried_are_blamed():
    told = found({"error_rate": 0.1, "qps": 80.0, "busy": 0.92}, overloaded=True)
    assert [moved.what for moved in told.moved] == ["errors"]


def test_a_few_failed_requests_of_a_quiet_service_are_luck():
    """Two more of a hundred are no proof, however the share looks."""
    few = {"qps": 0.3, "error_rate": 0.01}
    assert found({"error_rate": 0.022}, before=few) is None


def test_wrong_answers_are_blamed_where_accuracy_is_measured():
    told = found({"accuracy": 0.85}, before={"accuracy": 0.95}, scatter=0.01)
    assert [moved.what for moved in told.moved] == ["accuracy"]
    assert "accuracy is 8" in told.moved[0].sentence
    assert found({"accuracy": 0.945}, before={"accuracy": 0.95}, scatter=0.01) is None
    assert found({"accuracy": 0.90}, before={"accuracy": 0.95}, scatter=0.01, slo_drop=0.2) is None


@pytest.mark.parametrize("left_out", [("rows_per_batch", "batch_ms", "queue_depth"), ("rows_per_batch", "batch_ms", "mean_ms", "queue_depth", "queue_ms", "busy")])
def test_without_batch_times_latency_at_equal_load_tells(left_out):
    told = found({"p95_ms": 400.0, "mean_ms": 150.0}, without=left_out)
    assert told is not None and "no more is asked for than before" in told.moved[0].sentence
    assert found({"p95_ms": 400.0, "mean_ms": 150.0, "qps": 120.0}, without=left_out) is None


def test_without_the_queues_length_a_flood_that_is_not_answered_hides_the_load():
    """Answered as much as before and busy all the time: what is asked for cannot be told, so nothing is blamed."""
    flood = {"p95_ms": 4000.0, "rows_per_batch": 8.0, "batch_ms": 24.0, "qps": 66.0, "busy": 1.0}
    assert found(flood, overloaded=True, without=("queue_depth",)) is None
    fallen = {"p95_ms": 4000.0, "rows_per_batch": 8.0, "batch_ms": 240.0, "qps": 40.0, "busy": 1.0}
    assert found(fallen, overloaded=True, without=("queue_depth",)) is not None, "the service itself carries less"


def test_tokens_at_equal_concurrency_tell_for_a_language_model():
    calm = {"running": 8.0, "itl_ms": 20.0}
    without = ("rows_per_batch", "batch_ms")
    told = found({"itl_ms": 50.0}, before=calm, without=without)
    assert "a token, with " in told.moved[0].sentence and told.slower.low <= 2.5 <= told.slower.high
    assert found({"itl_ms": 35.0, "running": 24.0, "qps": 200.0}, before=calm, without=without) is None


def test_too_few_points_of_either_version_blame_nobody():
    made = seen(SLOW)
    cut = dataclasses.replace(made, window=made.window.between(RELEASE_S - 2 * STEP_S, AT_S))
    assert blamed(incident(), cut, SETTINGS, overloaded=True) is None
    early = dataclasses.replace(made, window=made.window.between(0, RELEASE_S + STEP_S))
    assert blamed(incident(), early, SETTINGS, overloaded=True) is None


def test_of_many_harmless_releases_hardly_one_is_blamed_and_of_bad_ones_nearly_all_are():
    """Two hundred harmless series each alone in trouble of another kind: P95 broken by a queue."""
    trouble = {"p95_ms": 400.0, "queue_ms": 200.0}
    false = [seed for seed in range(200) if found({**trouble, "batch_ms": 12.0}, seed=seed, scatter=0.08)]
    right = [seed for seed in range(40) if found({**trouble, "batch_ms": 18.0}, seed=seed, scatter=0.08)]
    assert len(false) <= 1 and len(right) >= 38


@pytest.mark.parametrize(("rate_windows", "told"), [(0.1, True), (0.9, True), (4.0, False)])
def test_a_release_is_too_fresh_to_be_judged_for_a_rate_window_and_a_few_points(rate_windows, told):
    at_s = AT_S - rate_windows * SETTINGS.rate_window_s
    said = fresh(incident(at_s + 1), seen(SLOW, [release(at_s=at_s)], began=2), SETTINGS)
    left_s = (1 - rate_windows) * SETTINGS.rate_window_s + 3 * STEP_S
    assert said == (f"version 7 replaced version 6 {AT_S - at_s:.0f} s ago by other hands, and whether it is to blame shows in {left_s:.0f} s: it is looked at again then" if told else "")


def test_what_began_before_the_release_or_came_by_our_own_hands_waits_for_nothing():
    at_s = AT_S - 5.0
    assert fresh(incident(at_s - 600), seen(SLOW, [release(at_s=at_s)]), SETTINGS) == ""
    assert fresh(incident(at_s + 1), seen(SLOW, [release(at_s=at_s, hands="slotune")], began=2), SETTINGS) == ""
    assert fresh(incident(at_s + 1), make_observation(), SETTINGS) == ""


@pytest.mark.parametrize(("onset_of_accuracy", "cause"), [(RELEASE_S + 30, "bad_release"), (None, "healthy")])
def test_wrong_answers_count_whatever_the_incident_is_called_by(onset_of_accuracy, cause):
    """A latency opened it and is over; the answers are wrong since the release."""
    what = incident(RELEASE_S + 60)
    if onset_of_accuracy is not None:
        wrong = what.anomalies[0].model_copy(update={"id": "a", "signal": "accuracy", "since_s": onset_of_accuracy})
        what = what.model_copy(update={"anomalies": (*what.anomalies, wrong)})
    shown = seen({"accuracy": 0.8}, before={"accuracy": 0.97}, scatter=0.005)
    shown = dataclasses.replace(shown, settings={})
    situation = dataclasses.replace(SITUATION, now=read_now(shown, SETTINGS))
    assert diagnose(what, shown, situation, SETTINGS).cause == cause


def test_one_wrong_answer_just_before_the_release_is_chance_where_most_windows_have_none():
    """Four requests a second: a rate window counts so few that a single wrong answer is a point of them or more."""
    made = seen({"accuracy": 0.77, "qps": 4.0}, before={"accuracy": 1.0, "qps": 4.0}, scatter=0.0)
    accuracy = made.window.values["accuracy"]
    accuracy[-AGE - 4 : -AGE] = 1 - 1 / (4.0 * SETTINGS.rate_window_s)
    told = blamed(incident(RELEASE_S + 60), made, SETTINGS, overloaded=False)
    assert told is not None and [moved.what for moved in told.moved] == ["accuracy"]


@pytest.mark.parametrize("points_before", [5, 12])
def test_answers_that_were_wrong_before_the_release_are_not_its_fault(points_before):
    made = seen({"accuracy": 0.77}, before={"accuracy": 1.0}, scatter=0.0, began=AGE + points_before)
    assert blamed(incident(RELEASE_S + 60), made, SETTINGS, overloaded=False) is None
