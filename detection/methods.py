"""The kinds of detectors, and what each declares: votes on single series, joint scores of services, own series.

A fourth kind needs no class here: a `detection.ports.Detector` speaks for itself (threshold rules, absent data,
forecasts). The sweep computes the others as matrices over all services and series; a method only says where its band
is or how strange a row is, and `share` says how much of a service's alarm budget it may spend.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from detection.model import FloatArray
from detection.panel import Floats
from detection.ports import Detector
from detection.series import Arrays, at_slots, last_hour
from detection.weekly import Habit

VOTES_SHARE = 0.16
"""The share of the alarm budget of all votes together where joint detectors watch a service, too."""
MIN_JOINT_SIGNALS = 3
"""A joint detector needs at least this many signals: fewer are what the votes are for."""


@dataclass(frozen=True)
class View:
    """Series and what was learned about them, seen from column `first` on (what is before is look-back).

    x: (series, T), compressed, without the habits of the week. stats: of `learn_series`. known_hour: `last_hour` of x
    where it was computed before. habit: the habits of the week that were taken out; None for none.
    """

    x: Floats
    times: FloatArray
    step_s: float
    stats: Arrays
    first: int = 0
    known_hour: Floats | None = None
    habit: Habit | None = None

    @cached_property
    def now(self) -> Floats:
        """The values to judge: (series, T - first)."""
        return self.x[:, self.first :]

    @cached_property
    def hour(self) -> Floats:
        """The level of the hour before each value to judge."""
        return self.whole_hour[:, self.first :]

    @cached_property
    def whole_hour(self) -> Floats:
        """The same for all columns."""
        return last_hour(self.x, self.step_s) if self.known_hour is None else self.known_hour

    @cached_property
    def clock(self) -> tuple[Floats, Floats]:
        """Centre and scale at the same clock time on past days, for each value to judge."""
        times = self.times[self.first :]
        return (
            at_slots(self.stats["clock_center"], times, self.step_s),
            at_slots(self.stats["clock_scale"], times, self.step_s),
        )

    def column(self, name: str) -> Floats:
        """A statistic as a column, to compute with (series, T - first)."""
        return self.stats[name][:, None]


class Band(ABC):
    """Votes on single series: where a value should be, and how far from there is the method's own nominal threshold.

    All bands share one budget: the warn tier is reached where two of them agree on a direction, the act tier where
    three do (where fewer run, all of them).
    """

    name: str

    @abstractmethod
    def band(self, view: View) -> tuple[Floats, Floats]:
        """Centre and half width, broadcastable to view.now; (value - centre) / half width is the signed score."""


class Joint(ABC):
    """Scores whole services, on feature rows of shape (services, T, features): see detection.features.

    share: of a service's alarm budget, 0..1; 0 opens nothing. confirms_above: a raw score beyond which it confirms what
    another one opens, as a vote would. pooled: fitted once for all services of a group instead of for each by itself.
    steps: how many judgements in a row `running` looks at.
    """

    name: str
    share: float = 0.0
    confirms_above: float = math.inf
    pooled: bool = False
    steps: int = 1

    @abstractmethod
    def fit(self, rows: Floats) -> dict[str, Floats]:
        """What is normal: arrays whose first axis is services (anything where `pooled`)."""

    @abstractmethod
    def score(self, rows: Floats, arrays: Arrays) -> Floats:
        """Raw scores, higher is stranger: (services, T)."""

    def running(self, raw: Floats) -> Floats:
        """The scores that count, from those of `steps` judgements in a row: shape kept."""
        return raw

    def carried(self, rows: Floats, arrays: Arrays, signals: int) -> Floats:
        """How much of each row's strangeness each signal carries, not below 0: (services, T, signals)."""
        squares = rows**2
        out: Floats = squares[..., :signals] + squares[..., signals:]
        return out

    def weights(self, row: Floats, arrays: Arrays, signals: int) -> Floats:
        """How much each signal has to do with the score of one service, not below 0: (signals,). row: (features,)."""
        out: Floats = self.carried(row[None, None], arrays, signals)[0, 0]
        return out


class OwnSeries(ABC):
    """Watches something of its own about some signals (not their level), calibrated series by series. It warns.

    share: of a service's alarm budget, 0..1, for all its signals. symptom: what an anomaly of it is called.
    """

    name: str
    symptom: str
    share: float
    signals: tuple[str, ...]

    @abstractmethod
    def fit(self, x: Floats, step_s: float, least: Floats) -> dict[str, Floats]:
        """What is usual: arrays of shape (series,). x: (series, T), compressed. least: the least believed spread."""

    @abstractmethod
    def score(self, x: Floats, step_s: float, arrays: Arrays) -> Floats:
        """Scores in units of the nominal threshold: shape of x, NaN where unknown."""

    @abstractmethod
    def reason(self, title: str, score: float) -> str:
        """A sentence about a signal of this title whose score (in nominal units) is above its threshold."""


Method = Detector | Band | Joint | OwnSeries


@dataclass(frozen=True)
class Methods:
    """The detectors that run, by kind and name, sorted. defined: the signals beyond the table that services define."""

    bands: Mapping[str, Band] = field(default_factory=dict)
    joints: Mapping[str, Joint] = field(default_factory=dict)
    own: Mapping[str, OwnSeries] = field(default_factory=dict)
    speaking: Mapping[str, Detector] = field(default_factory=dict)
    defined: Collection[str] = ()

    @staticmethod
    def of(methods: Mapping[str, Method]) -> Methods:
        """Sorted into their kinds."""
        bands, joints, own, speaking = {}, {}, {}, {}
        for name, method in sorted(methods.items()):
            if isinstance(method, Band):
                bands[name] = method
            elif isinstance(method, Joint):
                joints[name] = method
            elif isinstance(method, OwnSeries):
                own[name] = method
            else:
                speaking[name] = method
        return Methods(bands, joints, own, speaking)

    def joint_for(self, signals: Sequence[str]) -> dict[str, Joint]:
        """The joint detectors of services with these signals: none where there are too few."""
        return dict(self.joints) if len(signals) >= MIN_JOINT_SIGNALS else {}

    def own_for(self, signals: Sequence[str]) -> dict[str, list[int]]:
        """By detector of its own series: the positions of the signals that it watches."""
        found = {name: [k for k, s in enumerate(signals) if s in method.signals] for name, method in self.own.items()}
        return {name: chosen for name, chosen in found.items() if chosen}

    def share(self, name: str, signals: Sequence[str]) -> float:
        """Share of the alarm budget of a detector, or of "votes", on services with these signals.

        Where all declare more than the whole between them, each is cut in proportion.
        """
        opening = {n: method.share for n, method in self.joint_for(signals).items() if method.share}
        declared = {"votes": VOTES_SHARE if opening else 1.0, **opening}
        declared |= {n: self.own[n].share for n in self.own_for(signals)}
        return declared.get(name, 0.0) / max(1.0, sum(declared.values()))
