"""Prometheus' history, read a few services at a time and kept, so that a run that was stopped reads what is missing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from detection.errors import SourceUnreachable
from detection.model import BucketWindow, MetricWindow, Span
from slotune.rehearsal.counterfactual import History
from slotune.rehearsal.kept import Folder
from slotune.rehearsal.reading import AT_ONCE, Reading, packed, unpacked
from tests.slotune.rehearsal.worlds import SERVICE, history

NOW_S = 1_700_100_000.0
SERVICES = [SERVICE.model_copy(update={"name": f"s{k:02}"}) for k in range(2 * AT_ONCE + 2)]


class Source:
    """Knows all services but one, and may fail from some read on."""

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[list[str]] = []
        self.spans: list[Span] = []
        self._fails_after = fails_after

    def read(self, services, signals, span):
        self.asked.append([service.name for service in services])
        self.spans.append(span)
        if self._fails_after is not None and len(self.asked) > self._fails_after:
            raise SourceUnreachable("Prometheus does not answer")
        values = {"p95_ms": np.full(span.points, 20.0)}
        return {s.name: MetricWindow(s.name, span, values, "histogram") for s in services if s.name != "s03"}

    def read_buckets(self, services, span):
        return {}

    def read_replicas(self, services, signals, span):
        return {}


def read(source: Source, folder, said: list[str], now_s: float = NOW_S):
    reading = Reading(source, SERVICES, Folder(folder), "the settings", said.append)
    return reading, reading.histories(reading.span(86_400.0, 60.0, now_s), lambda _share: None)


def test_a_few_are_read_at_a_time_and_loaded_when_they_are_needed(tmp_path):
    source = Source()
    _, found = read(source, tmp_path, [])
    assert [len(names) for names in source.asked] == [AT_ONCE, AT_ONCE, 2]
    assert sorted(found) == [s.name for s in SERVICES if s.name != "s03"]
    assert found["s01"].load().window.span.points == 1441
    assert found["s01"].digest != found["s02"].digest


def test_a_run_that_was_stopped_reads_the_rest_up_to_the_same_moment(tmp_path):
    broken, said = Source(fails_after=1), []
    with pytest.raises(SourceUnreachable):
        read(broken, tmp_path, said)
    source = Source()
    reading, found = read(source, tmp_path, said, NOW_S + 3600.0)
    assert len(found) == len(SERVICES) - 1
    assert source.asked == [
        [s.name for s in SERVICES[AT_ONCE : 2 * AT_ONCE]],
        [s.name for s in SERVICES[2 * AT_ONCE :]],
    ]
    assert {span.end_s for span in source.spans} == {broken.spans[0].end_s}
    assert "Going on with a run that was stopped" in said[0] and f"{AT_ONCE} of {len(SERVICES)}" in said[1]
    reading.done()
    again = Source()
    read(again, tmp_path, said, NOW_S + 3600.0)
    assert again.spans[0].end_s == NOW_S // 60 * 60 + 3600.0 and len(again.asked) == 3


def test_a_history_comes_back_as_it_was():
    of = history()
    replica = MetricWindow("ranker", of.window.span, {"p95_ms": of.window.values["p95_ms"]}, "histogram", "pod/a b")
    counts = np.arange(of.window.span.points * 2.0).reshape(-1, 2)
    buckets = BucketWindow("ranker", of.window.span, np.array([10.0, np.inf]), counts)
    window = replace(of.window, bounds_ms=(10.0, 20.0), unread={"qps": "why"})
    back = unpacked(packed(History(window, {"pod/a b": replica}, buckets)))
    assert replace(back.window, values={}) == replace(window, values={})
    for name, values in window.values.items():
        np.testing.assert_array_equal(back.window.values[name], values)
    np.testing.assert_array_equal(back.replicas["pod/a b"].values["p95_ms"], replica.values["p95_ms"])
    assert replace(back.replicas["pod/a b"], values={}) == replace(replica, values={})
    np.testing.assert_array_equal(back.buckets.counts, counts)
    assert back.buckets.upper_ms[-1] == np.inf and back.buckets.span == buckets.span
