"""The declared chain: what went together is shown with strength and lag, what did not is said, and never as proof."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detection.model import OwnSignal
from tests.fakes import reports
from tests.fakes.planning import AT_S, make_incident, make_observation, make_service, make_window
from tests.tuning.planning.test_diagnosis import SITUATION
from tuning.planning import diagnosis as dg
from tuning.planning.chain import links, told
from tuning.planning.settings import PlanningSettings
from tuning.report import render
from tuning.services_yaml import ServicesFileError, loads

POINTS, STEP_S = 61, 5.0
ONSET_S = AT_S - 150


def course(*, lag: int = 0, sign: float = 1.0, noise: float = 0.05, seed: int = 0) -> np.ndarray:
    """A ramp that begins at the onset, `lag` points late."""
    rng = np.random.default_rng(seed)
    ramp = np.clip(np.arange(POINTS) - 31 - lag, 0, 12) / 12.0
    return 10 + sign * 5 * ramp + rng.normal(0, noise, POINTS)


WINDOW = {"busy": course(), "queue_ms": course(seed=1), "p95_ms": course(lag=3, seed=2), "orders": course(lag=9, sign=-1, seed=3)}


def test_each_neighbour_is_held_against_the_next_at_the_lag_that_suits_best():
    first, second, third = links(make_window(WINDOW), ("busy", "queue_ms", "p95_ms", "orders"), ONSET_S)
    assert (first.strength, first.lag_s) == (pytest.approx(0.8, abs=0.2), pytest.approx(0, abs=STEP_S))
    assert second.strength > 0.7 and second.lag_s == pytest.approx(15, abs=2 * STEP_S)
    assert third.strength < -0.7 and third.lag_s == pytest.approx(30, abs=2 * STEP_S)


def test_what_is_not_shown_is_passed_over_and_what_stands_still_tells_nothing():
    window = make_window(WINDOW | {"gpu_util": float("nan"), "busy": 1.0})
    found = links(window, ("gpu_util", "busy", "p95_ms"), ONSET_S)
    assert [(link.earlier, link.later, link.strength) for link in found] == [("busy", "p95_ms", None)]
    assert told(found, {}) == ""


def test_noise_is_no_clear_association():
    rng = np.random.default_rng(5)
    shown = sum(
        told(links(make_window({"busy": rng.normal(size=POINTS), "p95_ms": rng.normal(size=POINTS)}), ("busy", "p95_ms"), ONSET_S), {}) != ""
        for _ in range(60)
    )  # fmt: skip
    assert shown <= 6


def test_the_line_says_strength_lag_and_that_it_is_no_proof():
    found = links(make_window(WINDOW | {"noise": np.random.default_rng(8).normal(size=POINTS)}),
                  ("busy", "p95_ms", "orders", "noise"), ONSET_S)  # fmt: skip
    line = told(found, {"busy": "busy share", "p95_ms": "P95"})
    assert line.startswith("busy share → (+0.") and " s later) P95 → (-0." in line
    assert "→ (no clear association) noise" in line and line.endswith("an association and no proof")


def test_the_mail_shows_the_chain_that_the_service_declares():
    own = {"orders": OwnSignal(promql="sum(x)", kind="business", title="orders per visit")}
    service = make_service().model_copy(update={"chain": ("busy", "p95_ms", "orders"), "own_signals": own})
    incident = make_incident().model_copy(update={"opened_at_s": ONSET_S})
    observation = dataclasses.replace(make_observation(WINDOW), service=service)
    found = dg.diagnose(incident, observation, SITUATION, PlanningSettings())
    assert "P95 latency" in found.chain and "orders per visit" in found.chain
    assert "Went together: share of time" in render(reports.report(plan=reports.plan(diagnosis=found))).text
    silent = dataclasses.replace(observation, service=make_service())
    assert dg.diagnose(incident, silent, SITUATION, PlanningSettings()).chain == ""


def test_a_chain_of_what_is_no_signal_is_a_sentence():
    text = "services: [{name: a, serving: triton, selectors: {m: a}, slo: {p95: 1s}, chain: [queue_ms, p95ms]}]"
    with pytest.raises(ServicesFileError, match="there is no signal 'p95ms'; did you mean 'p95_ms'"):
        loads(text, thorough=True)
