"""The ports of detection: what a metrics source and a detector are. One contract suite each (tests/contracts)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from detection.model import BucketWindow, FloatArray, MetricWindow, Score, Service, Span, VersionWindow

Baseline = Mapping[str, Any]
"""What a detector learned: numpy arrays and plain values only, because each task is a fresh process."""


class MetricsSource(Protocol):
    """Reads signals. A service without any series is absent from the answer; an unreachable source raises.

    Where the answer is a `Reading`, its `unreadable` names the services that could not be read, each with its reason,
    while the others were. Raises where nothing at all could be read: SourceUnreachable (try again), SourceRefused,
    SourceGarbage or ConfigError. Never answers half of what was asked without saying so.
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


@runtime_checkable
class TellsVersions(Protocol):
    """What a source may also offer: which versions of a service's model answered, and when."""

    def read_versions(self, services: Sequence[Service], span: Span) -> Mapping[str, VersionWindow]:
        """By service name; absent where its metrics carry no version. What cannot be read is absent as well: nothing is
        concluded from a version that nobody saw."""
        ...


class Detector(Protocol):
    """A detector that speaks for itself, window by window; see detection.methods for those computed as matrices.

    Never alarms by itself: `detection.anomalies` and `detection.incidents` turn scores into anomalies and incidents.
    """

    name: str

    def learn(self, history: Mapping[str, MetricWindow]) -> Baseline:
        """What is normal, from history without incidents, by keys of one's own (a service, a series)."""
        ...

    def score(self, windows: Mapping[str, MetricWindow], baseline: Baseline, at_s: float) -> Sequence[Score]:
        """Scores at `at_s`, using no sample after it. Abstains (score None, with a reason) rather than guess.

        A score above 1 without a tier is a warning. What is well within its threshold may be left out.
        """
        ...


@runtime_checkable
class SeldomSpeaks(Protocol):
    """What a detector may also offer, so that a replay need not ask it at every time."""

    def may_speak(self, window: MetricWindow, times_s: FloatArray) -> NDArray[np.bool_]:
        """At which of the times it could have something to say about the window's service; the others are passed
        over."""
        ...
