"""What a limit is predicted to refuse and to win, which ones are weighed, and that it only ever is the last resort."""

from __future__ import annotations

import dataclasses
import math
from collections import deque

import numpy as np
import pytest

from detection.model import Lever
from tests.fakes.planning import SATURATED, make_incident, make_observation, make_service, make_settings
from tuning.model import Change, Diagnosis, Interval, Record, Setting
from tuning.planning import admission as ad
from tuning.planning import explain, model_planner, whatif
from tuning.planning import get as planner
from tuning.planning import thresholds as th
from tuning.planning.effects import Posterior
from tuning.planning.ports import Candidate, Predicted
from tuning.planning.ranking import Ranked
from tuning.planning.settings import PlanningSettings
from tuning.planning.whatif import Lane


def observed(limit: object = 5000, knob: str = "queue_limit", *, per: str = "replica", least: int = 1, levers=(), useless="", signals=None, **kwargs):
    lever = Lever(name="admission", actuator="http_admission", mode="act", minimum=least, maximum=1e9, options={"per": per, "max_refused": 0.9})
    service = make_service(levers=levers)
    service = service.model_copy(update={"levers": {**service.levers, "admission": lever}})
    setting = Setting(lever="admission", values={knob: limit}, useless=useless)
    known = {name: one for name, one in make_settings(**kwargs).items() if name in levers}
    return make_observation(signals, service=service, settings={**known, "admission": setting})


def queue(lane: Lane, seconds: float, seed: int) -> tuple[np.ndarray, float]:
    """A batch queue with a limit, request by request: latencies (s) of what was let in, and the share that was not."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(1 / lane.qps, int(lane.qps * seconds)))
    sigma = math.sqrt(math.log1p(lane.spread**2))
    waiting: deque[float] = deque()
    free, refused, latencies = 0.0, 0, []

    def serve(until: float) -> float:
        end = free
        while waiting and max(end, waiting[0]) <= until:
            start = max(end, waiting[0])
            batch = [waiting.popleft() for _ in range(min(lane.batch, sum(1 for t in waiting if t <= start)))]
            end = start + (lane.alpha_s + lane.beta_s * len(batch)) * math.exp(rng.normal(-(sigma**2) / 2, sigma))
            latencies.extend(end - came for came in batch)
        return end

    for came in times:
        free = serve(came)
        if len(waiting) >= lane.waiting_max:
            refused += 1
        else:
            waiting.append(float(came))
    return np.array(latencies), refused / times.size


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("over", [1.3, 2.0, 3.5])
@pytest.mark.parametrize(("batch", "limit"), [(1, 20), (8, 30), (8, 9), (4, 200)])
def test_what_is_predicted_is_what_a_queue_with_a_limit_does(batch: int, limit: int, over: float, seed: int):
    lane = Lane(qps=1.0, cv2=1.0, batch=batch, timeout_s=0.0, alpha_s=0.008, beta_s=0.001, spread=0.12, waiting_max=limit)
    lane = dataclasses.replace(lane, qps=over * lane.capacity, backlog=2.0 * limit)
    found = whatif.simulate([lane], batches=500, seed=1)[0]
    latencies, refused = queue(lane, 120.0, seed)
    seen = latencies[len(latencies) // 5 :]
    assert found.refused == pytest.approx(refused, abs=0.03)
    assert found.p95_ms == pytest.approx(1e3 * np.quantile(seen, 0.95), rel=0.15)


def test_what_a_limit_is_by_its_knob_and_no_limit_is_none():
    lever = observed(per="service").service.levers["admission"]
    assert ad.limit_of(lever, {"queue_limit": 12, "batch_size": 4}) == ad.Limit("queue", 12.0, True)
    assert ad.limit_of(lever, {"rate_limit": 0}) == ad.Limit("rate", math.inf, True)
    assert ad.limit_of(lever, {"batch_size": 4}) is None
    assert ad.Limit("concurrency", 12.0, True).of_each(3) == 4.0 and ad.Limit("queue", 12.0).of_each(3) == 12.0


@pytest.mark.parametrize(
    ("knob", "per", "least", "expected"),
    [
        # of 100 ms two batches of 20 ms are the request's own and the one before it: 60 ms of 400 requests/s fit
        ("queue_limit", "replica", 1, [24, 20, 16, 12, 8, 6]),
        ("queue_limit", "service", 1, [48, 40, 33, 24, 16, 12]),
        ("concurrency_limit", "replica", 1, [32, 27, 22, 16, 11, 8]),
        ("rate_limit", "service", 1, [760, 720, 640, 560]),
        ("queue_limit", "replica", 18, [24, 20, 18]),
    ],
)
def test_the_limits_that_are_weighed_fit_the_objective_and_keep_the_bound(knob, per, least, expected):
    seen = observed(5000, knob, per=per, least=least)
    assert ad.lower(seen, batch=8, full_s=0.02, replicas=2, spare_ms=100.0) == expected


def test_only_lower_limits_are_weighed_and_none_where_the_present_one_cannot_be_told():
    assert ad.lower(observed(18), 8, 0.02, 2, 100.0) == [16, 12, 8, 6]
    assert ad.lower(observed(5000, useless="the limit shows 0"), 8, 0.02, 2, 100.0) == []
    assert ad.lower(observed(0), 8, 0.02, 2, 100.0)[0] == 24, "no limit yet"
    assert ad.lower(dataclasses.replace(observed(), settings={}), 8, 0.02, 2, 100.0) == []


def lowered(kind: str, at_s: float, old: int, new: int) -> Record:
    body = {"lever": "admission", "changed": True, "before": {"queue_limit": old}, "after": {"queue_limit": new}}
    return Record(id=f"{kind}{at_s}", kind=kind, service="ranker", at_s=at_s, phase="result", body=body)


def test_a_limit_of_slotunes_own_is_lent_while_it_is_in_force():
    down, back = lowered("limit_admission", 100, 5000, 24), lowered("roll_back", 200, 24, 5000)
    assert ad.lent(observed(24), [down]) == "queue_limit 5000 -> 24"
    assert ad.lent(observed(24), []) == ad.lent(observed(77), [down]) == ad.lent(observed(5000), [back, down]) == ""


def plan_of(seen, name: str = "model"):
    return planner(name)(PlanningSettings()).propose(make_incident(), seen, [])


FULL = {**SATURATED, "rows_per_batch": 32.0, "batch_size": 32.0}


def test_it_comes_after_all_else_and_the_playbook_predicts_no_refusals():
    bound = observed(levers=("batch_size", "replicas"), batch=32, replicas=10, signals=FULL)
    plan = plan_of(bound, "playbook")
    assert plan.chosen.changes == () and "cannot be predicted" in plan.reason


def limiting(in_time_per_s: float | None, lever: str = "admission") -> Ranked:
    change = Change(lever=lever, old={"queue_limit": 5000}, new={"queue_limit": 18})
    p95 = Interval(value=60.0, low=50.0, high=70.0)
    predicted = Predicted({"p95_ms": p95}, 1.0, 1.0, 1.0, 0.9, 0.0, 0.5, in_time_per_s=in_time_per_s)
    return Ranked(Candidate({"queue_limit": 18}, (change,)), predicted, Posterior(*th.WORKED_PRIOR, 0, 0), 20.0)


@pytest.mark.parametrize(
    ("with_it", "as_it_is", "barred"),
    [
        (121.0, 100.0, ""),
        (119.0, 100.0, "win too little: 119/s would be answered in time, as it is 100/s"),
        (30.0, None, ""),
        (None, None, "win too little: 0/s"),
    ],
)
def test_a_limit_that_wins_too_little_is_barred_and_the_hold_says_so(with_it, as_it_is, barred):
    found = model_planner._won_by(limiting(with_it), limiting(as_it_is).predicted)
    assert (barred in found.barred) if barred else found.barred == ""
    if barred:
        text = explain.nothing(Diagnosis(cause="load_surge"), [found], {"p95_ms": 100.0})
        assert text == f"hold: more traffic than usual; {found.barred}, and nothing else within bounds meets 100 ms"


def test_what_is_no_limit_need_not_win_answers():
    other = limiting(None, "batch_size")
    assert model_planner._won_by(other, limiting(100.0).predicted) is other
