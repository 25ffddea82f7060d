"""Histograms, the load schedule, and what the witnesses say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from demo import histogram, models, story
from demo.open_loop import Control, rate_at
from demo.scenarios import SCENARIOS, capacity_rps, slo_ms, surge_rps
from demo.server.metrics import SECONDS


def test_histogram_quantiles_are_at_most_2_percent_high_and_windows_add_up():
    ms = np.random.default_rng(3).lognormal(3.0, 1.0, 5000)
    one = histogram.count(ms)
    two = histogram.merge([histogram.count(ms[:1000]), histogram.count(ms[1000:])])
    assert one == two
    for q in (0.5, 0.95, 0.99):
        exact = float(np.quantile(ms, q, method="inverted_cdf"))
        assert exact <= histogram.quantile_ms(two, q) <= exact * 1.0201
    assert histogram.quantile_ms({}, 0.95) is None


def test_schedule():
    schedule = ((10.0, 5.0), (50.0, 2.0), (20.0, None))
    assert [rate_at(schedule, t) for t in (0, 4.9, 5, 6.9, 7, 1000)] == [10, 10, 50, 50, 20, 20]
    assert rate_at(((5.0, 1.0),), 2.0) == 0.0


def test_control_file_round_trip(tmp_path: Path):
    control = Control(("127.0.0.1:1", "127.0.0.1:2"), ((5.0, None),), 3)
    control.write(tmp_path / "c.json")
    assert Control.read(tmp_path / "c.json") == control


def _seconds(p95s: list[float | None]) -> list[story.Second]:
    return [
        story.Second(100.0 + i, 10, 0 if p is None else 10, 0, {} if p is None else histogram.count([p] * 10))
        for i, p in enumerate(p95s, 1)
    ]


def test_under_for_good_is_the_last_return():
    seconds = _seconds([10.0] * 5 + [500.0] * 10 + [10.0] * 10 + [500.0] * 3 + [10.0] * 20)
    since = story.under_for_good_since(seconds, 100.0, 100.0)
    # the last bad second is t=128; the rolling window of 5 s holds it until t=132
    assert since == 133.0
    assert story.broken_at(seconds, 100.0, 100.0) == 106.0


def test_never_over_over_at_the_end_and_silence():
    assert story.under_for_good_since(_seconds([10.0] * 9), 100.0, 100.0) == 100.0
    assert story.under_for_good_since(_seconds([10.0] * 9 + [500.0]), 100.0, 100.0) is None
    assert story.under_for_good_since(_seconds([10.0] * 9 + [None] * 6), 100.0, 100.0) is None
    assert story.broken_at(_seconds([10.0] * 9), 100.0, 100.0) is None


def test_load_log_reads_only_whole_lines(tmp_path: Path):
    log = story.LoadLog(tmp_path / "load.jsonl")
    assert log.read() == []
    line = json.dumps({"t": 1.0, "sent": 2, "ok": 1, "errors": 1, "bins": {"3": 1}})
    (tmp_path / "load.jsonl").write_text(line + "\n" + line[:10])
    assert [s.errors for s in log.read()] == [1]
    with (tmp_path / "load.jsonl").open("a") as out:
        out.write(line[10:] + "\n")
    assert len(log.read()) == 2


def test_actions_come_from_changed_receipts_only():
    receipt = {"lever": "batch_size", "before": {"batch_size": 1}, "after": {"batch_size": 8}, "changed": True}
    events = [
        story.Event(1.0, "adjust_batch_size", "intent", {}),
        story.Event(2.0, "adjust_batch_size", "result", {**receipt, "at_s": 12.5}),
        story.Event(3.0, "adjust_batch_size", "result", {**receipt, "at_s": 13.0, "changed": False}),
        story.Event(4.0, "roll_back", "result", {**receipt, "at_s": 20.0}),
    ]
    made = story.actions(events, 10.0)
    assert [(a["at_s"], a["undo"]) for a in made] == [(2.5, False), (10.0, True)]
    assert story.line_of(events[1]) == "adjust_batch_size: batch_size 1 -> 8"


def test_numbers_of_a_scenario_follow_the_machine():
    service = {1: 0.0124, 8: 0.017}
    assert capacity_rps(service, 1) == pytest.approx(80.6, abs=0.1)
    assert capacity_rps(service, 8, replicas=2) == pytest.approx(941, abs=1)
    assert slo_ms(service, 1, 8.0) == 100.0
    for scenario in SCENARIOS.values():
        assert scenario.baseline < 0.7, "the baseline must be calm"
        assert scenario.expected != "resolved" or (scenario.fault_load or 0) > 1 or scenario.fault or (scenario.release and 3 * scenario.baseline > 1.1) or (
            scenario.language is not None and scenario.language.fault_rps > scenario.language.baseline_rps
        )
    assert set(SCENARIOS) >= {"batch", "hold", "replicas", "steady"}


def test_buckets_are_fine_enough_for_a_p95():
    assert len(SECONDS) == 40
    assert (SECONDS[0], SECONDS[-1]) == (0.001, 30.0)
    assert max(b / a for a, b in itertools.pairwise(SECONDS)) < 1.31


def test_small_model_is_right_more_often_than_chance(tmp_path: Path):
    shape = models.Shape(width=128, layers=1, train_rows=600)
    path = models.cached(tmp_path, shape)
    written = path.stat().st_mtime_ns
    assert models.cached(tmp_path, shape).stat().st_mtime_ns == written, "made once"
    import onnxruntime as ort

    inputs, labels = models.sample(400, seed=9, shape=shape)
    out = ort.InferenceSession(str(path)).run(None, {models.INPUT: inputs})[0]
    assert (out.argmax(1) == labels).mean() > 0.6
    assert models.Shape(seed=8).digest() != models.Shape().digest()


def test_a_surge_is_raised_only_where_the_service_turned_out_to_carry_more():
    assert surge_rps(1.5, 100.0) == 150.0
    assert surge_rps(1.5, 200.0, now_rps=150.0) == 300.0
    assert surge_rps(1.5, 100.0, now_rps=150.0) is None
    assert surge_rps(1.5, 104.0, now_rps=150.0) is None, "within what capacity is known to"
    assert surge_rps(1.5, 60.0, now_rps=150.0) is None, "a service that got slower needs no more"
