"""The port of an engine: what turns arrivals and a setting into latency, and the values that go in and out of it.

The planner, the ranking and the texts know nothing of what an engine computes with: knobs are named values, and what
is predicted are percentiles of objective signals by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from detection.model import Incident, MetricWindow, Slo
from tuning.model import Change, Interval, Knob, Observation
from tuning.planning.settings import PlanningSettings
from tuning.planning.situation import Situation

S = TypeVar("S", bound=Situation)


@dataclass(frozen=True)
class Candidate:
    """A setting that may be tried.

    setting: every knob that the engine knows as it would read afterwards, moved or not ({"batch_size": 8, "replicas":
    2, ...}). changes: what leads there, () for the setting as it is. loss: the share of right answers (0..1) that it
    costs against what serves now. risk: 0..1, how hard it is to undo. size: orders
    settings that do equally well, the smaller first.
    """

    setting: Mapping[str, Knob]
    changes: tuple[Change, ...] = ()
    cost_per_hour: float = 0.0
    delay_s: float = 0.0
    risk: float = 0.0
    size: tuple[float, ...] = ()
    loss: float = 0.0

    @property
    def levers(self) -> tuple[str, ...]:
        return tuple(change.lever for change in self.changes)


@dataclass(frozen=True)
class Predicted:
    """What a candidate would show.

    shown: by objective signal, the percentile with its 90 % interval. meets: probability that all limits are met.
    carries: probability that the load can be answered at all. room: the same with a tenth to spare and a surprise on
    top. load: utilisation, 1 and more never settles. drain_s: until the present queue is empty, inf when it never is.
    busy: share of the time that a replica would compute. refused: share of the requests that are not taken in, with its
    interval; in_time_per_s: answers within the objective per second (None: the engine does not tell). unproven: it
    rests on a gain that was never measured here. unknown: nobody has seen this setting or one like it, so that its
    figures are a guess. exported: by objective signal, what the server's histogram will read there, where its buckets
    are known: a percentile is a straight line between two of their edges. edge: why a percentile may come out at either
    of two values far apart, "" where it does not.
    """

    shown: Mapping[str, Interval]
    meets: float
    carries: float
    room: float
    load: float
    drain_s: float
    busy: float
    refused: Interval | None = None
    in_time_per_s: float | None = None
    unproven: bool = False
    unknown: bool = False
    exported: Mapping[str, Interval] = field(default_factory=dict)
    edge: str = ""

    def told(self, name: str) -> Interval:
        """The percentile as it will be read: what a prediction is told as, and held against what was measured."""
        return self.exported.get(name, self.shown[name])

    def worst(self, limits: Mapping[str, float]) -> str:
        """The objective that is furthest over its limit (or closest to it)."""
        return max(sorted(limits), key=lambda name: self.shown[name].value / limits[name])

    def ratio(self, limits: Mapping[str, float]) -> float:
        """The worst objective's prediction over its limit: 1 is just met."""
        return max(self.shown[name].value / limits[name] for name in limits)

    def high_ratio(self, limits: Mapping[str, float]) -> float:
        """The same with the upper ends of the intervals."""
        return max(self.shown[name].high / limits[name] for name in limits)


@dataclass(frozen=True)
class Knowledge:
    """What the ledger adds: bias and scatter of earlier predictions (log), and a measured INT8 gain (None: none).

    off: by objective, how far (log) the present setting shows to lie over what is predicted of it.
    """

    bias: float = 0.0
    scatter: float = 0.1
    measured_gain: float | None = None
    off: Mapping[str, float] = field(default_factory=dict)


class Engine(Protocol[S]):
    """Turns arrivals and a setting into latency. Pure: the same arguments give the same answer.

    objectives: the signals whose percentiles it predicts, each of them a limit of `Slo` by the same name. signals: what
    it learns from. rules_apply: where it can predict nothing, the rules of thumb may propose something to a person;
    without it nothing is proposed whose effect nobody knows. restarts: its limits are read at the server's start, so
    that moving one is no free step.
    """

    name: str
    objectives: tuple[str, ...]
    signals: tuple[str, ...]
    rules_apply: bool
    restarts: bool

    def learn(
        self, state: Mapping[str, object] | None, window: MetricWindow, served: tuple[str, str], stride_s: float
    ) -> dict[str, object] | None:
        """The state (JSON) after calm traffic of the served (version, precision); None where nothing was learned.

        One point per `stride_s` counts; what the state holds already is skipped, so overlapping windows do no harm.
        """
        ...

    def assess(
        self, incident: Incident | None, observation: Observation, settings: PlanningSettings, changed_s: float
    ) -> S:
        """The situation: what is normal from before the incident, what is wrong from after it.

        changed_s: when a lever of this service was last moved; what is older says nothing about the present setting.
        """
        ...

    def unchanged(self, observation: Observation, situation: S) -> Candidate:
        """Everything as it is: what a hold would bring."""
        ...

    def options(self, observation: Observation, situation: S) -> list[Candidate]:
        """One lever moved within its bounds, everything else as it is; levers that could not be read are absent."""
        ...

    def proves_limits(self, observation: Observation) -> bool:
        """Whether it tells what a limit of what is taken in does, and that could be proven from what is measured."""
        ...

    def savings(self, observation: Observation, situation: S) -> list[Candidate]:
        """What may be given back, one step at a time, the first to be tried first."""
        ...

    def predict(
        self,
        candidates: Sequence[Candidate],
        observation: Observation,
        situation: S,
        knowledge: Knowledge,
        settings: PlanningSettings,
    ) -> list[Predicted]:
        """One prediction per candidate. Needs `situation.identified`."""
        ...

    def capacity(self, situation: S) -> float:
        """Requests per second that the present setting can answer."""
        ...

    def since_turn(self, observation: Observation, situation: S) -> S | None:
        """The situation with the arrivals that a falling queue tells; None while it does not clearly fall."""
        ...

    def by_then(self, situation: S, window: MetricWindow, ahead_s: float, *, same_model: bool) -> S | None:
        """The situation in `window`, whose middle is `ahead_s` later, where the service itself is slower by then.

        same_model: what computes is what computed before, so that its slowness can be measured and need not be
        forecast. None where it has not become slower, or where nothing tells.
        """
        ...

    def why(self, candidate: Candidate, predicted: Predicted, situation: S) -> str:
        """What the change does to the numbers, ": ..." to be appended to a sentence; "" where nothing can be said."""
        ...

    def unseen(self, situation: S) -> str:
        """What of larger settings was never seen, as the beginning of a sentence."""
        ...


def limits_of(slo: Slo, objectives: Sequence[str]) -> dict[str, float]:
    """The limit of every objective that the SLO names."""
    named = {name: getattr(slo, name, None) for name in objectives}
    return {name: float(value) for name, value in named.items() if value is not None}
