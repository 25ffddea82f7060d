"""The moves of a learned policy: within bounds, none twice, none with a lever that is not there or was tried."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.policies import seen
from tuning.planning.moves import MOVES, NAMES, targets

NAN = math.nan


def open_moves(**known: float) -> list[str]:
    return [name for name, free in zip(NAMES, targets(seen(**known)).open[0], strict=True) if free]


def leads_to(name: str, **known: float) -> tuple[float, float, float, float]:
    led, k = targets(seen(**known)), NAMES.index(name)
    return tuple(float(values[0, k]) for values in (led.batch, led.timeout_ms, led.replicas, led.int8))


def test_every_move_leads_where_its_name_says():
    room = {"batch": 4, "batch_max": 64, "replicas": 2, "replicas_max": 10, "timeout_ms": 5, "timeout_min_ms": 1}
    assert leads_to("batch x2", **room) == (8, 5, 2, 0)
    assert leads_to("batch x4", **room) == (16, 5, 2, 0)
    assert leads_to("batch to its bound", **room) == (64, 5, 2, 0)
    assert leads_to("no batch wait", **room) == (4, 1, 2, 0)
    assert leads_to("one replica more", **room) == (4, 5, 3, 0)
    assert leads_to("replicas x2", **room) == (4, 5, 4, 0)
    assert leads_to("replicas to their bound", **room) == (4, 5, 10, 0)
    assert leads_to("batch to its bound, int8", **room, int8=1) == (64, 5, 2, 1)
    assert leads_to("batch to its bound, replicas x2", **room) == (64, 5, 4, 0)


def test_half_a_replica_more_is_one_more():
    assert leads_to("replicas x1.5", replicas=3, replicas_max=10)[2] == 4
    assert leads_to("replicas x1.5", replicas=1, replicas_max=10)[2] == 2


def test_two_moves_to_the_same_setting_are_one():
    assert open_moves(batch=4, batch_max=8, replicas=2, replicas_max=3, int8=0, timeout_ms=0) == [
        "hold", "batch x2", "one replica more", "batch to its bound, replicas x2",
    ]  # fmt: skip


def test_a_lever_that_is_not_there_moves_nothing():
    none = {"batch_max": NAN, "timeout_min_ms": NAN, "replicas_max": NAN, "int8": 0}
    assert open_moves(**none) == ["hold"]
    assert open_moves(**{**none, "int8": 1}) == ["hold", "int8"]


def test_a_pair_needs_room_for_both_halves():
    assert "batch to its bound, int8" not in open_moves(batch=8, batch_max=8, int8=1)
    assert "batch to its bound, replicas x2" not in open_moves(batch=4, batch_max=8, replicas=3, replicas_max=3)


def test_a_lever_that_was_tried_in_vain_is_in_no_move():
    for lever in ("batch_size", "replicas", "precision"):
        free = open_moves(int8=1, timeout_ms=5, timeout_min_ms=0, **{f"tried_{lever}": 1})
        levers = {name for move in MOVES if move.name in free for name in move.levers}
        assert lever not in levers and len(levers) == 2


@given(
    batch=st.integers(1, 200), batch_max=st.integers(1, 200), replicas=st.integers(1, 50), top=st.integers(1, 50),
    timeout=st.floats(0, 1000), least=st.floats(0, 1000),
)  # fmt: skip
def test_nothing_that_is_open_leaves_its_bounds(batch, batch_max, replicas, top, timeout, least):
    known = {"batch": batch, "batch_max": batch_max, "replicas": replicas, "replicas_max": top}
    led = targets(seen(**known, timeout_ms=timeout, timeout_min_ms=least, int8=1))
    free = led.open[0]
    assert free[0] and (led.batch[0, 0], led.replicas[0, 0]) == (batch, replicas)
    assert (led.batch[0, free] <= max(batch, batch_max)).all() and (led.replicas[0, free] <= max(replicas, top)).all()
    assert (led.batch[0, free] >= batch).all() and (led.replicas[0, free] >= replicas).all()
    values = np.stack([led.batch[0], led.timeout_ms[0], led.replicas[0], led.int8[0]])[:, free].T.tolist()
    assert len({tuple(row) for row in values}) == len(values)
