"""The ports of detection: what a metrics source and a detector are. One contract suite each (tests/contracts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from detection.model import BucketWindow, MetricWindow, Score, Service, Span

Baseline = Mapping[str, Any]
"""What a detector learned: numpy arrays and plain values only, because each task is a fresh process."""


class MetricsSource(Protocol):
    """Reads signals. A service without any series is absent from the answer; an unreachable source raises.

    Raises SourceUnreachable (try again), SourceRefused or SourceGarbage; never answers half of what was asked
    without saying so.
    """

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        """Windows by service name; one query per signal for ALL services that share a preset."""
        ...

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        """Windows by service name and replica; {} for a service whose series carry no replica."""
        ...

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        """Latency buckets by service name; absent where the service exports no histogram."""
        ...


class Detector(Protocol):
    """Scores services. Never alarms by itself: `detection.incidents` turns scores into anomalies and incidents."""

    name: str

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """What is normal, from history without incidents; vectorised over services."""
        ...

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """Scores at `at_s`, using no sample after it. Abstains (score None, with a reason) rather than guess."""
        ...
