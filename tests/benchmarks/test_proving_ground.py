"""The simulated service: it queues as queueing theory says, exports what happened, and copies do not share state."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from benchmarks.control.cells import Cells, ground_digest, loop_digest
from benchmarks.control.simulator import Faults, Profile, SimulatedService
from benchmarks.control.source import START_S, SimulatedSource
from detection.model import Service, Slo, Span

SERVICE = Service(name="simulated", serving="x", slo=Slo(p95_ms=100.0))


def service(**change) -> SimulatedService:
    profile = Profile(alpha_ms=10.0, beta_ms=0.0, spread=0.0, overhead_ms=0.0)
    faults = Faults(rate=lambda t: 60.0, **change)
    return SimulatedService(profile, faults, batch=1, timeout_ms=0.0, replicas=1, seed=3)


def test_one_server_of_constant_time_waits_as_pollaczek_and_khinchine_say():
    simulated = service()
    simulated.advance(240.0)
    latencies = np.concatenate([s.latencies for s in simulated.seconds])
    assert 1e3 * latencies.mean() == pytest.approx(10 + 0.6 * 10 / (2 * 0.4), rel=0.1)


def test_the_source_tells_what_happened():
    simulated = service()
    simulated.advance(120.0)
    span = Span(START_S + 60.0, START_S + 120.0, 10.0)
    values = SimulatedSource(simulated, 20.0).read([SERVICE], ("qps", "p95_ms", "busy"), span)["simulated"].values
    assert values["qps"][-1] == pytest.approx(60, rel=0.15)
    assert values["busy"][-1] == pytest.approx(0.6, rel=0.15)
    # A bucket of the histogram is 30 % wide.
    assert values["p95_ms"][-1] == pytest.approx(simulated.p95_ms(100, 120), rel=0.3)


def test_the_variation_within_a_batch_size_is_told():
    profile = Profile(alpha_ms=10.0, beta_ms=5.0, spread=0.3, overhead_ms=0.0)
    simulated = SimulatedService(profile, Faults(rate=lambda t: 60.0), batch=8, timeout_ms=0.0, replicas=1, seed=3)
    simulated.advance(300.0)
    span = Span(START_S + 100.0, START_S + 300.0, 10.0)
    values = SimulatedSource(simulated, 60.0).read([SERVICE], ("batch_cv2",), span)["simulated"].values
    assert np.median(values["batch_cv2"]) == pytest.approx(0.09, rel=0.2)


@pytest.mark.parametrize(("rate", "refused"), [(1500.0, 0.0), (3000.0, 1 / 3)])
def test_a_queue_refuses_what_is_more_than_it_holds_and_the_server_takes_from_it(rate, refused):
    """A server of 2,000/s with room for 500: what comes within one second is no more than what is answered in it."""
    profile = Profile(alpha_ms=5.0, beta_ms=0.0, spread=0.0, queue_limit=500)
    simulated = SimulatedService(profile, Faults(rate=lambda t: rate), batch=10, timeout_ms=0.0, replicas=1, seed=3)
    simulated.advance(60.0)
    late = simulated.seconds[20:]
    came = sum(s.errors + s.latencies.size for s in late)
    assert sum(s.errors for s in late) / came == pytest.approx(refused, abs=0.02)
    assert max(s.depth for s in late) <= 500 + 2000


def test_replicas_without_a_place_do_not_push_out_working_ones():
    simulated = SimulatedService(
        Profile(alpha_ms=10.0, beta_ms=0.0), Faults(rate=lambda t: 60.0, lost=lambda t: 1 if t >= 5 else 0),
        batch=1, timeout_ms=0.0, replicas=3, seed=3,
    )  # fmt: skip
    simulated.advance(10.0)
    assert simulated.seconds[-1].ready == 2
    simulated.set_replicas(5)
    simulated.advance(20.0)
    assert simulated.seconds[-1].ready == 2
    simulated.advance(60.0)
    assert simulated.seconds[-1].ready == 4


def test_finished_cells_are_found_again_and_belong_to_the_code_that_made_them(tmp_path):
    cells = Cells(ground_digest(), tmp_path)
    assert cells.get("surge x2, batching helps", 1, "hpa") is None
    cells.put("surge x2, batching helps", 1, "hpa", {"policy": "hpa"})
    assert cells.get("surge x2, batching helps", 1, "hpa") == {"policy": "hpa"}
    assert cells.get("surge x2, batching helps", 2, "hpa") is None
    assert cells.get("surge x2, batching helps", 1, "ladder") is None
    assert Cells(loop_digest(), tmp_path).get("surge x2, batching helps", 1, "hpa") is None


def test_before_the_first_window_is_full_there_is_no_number():
    simulated = service()
    simulated.advance(30.0)
    span = Span(START_S, START_S + 40.0, 10.0)
    qps = SimulatedSource(simulated, 20.0).read([SERVICE], ("qps",), span)["simulated"].values["qps"]
    assert np.isnan(qps[[0, 1, 4]]).all() and np.isfinite(qps[[2, 3]]).all()


def test_a_copy_is_independent_also_of_changes_under_way():
    simulated = service()
    simulated.advance(10.0)
    simulated.set_batch(8, 5.0, delay_s=3.0)
    other = copy.deepcopy(simulated)
    other.advance(20.0)
    assert (other.batch, simulated.batch) == (8, 1)
    simulated.advance(20.0)
    assert simulated.batch == 8


def test_failed_requests_are_counted_and_not_served():
    simulated = service(errors=lambda t: 0.5)
    simulated.advance(60.0)
    failed = sum(s.errors for s in simulated.seconds)
    served = sum(s.latencies.size for s in simulated.seconds)
    assert failed / (failed + served) == pytest.approx(0.5, abs=0.05)
