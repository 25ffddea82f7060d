"""Training jobs: what is wrong is found, a calm job is left alone, and what is not known is not guessed."""

from __future__ import annotations

import shutil
import time

import numpy as np
import pytest

from detection import presets
from detection.baselines import BaselineSet
from detection.detectors.training import TrainingJobs
from detection.incidents import open_incidents
from detection.model import MetricWindow, Service, Slo, Span
from detection.pipeline import detect, signals_needed
from detection.settings import DetectionSettings
from detection.sources.prometheus import PrometheusSource
from detection.training import LEAST_POINTS, TRAINING_SIGNALS, findings
from tests.prometheus_pages import scraped

POINTS, STEP_S = 120, 60.0
REPORT = 500
"""First seed of those that no threshold was chosen on."""


def ar1(rng, phi, sigma):
    noise = np.empty(POINTS)
    noise[0] = rng.normal() * sigma
    for i in range(1, POINTS):
        noise[i] = phi * noise[i - 1] + rng.normal() * sigma * np.sqrt(1 - phi**2)
    return noise


def job(seed: int, kind: str = "calm", without: tuple[str, ...] = ()) -> MetricWindow:
    """Two hours of a job with a falling loss, scattered by its seed; `kind` is what goes wrong, in its second half."""
    rng, t = np.random.default_rng([seed, 5]), np.arange(POINTS)
    iteration = np.log(rng.uniform(80, 2000)) + ar1(rng, rng.uniform(0, 0.85), rng.uniform(0.01, 0.08))
    k = POINTS - int(rng.integers(POINTS // 6, POINTS // 2))
    since, factor = np.maximum(t - k, 0) / (POINTS - k), rng.uniform(1.35, 2.5)
    iteration += np.log(factor) * {"step": 1.0 * (t >= k), "trend": 1.5 * since}.get(kind, 0.0)
    iteration = np.exp(iteration)
    end, pace = rng.uniform(0.02, 0.4), rng.uniform(0.3, 3) * POINTS
    loss = rng.uniform(0.3, 3) * (end + (1 - end) * np.exp(-t / pace))
    loss *= np.exp(ar1(rng, rng.uniform(0, 0.6), rng.uniform(0.005, 0.04)))
    if kind == "rise":
        loss *= np.exp(since * rng.uniform(0.5, 1.5))
    if kind == "flat":
        loss = 2.0 * np.exp(ar1(rng, 0.0, 0.003))
    wait = iteration * (rng.uniform(0.35, 0.8) if kind == "data" else rng.uniform(0, 0.2))
    rate = 1e3 / iteration
    gpu = np.clip(rng.uniform(0.1, 0.4) if kind == "gpu" else rng.uniform(0.65, 0.98) + ar1(rng, 0.3, 0.03), 0, 1)
    values = {"iteration_ms": iteration, "iterations_per_s": rate, "data_wait_ms": wait, "loss": loss,
              "gpu_util": np.broadcast_to(gpu, (POINTS,)).copy()}  # fmt: skip
    if kind == "stall":
        rate[k:], iteration[k:], wait[k:] = 0.0, np.nan, np.nan
    if kind == "nan":
        loss[k:] = np.nan
    return MetricWindow("job", Span(0, (POINTS - 1) * STEP_S, STEP_S), {n: v for n, v in values.items() if n not in without})


def names(window: MetricWindow) -> list[str]:
    return [one.name for one in findings(window)]


def test_a_calm_job_is_left_alone():
    wrong = [seed for seed in range(REPORT, REPORT + 200) if names(job(seed))]
    assert len(wrong) <= 2, wrong


@pytest.mark.parametrize(
    ("kind", "name", "least"),
    [("step", "slower_iterations", 0.9), ("trend", "slower_iterations", 0.9), ("stall", "training_stalled", 1.0), ("rise", "loss_rising", 0.7),
     ("nan", "loss_rising", 1.0), ("data", "data_bound", 1.0), ("gpu", "gpu_rests", 1.0), ("flat", "loss_flat", 0.9)],
)  # fmt: skip
def test_what_is_wrong_is_found_and_nothing_else(kind, name, least):
    found = [names(job(seed, kind)) for seed in range(REPORT, REPORT + 100)]
    assert sum(name in one for one in found) >= least * 100
    assert sum(set(one) - {name} != set() for one in found) <= 3


def test_a_growth_is_told_from_a_step_and_both_are_placed():
    for kind, grows in (("step", False), ("trend", True)):
        told = [one for seed in range(40) for one in findings(job(seed, kind)) if one.name == "slower_iterations"]
        assert sum("more with every minute" in one.sentence for one in told) == (len(told) if grows else 0)
    step = job(3)
    step.values["iteration_ms"][80:] *= 2.0
    (one,) = findings(step)
    assert one.since_s == pytest.approx(80 * STEP_S, abs=2 * STEP_S)
    assert one.observed / one.usual == pytest.approx(2.0, rel=0.1) and "2.0 times as long" in one.sentence


@pytest.mark.parametrize(
    ("kind", "without", "found"),
    [("data", ("data_wait_ms",), []), ("gpu", ("gpu_util",), []), ("gpu", ("data_wait_ms",), ["gpu_rests"]), ("stall", ("iterations_per_s",), []),
     ("rise", ("loss",), []), ("nan", ("iterations_per_s",), []), ("step", ("iteration_ms", "data_wait_ms"), [])],
)  # fmt: skip
def test_what_is_not_exported_says_nothing(kind, without, found):
    assert names(job(2, kind, without)) == found


def test_too_few_samples_say_nothing():
    made = job(2, "data")
    assert names(made.between(made.span.end_s - (LEAST_POINTS - 2) * STEP_S, made.span.end_s)) == []


def test_a_loss_that_scatters_too_much_is_not_called_flat():
    made = job(2, "flat")
    made.values["loss"][:] = 2.0 * np.exp(ar1(np.random.default_rng(1), 0.5, 0.05))
    assert names(made) == []


def test_a_checkpoint_is_no_stall():
    made = job(2)
    made.values["iterations_per_s"][-6:] = 0.0
    assert "training_stalled" not in names(made)


JOB = Service(name="job", serving="training", kind="training", selectors={"job": "train"}, slo=Slo(iteration_ms=5000))


def test_the_sweep_opens_an_incident_of_a_training_job_and_of_no_other_service():
    made, settings = job(2, "data"), DetectionSettings(detectors=("rules",))
    service = JOB.model_copy(update={"kind": "inference", "slo": Slo(p95_ms=100)})
    for one, expected in ((JOB, ["data_wait_ms"]), (service, [])):
        found, _, _ = detect([one], {"job": made}, BaselineSet(), made.span.end_s, settings)
        assert [anomaly.signal for anomaly in found] == expected
    found, _, _ = detect([JOB], {"job": made}, BaselineSet(), made.span.end_s, settings)
    (incident,), _ = open_incidents([JOB], found, [], made.span.end_s, settings)
    assert (incident.symptom, incident.tier, incident.severity) == ("training", "act", "warning")
    assert "waits" in incident.reason and "for its data" in incident.reason


def test_a_promise_about_iterations_is_a_rule():
    made = job(2)
    made.values["iteration_ms"][-10:] = 9000.0
    slow = JOB.model_copy(update={"slo": Slo(iteration_ms=5000)})
    found, _, _ = detect([slow], {"job": made}, BaselineSet(), made.span.end_s, DetectionSettings(detectors=("rules",)))
    (one,) = [anomaly for anomaly in found if "rules" in anomaly.detectors]
    assert one.signal == "iteration_ms" and one.tier == "act"


def test_what_is_read_of_training_jobs_is_read_where_there_is_one():
    assert {"loss", "data_wait_ms", "iterations_per_s"} <= set(signals_needed([JOB]))
    assert "loss" not in signals_needed([JOB.model_copy(update={"kind": "inference", "slo": Slo(p95_ms=1)})])
    assert {"iteration_ms", "iterations_per_s", "data_wait_ms", "loss", "gpu_util"} <= set(presets.get("training").signals)


def training_page(s: float) -> str:
    """Two workers, each with 2.5 iterations a second of 400 ms, of which 140 ms wait for data."""
    n = 2.5 * s
    worker = 'worker="{}"'
    return "\n".join(
        f"""training_iteration_seconds_sum{{{worker.format(k)}}} {n * 0.4}
training_iteration_seconds_count{{{worker.format(k)}}} {n}
loader_ms_sum{{{worker.format(k)}}} {n * 140}
loader_ms_count{{{worker.format(k)}}} {n}
training_loss{{{worker.format(k)}}} {1.0 + 0.2 * k}
DCGM_FI_DEV_GPU_UTIL{{{worker.format(k)}}} {30 + 10 * k}"""
        for k in range(2)
    ) + "\n"


@pytest.mark.server
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="no Prometheus on PATH")
def test_the_preset_reads_what_a_real_prometheus_scraped(tmp_path):
    labels = {"metric.data_wait": "loader_ms", "unit.data_wait": "ms"}
    service = JOB.model_copy(update={"labels": labels})
    with scraped(tmp_path, {"train": training_page}) as address:
        source = PrometheusSource(address, rate_window_s=5.0)
        until, seen = time.monotonic() + 60, {}
        while seen.get("iterations_per_s", 0.0) < 2.3 and time.monotonic() < until:  # a rate over a full window
            time.sleep(1.0)
            now_s = time.time()
            window = source.read([service], (*TRAINING_SIGNALS, "gpu_util"), Span(now_s - 3, now_s, 1.0)).found.get("job")
            seen = {n: v for n in window.values if (v := window.last(n)) is not None} if window is not None else {}
    expected = {"iteration_ms": 400.0, "iterations_per_s": 2.5, "data_wait_ms": 140.0, "loss": 1.1, "gpu_util": 0.35}
    assert seen == pytest.approx(expected, rel=0.15)


def test_the_detector_may_speak_everywhere_of_a_job_alone():
    detector = TrainingJobs([JOB], DetectionSettings())
    assert detector.may_speak(job(1), np.arange(3.0)).all()
    assert not TrainingJobs([], DetectionSettings()).may_speak(job(1), np.arange(3.0)).any()
