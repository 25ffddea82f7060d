"""A whole rehearsal: figures, words, page, and every kind of history that is no ground for one."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from detection.errors import ConfigError
from detection.model import MetricWindow, Span
from slotune.cli import build_app
from slotune.rehearsal.counterfactual import Counterfactual, History, usual
from slotune.rehearsal.document import COLUMNS, document, rows
from slotune.rehearsal.drivers import drivers
from slotune.rehearsal.episodes import episodes
from slotune.rehearsal.history import from_recording, problem, save
from slotune.rehearsal.loop import rehearse
from slotune.rehearsal.page import page
from slotune.rehearsal.reading import recordings
from slotune.rehearsal.rivals import Autoscaler
from slotune.rehearsal.study import WARM_UP_S, study
from slotune.rehearsal.words import render, summary
from tests.slotune.rehearsal.worlds import SERVICE, START_S, STEP_S, history
from tuning.services_yaml import loads

SERVICES = """
prometheus: {rate_window: 60s, step: 15s}
schedule: {watch_every: 60s}
detection: {lookback: 20m, detectors: [rules]}
safety: {cool_down: 0s}
services:
  - name: ranker
    serving: triton
    selectors: {model: ranker}
    slo: {p95: 100ms, for: 60s}
    levers:
      replicas: {connection: kube, min: 1, max: 6, namespace: a, target: b, cost_per_hour: 2.0, effect_delay: 30s}
"""


def with_(recorded: History, **values) -> History:
    return replace(recorded, window=replace(recorded.window, values={**recorded.window.values, **values}))


def overloaded(points: int = 300) -> History:
    """One replica of batches of one (8.5 ms) and 100 requests a second; from the middle on 130 come, and queue."""
    span = Span(START_S, START_S + (points - 1) * STEP_S, STEP_S)
    since = np.maximum(0.0, (np.arange(points) - points // 2) * STEP_S)
    rng = np.random.default_rng(3)
    noise = np.exp(0.02 * rng.standard_normal(points))
    depth = np.where(since > 0, (130 - 117.6) * since, 3.0)
    wait_ms = np.where(since > 0, 1e3 * depth / 117.6, 28.0)
    values = {
        "qps": np.where(since > 0, 117.6, 100.0), "p95_ms": (80.0 + np.where(since > 0, wait_ms, 0.0)) * noise,
        "mean_ms": wait_ms + 8.5, "queue_ms": wait_ms, "batch_ms": 8.5 * noise, "rows_per_batch": np.ones(points),
        "queue_depth": depth, "replicas": np.ones(points), "batch_size": np.ones(points),
        "busy": np.where(since > 0, 1.0, 0.85), "error_rate": np.zeros(points),
    }  # fmt: skip
    return History(MetricWindow("ranker", span, values, "histogram"), {})


@pytest.fixture(scope="module")
def found():
    return study(loads(SERVICES), {"ranker": overloaded()}, "<b>", lambda _share: None).rehearsal


def test_an_overload_is_cured_and_the_figures_say_what_is_modelled(found):
    (service,) = found.services
    one = found.incidents[0]
    assert one.how == "cured", one
    assert "replicas" in one.changes[0]
    assert service.recorded_min == pytest.approx(37.0, abs=1.0)
    assert service.minutes.value < 0.3 * service.recorded_min
    assert service.minutes.low <= service.minutes.value <= service.minutes.high
    assert 0.0 < service.saved.value <= service.recorded_min
    assert service.replica_hours_added > 0
    assert service.cost_added == pytest.approx(2.0 * service.replica_hours_added)
    assert 0.0 < one.rehearsed_min.modelled < 1.0 and one.off is not None and one.off < 0.3


def test_others_are_compared_in_the_same_run(found):
    rivals = {rival.name: rival for rival in found.services[0].rivals}
    assert list(rivals) == ["as recorded", "slotune", "HPA at its defaults", "oracle on replicas"]
    assert rivals["oracle on replicas"].minutes <= rivals["slotune"].minutes < rivals["as recorded"].minutes
    assert rivals["as recorded"].changes == 0


def test_words_page_and_documents_say_the_same(found):
    sentence = summary(found)
    assert "would have been cured" in sentence and "SLO minutes saved" in sentence
    assert sentence in render(found)
    html = page([found, found])
    assert "With &lt;b&gt;" in html and "<b>&lt;" not in html and html.count("<svg") == 2 * len(found.incidents)
    body = json.loads(json.dumps(document(found)))
    assert body["summary"] == sentence and body["services"][0]["incidents"][0]["how"] == "cured"
    assert all(len(row) == len(COLUMNS) for row in rows(found))


def test_a_quiet_history_is_left_alone():
    quiet = study(loads(SERVICES), {"ranker": history()}, "x", lambda _share: None).rehearsal
    assert quiet.incidents == () and quiet.services[0].changes == 0 and quiet.services[0].modelled == 0.0
    assert "no incident, 0 changes on" in summary(quiet)
    assert "nothing would have been changed" in page([quiet])


def test_what_the_model_explains_badly_cannot_be_told():
    """P95 is three times what any queue of these batches makes: something else is slow."""
    recorded = overloaded()
    odd = with_(
        recorded, p95_ms=recorded.window.values["p95_ms"] * np.where(recorded.window.values["busy"] == 1.0, 3, 1)
    )
    told = study(loads(SERVICES), {"ranker": odd}, "x", lambda _share: None).rehearsal
    assert told.incidents[0].how == "cannot tell" and "off on the recorded setting" in told.incidents[0].reason


def test_levers_that_no_rehearsal_can_lend_are_named_where_they_might_have_helped():
    with_restart = SERVICES.replace(
        "levers:\n      replicas: {connection: kube, min: 1, max: 6, namespace: a, target: b, cost_per_hour: 2.0, "
        "effect_delay: 30s}",
        "levers:\n      restart: {actuator: kubernetes_restart, connection: kube, namespace: a, target: b}",
    )
    assert "restart:" in with_restart
    told = study(loads(with_restart), {"ranker": overloaded()}, "x", lambda _share: None).rehearsal
    (one,) = told.incidents
    assert (one.how, one.changes, one.not_lent) == ("held", (), ("restart",))
    assert "Cannot tell whether restart would have helped" in one.reason
    assert "Not lent in a rehearsal: restart." in told.services[0].notes
    assert "Cannot tell whether restart" in render(told) and "Not lent" in page([told])
    assert dict(zip(COLUMNS, rows(told)[0], strict=True))["not_lent"] == "restart"


GOOD = history()
N = GOOD.window.span.points


@pytest.mark.parametrize(
    ("recorded", "said"),
    [
        (history(points=3), "has 3 points of P95 over 0 minutes"),
        (with_(GOOD, batch_ms=np.full(N, np.nan)), "has no mean compute time of a batch (batch_ms)"),
        (with_(GOOD, p95_ms=np.where(np.arange(N) % 3 == 0, 25.0, np.nan)), "67% of the history of ranker are gaps"),
        (with_(GOOD, qps=np.where(np.arange(N) == 99, -5e4, 100.0)), "negative at 1 points: a counter that was reset"),
        (with_(GOOD, qps=np.cumsum(np.full(N, 1500.0))), "only grows, like a counter"),
        (with_(GOOD, p95_ms=np.full(N, 0.025)), "in another unit than ms"),
        (with_(GOOD, batch_ms=np.full(N, 8500.0)), "another unit than ms"),
        (with_(GOOD, error_rate=np.full(N, 12.0)), "a share of 1, no percentage"),
    ],
)
def test_what_is_no_ground_is_said_in_a_sentence(recorded, said):
    assert said in problem(recorded, SERVICE)
    with pytest.raises(ConfigError, match="nothing can be rehearsed"):
        study(loads(SERVICES), {"ranker": recorded}, "x", lambda _share: None)


def test_histories_of_different_times_are_rehearsed_apart():
    later = GOOD.window.span.start_s + 86_400.0
    span = Span(later, later + (N - 1) * STEP_S, STEP_S)
    other = replace(GOOD, window=replace(GOOD.window, service="other", span=span))
    settings = loads(SERVICES + SERVICES[SERVICES.index("  - name") :].replace("ranker", "other"))
    with pytest.raises(ConfigError, match="under 30 minutes in common"):
        study(settings, {"ranker": GOOD, "other": other}, "x", lambda _share: None)


def test_a_good_history_has_no_problem_and_a_language_model_cannot_be_rehearsed():
    assert problem(GOOD, SERVICE) == ""
    assert "cannot model yet" in problem(GOOD, SERVICE.model_copy(update={"engine": "continuous_batching"}))


def test_recordings_come_back_as_they_were_saved(tmp_path):
    save(tmp_path, {"ranker": GOOD})
    read = from_recording(tmp_path / "ranker.csv")
    assert read.window.span == GOOD.window.span
    for name, values in GOOD.window.values.items():
        np.testing.assert_array_equal(read.window.values[name], values)
    with pytest.raises(ConfigError, match=r"there is no service 'ranker' in services\.yaml; it has: other"):
        recordings(tmp_path / "ranker.csv", {"other": SERVICE})
    with pytest.raises(ConfigError, match="no such file or folder"):
        recordings(tmp_path / "nowhere", {"ranker": SERVICE})


def test_the_command_from_files_to_files(tmp_path):
    (tmp_path / "services.yaml").write_text(SERVICES)
    (tmp_path / "other.yaml").write_text(SERVICES.replace("max: 6", "max: 1"))
    save(tmp_path / "recorded", {"ranker": overloaded(200)})
    arguments = [
        "rehearse", "--recorded", str(tmp_path / "recorded"), "--config", str(tmp_path / "services.yaml"),
        "--settings", str(tmp_path / "other.yaml"), "--html", str(tmp_path / "page.html"),
        "--csv", str(tmp_path / "incidents.csv"), "--work", str(tmp_path / "work"), "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(build_app(["rehearse"]), arguments, catch_exceptions=False)
    assert done.exit_code == 0
    first, second = json.loads(done.stdout)
    assert first["services"][0]["minutes"]["value"] < second["services"][0]["minutes"]["value"]
    assert second["services"][0]["changes"] == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert len((tmp_path / "incidents.csv").read_text().splitlines()) >= 3


def test_the_command_ends_in_a_sentence_where_there_is_nothing(tmp_path):
    (tmp_path / "services.yaml").write_text(SERVICES)
    with pytest.raises(ConfigError, match="there is no service 'rnker'"):
        CliRunner().invoke(
            build_app(["rehearse"]),
            [
                "rehearse",
                "--recorded",
                str(tmp_path),
                "--config",
                str(tmp_path / "services.yaml"),
                "--service",
                "rnker",
            ],
            catch_exceptions=False,
        )


def test_the_autoscaler_follows_its_published_algorithm():
    scaler = Autoscaler(2, 10)
    assert scaler.wanted(0.0, 0.86, 2, 2) == 2, "within the tolerance"
    assert scaler.wanted(15.0, 1.0, 4, 4) == 5
    assert scaler.wanted(30.0, 1.0, 1, 1) == 2, "never below its bound"
    assert scaler.wanted(100.0, 0.2, 5, 5) == 5, "the highest recommendation of 300 s holds it up"
    assert scaler.wanted(420.0, 0.2, 5, 5) == 2


def test_a_loop_that_goes_on_from_a_mark_with_the_same_service_does_the_same():
    """What an interval is drawn from differs by its draw alone."""
    recorded = overloaded()
    done = study(loads(SERVICES), {"ranker": recorded}, "x", lambda _share: None).rehearsed
    settings = done.again.settings
    causes = drivers(recorded.window, SERVICE, settings.prometheus.rate_window_s)
    (service,) = settings.service_values()
    (one,) = episodes(done.records)

    def world(at_s: float) -> Counterfactual:
        return Counterfactual(
            service, recorded, causes, usual(causes, service), settings.prometheus.rate_window_s, at_s
        )

    begun = recorded.window.span.start_s + WARM_UP_S
    first = world(begun)
    rehearse(settings, {"ranker": first}, begun, one.opened_s + 1800.0, lambda _share: None)
    start_s = done.again.last(one.attempts[0].plan.decided_at_s)
    assert start_s is not None and start_s > begun
    twin = Counterfactual.beside(world(begun), usual(causes, service), recorded, start_s)
    done.again.run(twin, start_s, one.opened_s + 1800.0)
    assert twin.made == first.made and twin.made
    np.testing.assert_array_equal(twin.window.values["p95_ms"], first.window.values["p95_ms"])
    slower = replace(usual(causes, service), pace=1.6, seed=7)
    other = Counterfactual.beside(world(begun), slower, recorded, start_s)
    done.again.run(other, start_s, one.opened_s + 1800.0)
    assert not np.array_equal(other.window.values["p95_ms"], first.window.values["p95_ms"], equal_nan=True)
