"""Drawn incidents: the same every time, different between the streams, true to what their simulation shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.control import scenarios as sc
from benchmarks.control.cases import Case, begin, causes_of_pair
from benchmarks.control.generator import KINDS, STREAMS, draw
from benchmarks.control.runs import cured
from benchmarks.control.scenarios import END_S, ONSET_S, Scenario
from benchmarks.control.simulator import Faults, Profile, SimulatedService


def test_a_draw_is_the_same_every_time_and_streams_share_nothing():
    again = draw.__wrapped__("dev", 3)
    assert (again.calm, [t.kind for t in again.troubles]) == (
        draw("dev", 3).calm,
        [t.kind for t in draw("dev", 3).troubles],
    )
    assert len(set(STREAMS.values())) == len(STREAMS)
    loads = {stream: {draw(stream, k).calm.qps for k in range(6)} for stream in ("dev", "report")}
    assert not loads["dev"] & loads["report"]


def test_the_ranges_are_wide():
    calm = [draw("dev", k).calm for k in range(24)]
    assert min(c.qps for c in calm) < 3 and max(c.qps for c in calm) > 500
    ratios = [c.profile.alpha_ms / c.profile.beta_ms for c in calm]
    assert max(ratios) / min(ratios) > 50
    assert min(c.cv2 for c in calm) < 0.7 and max(c.cv2 for c in calm) > 3
    assert all(10 <= c.profile.start_s <= 120 for c in calm)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_trouble_can_be_drawn(kind):
    calm = replace(draw("dev", 0).calm, batch=8, replicas=3, precision=True, int8=True)
    trouble = KINDS[kind][1](calm, np.random.default_rng(1))
    assert trouble is not None and trouble.kind.startswith(kind)
    assert replace(calm, **trouble.changes).slo_ms == calm.slo_ms


@pytest.mark.parametrize("number", [7, 24, 49])
def test_a_drawn_service_holds_its_slo_while_all_is_well(number):
    calm = draw("dev", number).calm
    service = begin(calm, 1)
    service.advance(END_S)
    assert cured(calm, service)


SMALL = Scenario("small", Profile(alpha_ms=20.0, beta_ms=1.0), ("healthy",), batch=4, replicas=2, use=0.5, vary=0.0)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        # Each breaks the SLO alone.
        ({"surge": sc.step(4.0)}, {"slow": sc.slower(4.0)}, ("one", "other")),
        # The second is nothing: without the first the SLO holds, and without the second it does not.
        ({"surge": sc.step(4.0)}, {"slow": sc.slower(1.01)}, ("one",)),
        ({"surge": sc.step(1.01)}, {"slow": sc.slower(4.0)}, ("other",)),
        # Only both together break it: without either there is no incident.
        ({"surge": sc.step(1.5)}, {"slow": sc.slower(1.5)}, ("one", "other")),
    ],
)
def test_of_a_pair_those_are_causes_that_break_the_slo(one, other, expected):
    alone = [replace(SMALL, causes=("one",), **one), replace(SMALL, causes=("other",), **other)]
    assert causes_of_pair(Case("dev", 0), alone) == expected


def test_smooth_arrivals_vary_less_and_bursty_ones_more():
    profile = Profile(alpha_ms=1.0, beta_ms=0.0)
    found = {}
    for cv2 in (0.3, 1.0, 4.0):
        service = SimulatedService(
            profile, Faults(rate=lambda t: 100.0, cv2=cv2), batch=1, timeout_ms=0.0, replicas=1, seed=5
        )
        service.advance(300.0)
        count, total, squares = np.sum([s.gaps for s in service.seconds], axis=0)
        found[cv2] = squares / count / (total / count) ** 2 - 1
    assert found == {cv2: pytest.approx(cv2, rel=0.2) for cv2 in found}


def test_what_is_not_scraped_is_not_seen():
    from benchmarks.control.source import START_S, SimulatedSource
    from detection.model import Service, Slo, Span

    scenario = replace(SMALL, silent=True)
    service = begin(scenario, 1)
    service.advance(ONSET_S + 60.0)
    span = Span(START_S + ONSET_S - 30.0, START_S + ONSET_S + 60.0, 10.0)
    name = Service(name="simulated", serving="x", slo=Slo(p95_ms=100.0))
    window = SimulatedSource(service, 20.0).read([name], ("p95_ms",), span)["simulated"]
    assert np.isfinite(window.values["p95_ms"]).tolist() == [True] * 4 + [False] * 6
    assert window.stale_s["p95_ms"] == 60.0


def test_a_service_slows_down_step_by_step():
    shape = sc.slowing(3.0, 400.0)
    assert [shape(u, 0) for u in (0.0, 200.0, 400.0, 900.0)] == [1.0, 2.0, 3.0, 3.0]


def test_a_fall_ends_the_surge_and_the_incident_is_judged_there():
    shape = sc.falls(sc.step(3.0), 500.0)
    assert (shape(499.0), shape(500.0)) == (3.0, 1.0)
    calm = draw("dev", 0).calm
    drawn = [KINDS["surge"][1](calm, np.random.default_rng(seed)) for seed in range(60)]
    for trouble in drawn:
        scenario = replace(calm, **trouble.changes)
        assert (scenario.judged_s < END_S) == (trouble.kind == "surge fall")
        assert scenario.surge(scenario.judged_s - ONSET_S + 1) == 1.0 or trouble.kind != "surge fall"
    assert "surge fall" in {t.kind for t in drawn}
