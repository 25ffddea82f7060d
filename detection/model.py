"""The values of the first half of the flow: Service, MetricWindow, Score, Anomaly, Incident.

Frozen. Each names its parent, so that a report is a walk along ids. Times are epoch seconds (UTC) as floats and end
in `_s`; durations end in `_s` or `_ms`. Values that travel (XCom, ledger) are pydantic models and go through
`model_dump(mode="json")`; windows hold numpy arrays and travel through the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, model_validator

FloatArray = NDArray[np.float64]
Mode = Literal["observe", "approve", "act"]
ServiceKind = Literal["inference", "training"]
Tier = Literal["warn", "act"]
Severity = Literal["info", "warning", "critical"]
Kind = Literal["rule", "vote", "joint", "own"]
PercentileSource = Literal["histogram", "summary", "none"]


def make_id(*parts: object) -> str:
    """A short id that depends on nothing but its parts: the same parts give the same id in every process."""
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:16]


class Value(BaseModel):
    """Base of every value that travels between tasks: frozen, closed, JSON without NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, both ends included, sampled every `step_s` seconds."""

    start_s: float
    end_s: float
    step_s: float

    @property
    def points(self) -> int:
        return round((self.end_s - self.start_s) / self.step_s) + 1

    def times(self) -> FloatArray:
        """The sample times, shape (points,)."""
        return self.start_s + self.step_s * np.arange(self.points, dtype=np.float64)


class Objective(Value):
    """One promise on a latency: the P95 `signal` stays under limit_ms, and may be over it for for_s."""

    signal: str
    limit_ms: float
    for_s: float = 60.0


OBJECTIVES = ("p95_ms", "ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms", "iteration_ms")
"""The signals that may be promised, in the order in which they are told; each is a limit of `Slo` by the same name."""


class Slo(Value):
    """What a service promises. `for_s`: how long it may be broken before it counts, where the objective's own
    (`ttft_p95_for_s`, ...) says nothing else.

    Limits in ms of the P95 of a request (p95_ms: of the duration that its preset names), of the time to the first
    token, of the time per output token, of the whole request; or of the mean time of a training job's iteration
    (iteration_ms); at least one. Shares: error_rate, abort_rate (aborted,
    or ended without an answer).
    """

    p95_ms: float | None = None
    for_s: float = 60.0
    error_rate: float = 0.01
    accuracy_drop: float = 0.01
    ttft_p95_ms: float | None = None
    ttft_p95_for_s: float | None = None
    itl_p95_ms: float | None = None
    itl_p95_for_s: float | None = None
    e2e_p95_ms: float | None = None
    e2e_p95_for_s: float | None = None
    iteration_ms: float | None = None
    abort_rate: float = 0.05

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.objectives:
            raise ValueError("promises nothing: give p95, ttft_p95, itl_p95 or e2e_p95 (iteration, of a training job)")
        return self

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """Every latency that is promised, in the order of OBJECTIVES."""
        limits = {
            "p95_ms": (self.p95_ms, None),
            "ttft_p95_ms": (self.ttft_p95_ms, self.ttft_p95_for_s),
            "itl_p95_ms": (self.itl_p95_ms, self.itl_p95_for_s),
            "e2e_p95_ms": (self.e2e_p95_ms, self.e2e_p95_for_s),
            "iteration_ms": (self.iteration_ms, None),
        }
        return tuple(
            Objective(signal=signal, limit_ms=limit, for_s=self.for_s if own is None else own)
            for signal, (limit, own) in limits.items()
            if limit is not None
        )

    @property
    def main(self) -> Objective:
        """The first of them: what is shown where there is room for one."""
        return self.objectives[0]


class Lever(Value):
    """One lever of a service: what may be changed, within which bounds, and through what.

    name: "batch_size", "replicas", "precision", "release", "variant", "admission", "breaker" or "restart"
    (the tasks adjust_batch_size, scale_replicas, quantize_int8, revert_release, switch_variant, limit_admission,
    break_circuit, restart_replica).
    actuator: a name in the actuators' registry. minimum, maximum: bounds of the lever's main knob.
    mode: overrides the service's mode for this lever. options: the rest of the lever's own settings, validated by
    tuning.settings and read by its actuator (connection, namespace, target, timeout bounds, ...).
    """

    name: str
    actuator: str
    minimum: float = 1
    maximum: float = 1
    mode: Mode | None = None
    cost_per_hour: float = 0.0
    cool_down_s: float | None = None
    effect_delay_s: float = 5.0
    options: dict[str, object] = {}


class OwnPreset(Value):
    """A preset that is data, of services.yaml or of a package: what differs from the preset that it is `like`.

    The fields are those of detection.presets.Preset; "" and {} leave what that one has. percentiles: where they come
    from; None: from a histogram, or as there. buckets_unit: of the histogram's bounds.
    """

    like: str = ""
    title: str = ""
    signals: dict[str, str] = {}
    names: dict[str, str] = {}
    units: dict[str, str] = {}
    buckets: str = ""
    buckets_unit: Literal["s", "ms", "us"] = "s"
    percentiles: PercentileSource | None = None
    replica_label: str = ""
    presence: str = ""


class OwnSignal(Value):
    """A signal that a service defines by PromQL; see detection.own_signals, which says what is wrong with one.

    kind: a class of signals. worse: up, down, both or none. floor: the smallest change that is news, in its unit.
    guard: whether a change may not make it worse (None: as its class has it).
    """

    promql: str
    kind: str = "inference"
    unit: str = ""
    worse: str = "both"
    floor: float = 0.0
    title: str = ""
    guard: bool | None = None


class InputSample(Value):
    """Where a sample of a service's inputs lies. reference: what they should be like ("": their own earlier days).

    time_column: with the time of a row ("": its file's). ignore: columns that are not looked at. fresh_s: how old the
    newest row may be.
    """

    sample: str
    reference: str = ""
    time_column: str = ""
    ignore: tuple[str, ...] = ()
    fresh_s: float = 86_400.0


class Service(Value):
    """One inference service, or a training job: how to find its series, what it promises, what may be changed.

    kind: a training job is only watched; it has no lever.

    selectors: Prometheus label matchers (equality) that single out its series. engine: a name of
    tuning/planning/engines, what turns its load into latency, and edges_ms the bounds of the buckets behind a
    percentile, by its signal; both from its preset. queries: signals that its preset does
    not read, or reads otherwise, as templates like a preset's (see detection.presets.of). preset: what `serving` means
    where it is no preset of slotune or of a package. cost_per_hour: of one replica (0: the replicas lever's).
    own_signals: that no preset has, by name. exporters: labels by the name of what shows its machine (see
    detection.exporters). chain: signals of which each is thought to move the next one.
    """

    name: str
    serving: str
    engine: str = "dynamic_batching"
    edges_ms: dict[str, tuple[float, ...]] = {}
    kind: ServiceKind = "inference"
    selectors: dict[str, str] = {}
    slo: Slo
    mode: Mode = "observe"
    levers: dict[str, Lever] = {}
    labels: dict[str, str] = {}
    queries: dict[str, str] = {}
    preset: OwnPreset | None = None
    cost_per_hour: float = 0.0
    own_signals: dict[str, OwnSignal] = {}
    exporters: dict[str, dict[str, str]] = {}
    inputs: InputSample | None = None
    chain: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricWindow:
    """The signals of one service (or one replica of it) over a span, on a regular grid.

    values[signal]: float64, shape (span.points,); NaN is a gap and never means 0. A signal that the source does not
    have at all is absent from `values`. `stale_s[signal]`: age of the newest sample at the span's end.
    bounds_ms: upper edges of the finite buckets behind the percentiles, ascending; a percentile at the last of them is
    censored: it lies there or anywhere beyond (see detection.windows). `unread[signal]`: why a signal that was asked
    for could not be read, which is another thing than a service that does not export it.
    """

    service: str
    span: Span
    values: Mapping[str, FloatArray]
    percentile_source: PercentileSource = "none"
    replica: str | None = None
    stale_s: Mapping[str, float] = field(default_factory=dict)
    bounds_ms: tuple[float, ...] = ()
    unread: Mapping[str, str] = field(default_factory=dict)

    def last(self, signal: str, within_s: float | None = None) -> float | None:
        """The newest number of a signal, None when there is none (in the last `within_s` seconds)."""
        values = self.values.get(signal)
        if values is None:
            return None
        if within_s is not None:
            values = values[-(int(within_s // self.span.step_s) + 1) :]
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if finite.size else None

    def between(self, start_s: float, end_s: float) -> MetricWindow:
        """The part of the window with start_s <= t <= end_s (empty arrays when there is none)."""
        times = self.span.times()
        keep = (times >= start_s - 1e-9) & (times <= end_s + 1e-9)
        kept = times[keep]
        first, last = (float(kept[0]), float(kept[-1])) if kept.size else (start_s, start_s - self.span.step_s)
        return MetricWindow(
            self.service,
            Span(first, last, self.span.step_s),
            {name: values[keep] for name, values in self.values.items()},
            self.percentile_source,
            self.replica,
            dict(self.stale_s),
            self.bounds_ms,
            dict(self.unread),
        )


@dataclass(frozen=True)
class BucketWindow:
    """Latency histogram of one service over a span: what arrived in each bucket during each step.

    upper_ms: bucket upper edges, shape (k,), last one inf. counts: shape (span.points, k), requests that fell INTO
    each bucket during the step that ends at the grid time (not cumulative over buckets); NaN where unknown.
    """

    service: str
    span: Span
    upper_ms: FloatArray
    counts: FloatArray


@dataclass(frozen=True)
class VersionWindow:
    """Which versions of a service's model answered over a span.

    shares[version]: float64, shape (span.points,): the version's part of the service (of its requests, or of its
    replicas, as its preset counts), 0..1; NaN where nothing was counted at all.
    """

    service: str
    span: Span
    shares: Mapping[str, FloatArray]


_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class Reading(Mapping[str, _T], Generic[_T]):
    """What a source found, by service name, and what it could not read.

    unreadable: services that were asked for and could not be read, with the reason in a sentence; none of them is
    among what was found. A service in neither has no series. notes: what is odd about a service that was read.
    clock_skew_s: the source's clock minus ours as far as it is certain (0.0: no difference can be told), None where
    the source shows no clock.
    """

    found: Mapping[str, _T] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    clock_skew_s: float | None = None

    def __getitem__(self, service: str) -> _T:
        return self.found[service]

    def __iter__(self) -> Iterator[str]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)


class Score(Value):
    """What one detector said about one service at one time.

    score: scaled so that 1 is the detector's own threshold; None when it abstains (then `reason` says why).
    kind: how what it opens is kept: a rule lets go by its own clock, a joint score lasts longer. symptom: what
    an anomaly of it is called, "" where the signal says it. evidence: what was known of the series, see
    detection.evidence. beyond_s: when its signal was last beyond the limit, of a rule that goes on firing for a while
    after that; None: at at_s.
    """

    service: str
    detector: str
    signal: str | None
    at_s: float
    score: float | None
    tier: Tier | None = None
    observed: float | None = None
    expected_low: float | None = None
    expected_high: float | None = None
    contributions: dict[str, float] = {}
    replica: str | None = None
    reason: str = ""
    kind: Kind = "vote"
    symptom: str = ""
    evidence: dict[str, float] = {}
    beyond_s: float | None = None


class Anomaly(Value):
    """Scores of one signal of one service that agree. `since_s`: the onset.

    evidence: what was known of the series at the last vote; {} for a rule. seen: how many judgements have voted for it.
    probability: that it is a real problem, by what was learned from labels; None where nothing was learned.
    because: what moved that probability most, as log odds. model: which model says so. beyond_s: the newest moment at
    which something was seen to be wrong (a rule goes on firing after it, an alert of others stands); None: at_s.
    """

    id: str
    service: str
    signal: str
    tier: Tier
    since_s: float
    at_s: float
    observed: float | None
    expected_low: float | None
    expected_high: float | None
    score: float
    detectors: tuple[str, ...]
    contributions: dict[str, float] = {}
    replica: str | None = None
    reason: str
    kinds: tuple[Kind, ...] = ()
    symptom: str = ""
    evidence: dict[str, float] = {}
    seen: int = 1
    probability: float | None = None
    because: dict[str, float] = {}
    model: str = ""
    beyond_s: float | None = None

    @property
    def newest_s(self) -> float:
        """When something was last seen to be wrong."""
        return self.at_s if self.beyond_s is None else self.beyond_s


class Incident(Value):
    """Anomalies of one service that belong together. `id` depends on service, symptom and onset only.

    symptom: what hurts ("latency", "errors", "absent_data", "saturation", "idle", "slow_replica", "traffic", ...).
    tier: only "act" reaches tune_service. signals: contributing signals, strongest first.
    """

    id: str
    service: str
    symptom: str
    tier: Tier
    severity: Severity
    opened_at_s: float
    detected_at_s: float
    signals: tuple[str, ...]
    anomalies: tuple[Anomaly, ...]
    reason: str
    attempt: int = 1
