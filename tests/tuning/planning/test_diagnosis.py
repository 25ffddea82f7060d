"""The table of signs: which facts name which cause, with which words, and where each threshold lies."""

from __future__ import annotations

import dataclasses

import pytest

from tests.fakes.planning import make_incident, make_observation, make_service
from tuning.model import Interval
from tuning.planning import diagnosis as dg
from tuning.planning import facts
from tuning.planning.causes import CAUSES
from tuning.planning.forecast import Forecast
from tuning.planning.reading import Reading
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Baseline, Situation

SETTINGS = PlanningSettings()
NOW = Reading(qps=100.0, mean_ms=400.0, p50_ms=None, p95_ms=600.0, error_rate=0.0, queue_ms=380.0, queue_depth=None,
              batch_ms=20.0, rows_per_batch=4.0, busy=0.99, batch_size=4, batch_timeout_ms=0.0, replicas=2,
              arrival_cv2=1.0)  # fmt: skip
BASE = Baseline(qps=100.0, batch_ms=20.0, replicas=2.0, batch_size=4.0, variation=0.03, points=60)


def rate(qps: float) -> Forecast:
    return Forecast(Interval(value=qps, low=qps, high=qps), "constant")


SITUATION = Situation(now=NOW, base=BASE, arrivals=rate(100.0), cv2=1.0, slow=1.0, slow_sd=0.02)


def diagnose(now=None, base=None, symptom="latency", p95=600.0, batch_max=32.0, window=None, **situation):
    reading = dataclasses.replace(NOW, **(now or {}))
    shown = dataclasses.replace(SITUATION, now=reading, base=dataclasses.replace(BASE, **(base or {})), **situation)
    observation = make_observation(window or {"p95_ms": p95}, service=make_service(batch_max=batch_max))
    return dg.diagnose(make_incident(symptom), observation, shown, SETTINGS)


WAITING = "95% of the latency is waiting (380 ms)"
REST = {"busy": 0.3, "queue_ms": 5.0, "mean_ms": 30.0}
CALM = REST | {"p95_ms": 50.0}

# name: (arguments, cause, evidence)
ROWS = {
    "no P95": ({"p95": float("nan")}, "stale_data", ("no P95 is exported in the look-back",)),
    "errors without a queue": (
        {"now": REST | {"error_rate": 0.05}},
        "errors",
        ("5.0% of requests fail (limit 1.0%) while no queue stands",),
    ),
    "errors at the limit are none": ({"now": REST | {"error_rate": 0.01}}, "slower_service", None),
    "errors while P95 is met and busy": (
        {"now": {"p95_ms": 50.0, "error_rate": 0.05}, "p95": 50.0},
        "errors",
        ("5.0% of requests fail (limit 1.0%) while P95, 50 ms, is under the SLO",),
    ),
    "refusals of a service that outgrew its load": (
        {"now": {"p95_ms": 50.0, "error_rate": 0.05}, "p95": 50.0, "arrivals": rate(200.0)},
        "load_surge",
        (
            "200 requests/s instead of 100 (x2.0)",
            WAITING,
            "5.0% of requests fail as well, while the service is saturated and P95 is 50 ms: what cures must bring "
            "P95 well below that",
        ),
    ),
    "errors of a service that rests are no refusals": (
        {"now": CALM | {"error_rate": 0.05}, "p95": 50.0, "arrivals": rate(200.0)},
        "errors",
        ("5.0% of requests fail (limit 1.0%) while no queue stands",),
    ),
    "errors of a server that rested, with more traffic and some waiting": (
        {
            "now": {"p95_ms": 50.0, "error_rate": 0.3, "busy": 0.6, "queue_ms": 30.0, "mean_ms": 60.0},
            "window": {"p95_ms": 50.0, "busy": [0.95] * 40 + [0.6] * 21},
            "arrivals": rate(130.0),
        },
        "errors",
        ("30.0% of requests fail (limit 1.0%) while P95, 50 ms, is under the SLO",),
    ),
    "refusals of a server that did not rest a moment ago": (
        {
            "now": {"p95_ms": 50.0, "error_rate": 0.3, "busy": 0.6, "queue_ms": 30.0, "mean_ms": 60.0},
            "window": {"p95_ms": 50.0, "busy": [0.6] * 55 + [0.9] + [0.6] * 5},
            "arrivals": rate(130.0),
        },
        "load_surge",
        None,
    ),
    "refusals of the one slow replica, while the others rest": (
        {
            "now": {"p95_ms": 50.0, "error_rate": 0.1, "busy": 0.6, "queue_ms": 30.0, "mean_ms": 60.0},
            "window": {"p95_ms": 50.0, "busy": 0.6},
            "replica_slow": (1.0, 3.0),
            "slow": 1.5,
        },
        "slow_replica",
        None,
    ),
    "refusals in a neighbour's slow phases": (
        {
            "now": {"p95_ms": 50.0, "error_rate": 0.1, "busy": 0.7, "queue_ms": 30.0, "mean_ms": 60.0},
            "window": {"p95_ms": 50.0, "busy": 0.7},
            "variation": 0.5,
            "slow": 1.5,
        },
        "noisy_neighbour",
        None,
    ),
    "errors beside a standing queue": (
        {"now": {"error_rate": 0.05}, "arrivals": rate(200.0)},
        "load_surge",
        (
            "200 requests/s instead of 100 (x2.0)",
            WAITING,
            "5.0% of requests fail as well, while the service is saturated",
        ),
    ),
    "over": ({"now": CALM, "p95": 50.0}, "healthy", ("P95 is 50 ms, the SLO is 100 ms",)),
    "over at the limit": ({"now": CALM | {"p95_ms": 100.0}, "p95": 100.0}, "healthy", None),
    "not over a hair above": ({"now": REST | {"p95_ms": 100.1}, "p95": 100.1}, "slower_service", None),
    "idle": (
        {"now": CALM, "p95": 50.0, "symptom": "idle"},
        "idle_capacity",
        ("P95 is 50 ms, the SLO is 100 ms", "the replicas compute 30% of the time"),
    ),
    "idle, busy not known": (
        {"now": CALM | {"busy": None}, "p95": 50.0, "symptom": "idle"},
        "idle_capacity",
        ("P95 is 50 ms, the SLO is 100 ms", "busy share not exported"),
    ),
    "nothing of the split": (
        {"now": {"queue_ms": None, "batch_ms": None}, "arrivals": rate(300.0)},
        "unknown",
        ("neither queue nor batch time is exported: the split of the latency is unknown",),
    ),
    "the batch time alone is a split": ({"now": {"queue_ms": None}, "arrivals": rate(300.0)}, "load_surge", None),
    "the queue alone is a split": ({"now": {"batch_ms": None}, "arrivals": rate(300.0)}, "load_surge", None),
    "one replica": (
        {"replica_slow": (1.0, 1.0, 2.5), "arrivals": rate(300.0)},
        "slow_replica",
        ("one of 3 replicas takes 2.5 times as long per batch",),
    ),
    "one replica just": ({"replica_slow": (1.0, 1.3)}, "slow_replica", None),
    "one replica hardly": ({"replica_slow": (1.0, 1.29)}, "batch_too_small", None),
    "two replicas are not one": ({"replica_slow": (1.0, 1.2, 2.5)}, "batch_too_small", None),
    "two replicas nearly": ({"replica_slow": (1.0, 1.19, 2.5)}, "slow_replica", None),
    "more load": (
        {"arrivals": rate(200.0)},
        "load_surge",
        ("200 requests/s instead of 100 (x2.0)", WAITING),
    ),
    "a seventh more is news": ({"arrivals": rate(115.1), "now": REST}, "load_surge", None),
    "less is none": ({"arrivals": rate(114.9), "now": REST}, "slower_service", None),
    "slower": (
        {"slow": 2.0},
        "slower_service",
        ("a batch of the same size takes 2.0 times as long", WAITING),
    ),
    "slower, within its own error": ({"slow": 2.0, "slow_sd": 0.5}, "batch_too_small", None),
    "slower and slower": (
        {"slow": 2.0, "slower_per_min": 0.12},
        "slower_service",
        ("a batch of the same size takes 2.0 times as long, 12% more with every minute", WAITING),
    ),
    "coming and going": (
        {"slow": 2.0, "variation": 0.4},
        "noisy_neighbour",
        ("a batch of the same size takes 2.0 times as long, coming and going (variation 40%)", WAITING),
    ),
    "varying as much as before": ({"slow": 2.0, "variation": 0.4, "base": {"variation": 0.2}}, "slower_service", None),
    "varying twice as much and a little": (
        {"slow": 2.0, "variation": 0.41, "base": {"variation": 0.2}}, "noisy_neighbour", None,
    ),
    "varying by 12 % is nothing": ({"slow": 2.0, "variation": 0.12}, "slower_service", None),
    "varying by more than 12 %": ({"slow": 2.0, "variation": 0.121}, "noisy_neighbour", None),
    "the spread that always was": (
        {"now": {"batch_cv2": 0.3}, "slow": 2.0, "variation": 0.4, "spread": 0.4}, "slower_service", None,
    ),
    "more than the spread that always was": (
        {"now": {"batch_cv2": 0.3}, "slow": 2.0, "variation": 0.41, "spread": 0.4}, "noisy_neighbour", None,
    ),
    "before not known": ({"slow": 2.0, "variation": 0.13, "base": {"variation": None}}, "noisy_neighbour", None),
    "replicas gone": (
        {"now": {"replicas": 1}},
        "lost_capacity",
        ("1 replicas instead of 2", WAITING),
    ),
    "the limit lowered": (
        {"now": {"batch_size": 2, "rows_per_batch": 2.0}, "limit_cost": 1.6},
        "batch_too_small",
        ("the batch limit is 2 instead of 4", WAITING),
    ),
    "the larger growth names the cause": (
        {"arrivals": rate(150.0), "slow": 2.0},
        "slower_service",
        ("a batch of the same size takes 2.0 times as long", "150 requests/s instead of 100 (x1.5)", WAITING),
    ),
    "full batches below the bound": (
        {},
        "batch_too_small",
        ("batches are full (4.0 of 4 rows)", WAITING),
    ),
    "full batches at the bound": (
        {"batch_max": 4.0},
        "load_surge",
        ("requests come faster than they are answered", WAITING),
    ),
    "batches at four fifths are not full": ({"now": {"rows_per_batch": 3.2}}, "load_surge", None),
    "busy alone stands for a queue": (
        {"now": {"queue_ms": None, "rows_per_batch": 2.0}}, "load_surge",
        ("requests come faster than they are answered",),
    ),
    "busy, whatever the queue": (
        {"now": {"busy": 0.95, "queue_ms": 5.0, "mean_ms": 30.0, "rows_per_batch": 2.0}}, "load_surge", None,
    ),
    "nearly busy": (
        {"now": {"busy": 0.89, "queue_ms": 5.0, "mean_ms": 30.0, "rows_per_batch": 2.0}}, "slower_service", None,
    ),
    "busy not known": (
        {"now": {"busy": None, "queue_ms": 5.0, "mean_ms": 30.0, "rows_per_batch": 2.0}}, "slower_service", None,
    ),
    "no queue": (
        {"now": REST},
        "slower_service",
        ("no queue stands: 20 ms per batch is the latency itself",),
    ),
    "a share of the wait at the limit is a queue": (
        {"now": {"busy": 0.3, "queue_ms": 30.0, "mean_ms": 100.0, "rows_per_batch": 1.0}}, "load_surge", None,
    ),
    "nothing moved": (
        {"now": {"busy": 0.3, "queue_ms": 9.0, "mean_ms": 29.0}},
        "unknown",
        ("nothing that is exported has moved since the baseline",),
    ),
    "waiting for rows": (
        {"now": {"busy": 0.3, "queue_ms": 80.0, "mean_ms": 100.0, "batch_timeout_ms": 100.0, "rows_per_batch": 1.5,
                 "batch_size": 8}, "arrivals": rate(300.0)},
        "batch_wait_too_long",
        ("requests wait 80 ms for a batch that holds 1.5 of 8 rows, while the server computes 30% of the time "
         "(timeout 100 ms)",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_the_cause_and_its_words(name):
    arguments, cause, evidence = ROWS[name]
    found = diagnose(**arguments)
    assert found.cause == cause
    assert evidence is None or found.evidence == evidence
    assert found.curable == CAUSES[cause].curable


WAITS = {"busy": 0.3, "queue_ms": 80.0, "mean_ms": 100.0, "batch_timeout_ms": 100.0, "rows_per_batch": 1.5,
         "batch_size": 8}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "waits"),
    [
        ({}, True),
        ({"queue_ms": 25.0, "mean_ms": 50.0}, True),
        ({"queue_ms": 24.9, "mean_ms": 50.0}, False),
        ({"queue_ms": 150.0, "mean_ms": 200.0}, True),
        ({"queue_ms": 150.1, "mean_ms": 200.0}, False),
        ({"mean_ms": 80.0 / 0.3}, True),
        ({"mean_ms": 80.0 / 0.299}, False),
        ({"busy": 0.749}, True),
        ({"busy": 0.75}, False),
        ({"busy": None}, True),
        ({"rows_per_batch": 6.39}, True),
        ({"rows_per_batch": 6.4}, False),
        ({"rows_per_batch": None}, False),
        ({"batch_timeout_ms": 0.0}, False),
        ({"batch_timeout_ms": None}, False),
        ({"queue_ms": None}, False),
    ],
)
def test_where_waiting_for_rows_begins_and_ends(change, waits):
    assert (diagnose(now=WAITS | change).cause == "batch_wait_too_long") is waits


@pytest.mark.parametrize(
    ("before_ms", "change", "slow", "cause"),
    [
        (None, {}, 3.0, "batch_wait_too_long"),  # nobody knows what it was
        (20.0, {}, 3.0, "batch_wait_too_long"),
        (86.9, {}, 3.0, "batch_wait_too_long"),  # longer by more than 15 %
        (87.0, {}, 3.0, "slower_service"),  # as it was in the calm, and something else has moved
        (100.0, {}, 3.0, "slower_service"),
        (100.0, {}, 1.1, "batch_wait_too_long"),  # as it was, and nothing else has moved
        (None, {"rows_per_batch": 7.9}, 1.1, "load_surge"),
        (20.0, {"rows_per_batch": 7.9}, 1.1, "batch_wait_too_long"),  # what waits so long fills its batches
        (20.0, {"rows_per_batch": 7.9, "busy": None}, 1.1, "load_surge"),
        (100.0, {"rows_per_batch": 7.9}, 1.1, "load_surge"),
        (20.0, {"busy": 0.75}, 1.1, "load_surge"),
    ],
)
def test_a_wait_is_the_cause_where_it_is_news(before_ms, change, slow, cause):
    found = diagnose(now=WAITS | change, base={"batch_timeout_ms": before_ms}, slow=slow, batch_max=8.0)
    assert found.cause == cause


@pytest.mark.parametrize(
    ("p95", "symptom", "recent", "cause"),
    [
        (95.0, "latency", [95.0] * 48 + [120.0] * 3 + [95.0] * 10, "unmet"),
        (95.0, "latency", [95.0] * 50 + [120.0] * 1 + [95.0] * 10, "healthy"),
        (95.0, "errors", [95.0] * 48 + [120.0] * 3 + [95.0] * 10, "healthy"),
        (95.0, "saturation", [95.0] * 48 + [120.0] * 3 + [95.0] * 10, "unmet"),
        (90.0, "latency", [90.0] * 48 + [120.0] * 3 + [90.0] * 10, "healthy"),
    ],
)
def test_an_incident_that_goes_in_and_out_of_the_slo_is_not_over(p95, symptom, recent, cause):
    found = diagnose(now=CALM | {"p95_ms": p95}, window={"p95_ms": recent}, symptom=symptom)
    assert (found.cause == "healthy") is (cause == "healthy")


@pytest.mark.parametrize(
    ("now", "split"),
    [
        ({}, {"queue_ms": 380.0, "batch_wait_ms": 0.0, "service_ms": 20.0, "queue_share": 0.95}),
        ({"queue_ms": None}, {"queue_ms": None, "batch_wait_ms": None, "service_ms": 20.0, "queue_share": None}),
        (
            {"batch_timeout_ms": 100.0, "rows_per_batch": 2.0, "busy": 0.25},
            {"queue_ms": 305.0, "batch_wait_ms": 75.0, "service_ms": 20.0, "queue_share": 0.95},
        ),
        (
            {"batch_timeout_ms": 100.0, "rows_per_batch": 2.0, "busy": None, "queue_ms": 60.0},
            {"queue_ms": 0.0, "batch_wait_ms": 60.0, "service_ms": 20.0, "queue_share": 0.15},
        ),
        ({"batch_timeout_ms": 100.0, "rows_per_batch": 3.8, "busy": 0.25}, {"batch_wait_ms": 0.0}),
        ({"batch_timeout_ms": 100.0, "rows_per_batch": 3.79, "busy": 0.25}, {"batch_wait_ms": 75.0}),
        ({"mean_ms": None}, {"queue_share": 0.95}),
        ({"mean_ms": 300.0}, {"queue_share": 1.0}),
    ],
)
def test_the_split_of_the_latency(now, split):
    found = dg.split_of(dataclasses.replace(NOW, **now))
    assert {name: found.get(name) for name in split} == {
        name: value if value is None else pytest.approx(value) for name, value in split.items()
    }


@pytest.mark.parametrize(
    ("now", "stands"),
    [
        ({}, True),
        ({"queue_ms": 120.0}, True),
        ({"queue_ms": 119.0}, False),
        ({"queue_ms": 380.0, "batch_ms": 760.0}, False),
        ({"queue_ms": 380.0, "batch_ms": 759.0}, True),
        ({"batch_ms": None}, True),
        ({"queue_ms": None, "busy": 0.9}, True),
        ({"queue_ms": None, "busy": 0.89}, False),
        ({"queue_ms": None, "busy": None}, False),
    ],
)
def test_whether_a_queue_stands(now, stands):
    assert facts.queue_stands(dataclasses.replace(NOW, **now), SETTINGS) is stands


@pytest.mark.parametrize(
    ("now", "full"),
    [
        ({}, True),
        ({"rows_per_batch": 3.21}, True),
        ({"rows_per_batch": 3.2}, False),
        ({"rows_per_batch": None, "busy": 0.9}, True),
        ({"rows_per_batch": None, "busy": 0.89}, False),
        ({"rows_per_batch": None, "busy": None}, False),
    ],
)
def test_whether_batches_are_full(now, full):
    assert facts.batches_full(dataclasses.replace(NOW, **now), SETTINGS) is full


def test_every_sign_names_a_cause_that_there_is():
    of_jobs = {"training_stalled", "loss_rising", "slower_iterations", "data_bound", "gpu_rests", "loss_flat"}
    assert {sign.cause for sign in (*dg.FIRST, *dg.MOVED, *dg.STATE)} | of_jobs == set(CAUSES)


@pytest.mark.parametrize(
    ("cause", "levers", "curable", "pair_adds"),
    [
        ("load_surge", 5, True, None),
        ("lost_capacity", 5, True, None),
        ("slower_service", 5, True, None),
        ("batch_too_small", 5, True, None),
        ("noisy_neighbour", 5, True, None),
        ("unknown", 5, True, None),
        ("slow_replica", 5, True, 1),
        ("wrong_replica", 1, True, None),
        ("leaking_replica", 1, True, None),
        ("warming_up", 0, False, None),
        ("fresh_release", 0, False, None),
        ("batch_wait_too_long", 1, True, None),
        ("idle_capacity", 1, True, None),
        ("errors", 0, False, None),
        ("stale_data", 0, False, None),
        ("healthy", 0, False, None),
    ],
)
def test_what_helps_against_a_cause(cause, levers, curable, pair_adds):
    row = CAUSES[cause]
    assert (len(row.levers), row.curable, row.pair_adds) == (levers, curable, pair_adds)
