"""Every option within bounds, as tables: which settings are weighed, what they cost, and what is left out."""

from __future__ import annotations

import dataclasses

import pytest

from detection.model import Lever
from tests.fakes.planning import make_observation, make_service, make_settings
from tuning.model import Change, Setting
from tuning.planning import options as op
from tuning.planning.ports import Candidate


def base(batch=8, timeout_ms=20.0, replicas=2):
    setting = {"batch_size": batch, "batch_timeout_ms": timeout_ms, "replicas": replicas}
    return Candidate(setting, size=op.size_of(setting))


def observation(batch=8, timeout_ms=20.0, replicas=2, max_replicas=10, slo=100.0, levers=None, **setting):
    service = make_service(p95_ms=slo)
    service = service.model_copy(update={"levers": {**service.levers, **(levers or {})}})
    settings = make_settings(batch=batch, timeout_ms=timeout_ms, replicas=replicas, max_replicas=max_replicas)
    return make_observation(service=service, settings=settings | setting)


def batch_lever(minimum=1, maximum=32, **options):
    return {"batch_size": Lever(name="batch_size", actuator="x", minimum=minimum, maximum=maximum, effect_delay_s=5,
                                options=options)}  # fmt: skip


def pairs(found):
    return [(c.setting["batch_size"], c.setting["batch_timeout_ms"]) for c in found]


@pytest.mark.parametrize(
    ("lever", "batch", "timeout_ms", "weighed"),
    [
        (
            batch_lever(),
            8,
            0.0,
            [(1, 0.0), (2, 0.0), (4, 0.0), (16, 0.0), (32, 0.0)],
        ),
        (batch_lever(minimum=3, maximum=6), 4, 0.0, [(3, 0.0), (6, 0.0)]),
        (batch_lever(minimum=4, maximum=4), 4, 20.0, [(4, 0.0), (4, 5.0)]),
        (batch_lever(minimum=4, maximum=4, timeout_min_ms=2.0), 4, 20.0, [(4, 2.0), (4, 5.0)]),
        (batch_lever(minimum=4, maximum=4, timeout_min_ms=6.0), 4, 20.0, [(4, 6.0)]),
        (batch_lever(minimum=4, maximum=4, timeout_max_ms=4.0), 4, 20.0, [(4, 0.0)]),
        (batch_lever(minimum=4, maximum=4, timeout_min_ms="x", timeout_max_ms="y"), 4, 20.0, [(4, 0.0), (4, 5.0)]),
        (batch_lever(minimum=4, maximum=4), 4, 5.0, [(4, 0.0)]),
        (batch_lever(minimum=4, maximum=4), 4, 3.0, [(4, 0.0)]),
        (batch_lever(minimum=8, maximum=16), 4, 0.0, [(8, 0.0), (16, 0.0)]),
    ],
)
def test_batches_and_shorter_waits(lever, batch, timeout_ms, weighed):
    seen = observation(batch, timeout_ms, levers=lever)
    assert pairs(op.batches(seen, base(batch, timeout_ms))) == weighed


def test_a_smaller_batch_is_the_riskier_step_and_the_change_names_all_its_knobs():
    found = op.batches(observation(), base())
    assert {c.setting["batch_size"]: c.risk for c in found} == {1: 0.03, 2: 0.03, 4: 0.03, 8: 0.02, 16: 0.02, 32: 0.02}
    first = found[0]
    assert first.changes == (
        Change(lever="batch_size", old={"batch_size": 8, "batch_timeout_ms": 20.0},
               new={"batch_size": 1, "batch_timeout_ms": 0.0}),
    )  # fmt: skip
    assert (first.delay_s, first.cost_per_hour, first.size) == (5, 0.0, (2.0, 1.0))


def test_a_server_without_a_timeout_is_offered_sizes_only():
    bare = Setting(lever="batch_size", values={"batch_size": 8})
    found = op.batches(observation(batch_size=bare), base(8, 0.0))
    assert pairs(found) == [(1, 0.0), (2, 0.0), (4, 0.0), (16, 0.0), (32, 0.0)]
    assert found[0].changes[0].new == {"batch_size": 1}


@pytest.mark.parametrize(
    ("replicas", "running", "ceiling", "weighed"),
    [
        (2, 2, 6, [(3, 3, 1.2), (4, 4, 2.4), (5, 5, 3.6), (6, 6, 4.8)]),
        (6, 6, 6, []),
        # Two of four are lost: what is asked for on top starts, the lost ones do not come back.
        (4, 2, 6, [(5, 3, 1.2), (6, 4, 2.4)]),
        (2, 3, 5, [(4, 4, 1.2), (5, 5, 2.4)]),
    ],
)
def test_more_replicas(replicas, running, ceiling, weighed):
    found = op.more_replicas(observation(replicas=replicas, max_replicas=ceiling), base(replicas=running))
    assert [
        (c.changes[0].new["min_replicas"], c.setting["replicas"], pytest.approx(c.cost_per_hour)) for c in found
    ] == weighed
    assert all((c.risk, c.delay_s, c.size[0]) == (0.02, 30, c.setting["replicas"]) for c in found)


@pytest.mark.parametrize(
    ("high", "weighed"),
    [
        (12, [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]),
        (40, [3, 4, 5, 7, 9, 12, 16, 22, 30, 40]),
    ],
)
def test_of_many_numbers_ten_at_equal_ratios_are_weighed(high, weighed):
    lever = {"replicas": Lever(name="replicas", actuator="x", minimum=1, maximum=high)}
    found = op.more_replicas(observation(levers=lever, max_replicas=high), base())
    assert [c.setting["replicas"] for c in found] == weighed


@pytest.mark.parametrize(("replicas", "minimum", "left"), [(3, 1, [2]), (2, 2, []), (2, 1, [1]), (1, 1, [])])
def test_one_replica_fewer(replicas, minimum, left):
    lever = {"replicas": Lever(name="replicas", actuator="x", minimum=minimum, maximum=9, cost_per_hour=1.2)}
    found = op.fewer_replicas(observation(replicas=replicas, levers=lever), base(replicas=replicas))
    assert [c.setting["replicas"] for c in found] == left
    assert all(c.cost_per_hour == pytest.approx(-1.2) for c in found)


def test_int8_where_a_model_is_configured_and_not_served_already():
    (found,) = op.int8(observation(), base())
    assert found.setting["precision"] == "int8" and found.changes[0].new == {"precision": "int8"}
    assert (found.risk, found.delay_s) == (0.15, 120)
    served = Setting(lever="precision", values={"version": "2", "precision": "int8"})
    assert op.int8(observation(precision=served), base()) == []
    none = {"precision": Lever(name="precision", actuator="x", options={"onnx": ""})}
    assert op.int8(observation(levers=none), base()) == []


def test_levers_that_are_not_there_or_were_not_read_or_would_do_nothing():
    bare = make_observation(service=make_service(levers=()))
    unread = dataclasses.replace(observation(), settings={"none": make_settings()["replicas"]})
    for seen in (bare, unread):
        for made in (op.batches, op.more_replicas, op.fewer_replicas, op.int8):
            assert made(seen, base()) == []
    useless = make_settings()["batch_size"].model_copy(update={"useless": "no batcher"})
    assert op.batches(observation(batch_size=useless), base()) == []


def test_a_pair_takes_each_knob_from_the_half_that_moved_it():
    start = base()
    batch = next(c for c in op.batches(observation(), start) if pairs([c]) == [(32, 5.0)])
    more = op.more_replicas(observation(), start)[1]
    both = op.pair(batch, more, start)
    assert both.setting == {"batch_size": 32, "batch_timeout_ms": 5.0, "replicas": 4}
    assert (both.levers, both.cost_per_hour, both.delay_s) == (("batch_size", "replicas"), 2.4, 30)
    assert both.risk == pytest.approx(0.06) and both.size == (4.0, 32.0)
    sure = dataclasses.replace(batch, risk=0.99)
    assert op.pair(sure, more, start).risk == 1.0


@pytest.mark.parametrize(
    ("running", "old", "new", "left"),
    [
        (6, {"min_replicas": 6, "max_replicas": 8}, {"min_replicas": 5, "max_replicas": 7}, 5),
        (5, {"replicas": 6}, {"replicas": 4}, 3),  # one of six does not run: two of the five that do go
        (1, {"replicas": 2}, {"replicas": 1}, 1),
        (4, {"max_replicas": 8}, {"max_replicas": 7}, 4),
    ],
)
def test_a_step_back_takes_away_what_it_says_from_those_that_run(running, old, new, left):
    base = Candidate({"batch_size": 4, "replicas": running})
    found = op.stepped(base, Change(lever="replicas", old=old, new=new))
    assert found.setting == {"batch_size": 4, "replicas": left}
