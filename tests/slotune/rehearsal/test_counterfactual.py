"""A service as it would have been: measured until the setting differs, modelled then, and measured again after."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from slotune.rehearsal.counterfactual import Counterfactual, usual
from slotune.rehearsal.drivers import drivers
from tests.slotune.rehearsal.worlds import SERVICE, START_S, STEP_S, WINDOW_S, causes, history, world

END_S = START_S + 239 * STEP_S


def test_nothing_is_written_while_the_setting_is_the_recorded_one():
    recorded = history()
    found = world(recorded)
    found.advance(END_S)
    assert not found.departed.any()
    for name, values in recorded.window.values.items():
        np.testing.assert_array_equal(found.window.values[name], values)


def test_from_a_change_on_numbers_are_modelled_and_the_past_is_not_touched():
    recorded = history()
    found = world(recorded)
    found.put("batch_size", (1, 0.0))
    found.advance(END_S)
    first = int(np.flatnonzero(found.departed)[0])
    assert first == 41, "five seconds after the change, at the next point"
    assert found.departed[first:].all()
    np.testing.assert_array_equal(found.window.values["p95_ms"][:first], recorded.window.values["p95_ms"][:first])
    assert (found.window.values["rows_per_batch"][first + 4 :] == 1.0).all()
    assert (found.window.values["batch_size"][first:] == 1.0).all()
    # Two replicas of 8.5 ms a row carry 235 requests a second: 100 keep them 42 % busy.
    assert np.median(found.window.values["busy"][first + 8 :]) == pytest.approx(0.425, rel=0.1)


def test_put_back_it_is_measured_again():
    recorded = history()
    found = world(recorded)
    found.put("batch_size", (1, 0.0))
    found.advance(START_S + 1200.0)
    found.put("batch_size", (4, 0.0))
    found.advance(END_S)
    last = int(np.flatnonzero(found.departed)[-1])
    assert START_S + 1200.0 < START_S + last * STEP_S < START_S + 1500.0
    np.testing.assert_array_equal(
        found.window.values["p95_ms"][last + 1 :], recorded.window.values["p95_ms"][last + 1 :]
    )


def test_replicas_run_after_their_delay_and_cost_their_hours():
    found = world(history())
    found.put("replicas", 4)
    assert found.running() == 2 and found.knobs().desired == 4
    found.advance(START_S + 615.0)
    assert found.ready[41] == 2
    found.advance(START_S + 660.0)
    assert found.ready[43] == 4 and found.running() == 4


def test_an_overload_queues_until_capacity_comes():
    """One replica of batches of one carries 118 requests a second; 200 come."""
    recorded = history(qps=200.0)
    found = world(recorded)
    found.put("replicas", 1)
    found.put("batch_size", (1, 0.0))
    found.advance(START_S + 1200.0)
    index = int(1200 / STEP_S)
    depth, p95 = found.window.values["queue_depth"], found.window.values["p95_ms"]
    # 590 s of 82 requests a second more than are answered
    assert depth[index] == pytest.approx(590 * 82, rel=0.1)
    assert p95[index] > 100_000
    found.put("replicas", 6)
    found.advance(END_S)
    assert found.window.values["p95_ms"][-1] < 100 and found.window.values["queue_depth"][-1] < 20


def test_a_change_that_the_recording_has_is_no_departure():
    recorded = history()
    batch = np.where(np.arange(240) < 50, 4.0, 8.0)
    recorded = replace(
        recorded, window=replace(recorded.window, values={**recorded.window.values, "batch_size": batch})
    )
    found = world(recorded, START_S + 50 * STEP_S - 20.0)
    found.put("batch_size", (8, 0.0))
    found.advance(END_S)
    assert not found.departed.any()


def test_what_is_set_in_the_recording_later_is_set_here_as_well():
    recorded = history()
    batch = np.where(np.arange(240) < 100, 4.0, 16.0)
    recorded = replace(
        recorded, window=replace(recorded.window, values={**recorded.window.values, "batch_size": batch})
    )
    found = world(recorded)
    found.put("batch_size", (1, 0.0))
    found.advance(END_S)
    assert found.departed[60] and not found.departed[-1]
    assert found.knobs().batch == 16


def test_a_twin_begins_with_what_was_set_before():
    recorded = history()
    found = world(recorded)
    found.put("replicas", 4)
    found.advance(START_S + 1800.0)
    found.put("batch_size", (1, 0.0))
    found.advance(END_S)
    twin = Counterfactual.under(found, found.draw, recorded, START_S + 1500.0)
    assert (twin.knobs().desired, twin.knobs().batch) == (4, 4)


def test_arrivals_are_what_was_answered_and_what_joined_the_queue():
    recorded = history()
    depth = np.where(np.arange(240) < 100, 0.0, 10.0 * STEP_S * (np.arange(240) - 100))
    window = replace(recorded.window, values={**recorded.window.values, "queue_depth": depth})
    found = drivers(window, SERVICE, WINDOW_S)
    assert found.rate[50] == pytest.approx(100.0)
    assert found.rate[150] == pytest.approx(110.0)


def test_the_line_is_found_and_a_slow_hour_is_no_part_of_it():
    recorded = history(points=480, surge=1.6)
    curve = causes(recorded).model.curve()
    assert curve.at(2.0) == pytest.approx(9.0, rel=0.05)
    slow = np.where((np.arange(480) > 300) & (np.arange(480) < 360), 2.0, 1.0)
    values = {**recorded.window.values, "batch_ms": recorded.window.values["batch_ms"] * slow}
    found = drivers(replace(recorded.window, values=values), SERVICE, WINDOW_S)
    assert found.model.curve().at(2.0) == pytest.approx(9.0, rel=0.1)
    assert np.median(found.slow[310:350]) == pytest.approx(2.0, rel=0.1)
    assert usual(found, SERVICE).gain > 1.0


def test_what_a_full_queue_refused_is_no_error_of_its_own_also_where_its_gauge_happened_to_be_low():
    recorded = history()
    values = dict(recorded.window.values)
    n = recorded.window.span.points
    over = np.arange(n) >= n // 2
    values["busy"] = np.where(over, 1.0, 0.4)
    values["queue_depth"] = np.where(over, np.where(np.arange(n) % 3 == 0, 50.0, 14.0), 0.3)
    values["error_rate"] = np.where(over, 0.31, 0.01)
    found = causes(replace(recorded, window=replace(recorded.window, values=values)))
    assert found.queue_limit == 25
    np.testing.assert_allclose(found.failed, 0.01)
    idle = {**values, "busy": np.full(n, 0.4)}
    kept = causes(replace(recorded, window=replace(recorded.window, values=idle)))
    assert kept.queue_limit is None and kept.failed[-10:] == pytest.approx(0.31), "a server with room refuses nothing"
