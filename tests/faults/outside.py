"""The outside world of the fault campaign: it goes on when slotune's process dies.

The service, its true batch size and its clock live in a file of their own (not in the ledger): a killed worker cannot
take them along, and what really happened can be compared with what the ledger says. Metrics follow from the file: the
fluid model of tests.fakes.world is run again over the changes that really landed.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from detection.errors import SourceUnreachable
from detection.model import BucketWindow, MetricWindow, Service, Span
from tests.fakes.replicas import Fleet
from tests.fakes.world import START_S, World
from tuning.errors import Conflict, ControlRefused, ControlUnreachable, NotApplied, OutcomeUnknown
from tuning.model import Change, Receipt, Setting


@dataclass(frozen=True)
class Scenario:
    """A story with a known end: which load comes when, and what a larger batch really does.

    replicas: the names of those that have an endpoint and series of their own; "" stands for the whole service.
    """

    name: str
    qps_after_s: float
    qps: float
    batch_hurts: float
    replicas: tuple[str, ...] = ("",)

    def load(self, t: float) -> float:
        return 60.0 * len(self.replicas) if t < self.qps_after_s else self.qps

    def world(self) -> World:
        if self.replicas == ("",):
            return World(qps=self.load, batch_hurts=self.batch_hurts)
        return Fleet(len(self.replicas), qps=self.load, batch_hurts=self.batch_hurts)


CURE = Scenario("cure", 120.0, 180.0, 1.0)
"""A surge that a larger batch carries: the change is proven and kept."""

HARM = Scenario("harm", 120.0, 130.0, 40.0)
"""A larger batch makes it much worse: the change is rolled back."""

_REPLICAS = ("ranker-0", "ranker-1", "ranker-2")
FIRST_CURE = Scenario("one replica first, cure", 120.0, 480.0, 1.0, _REPLICAS)
"""The replica that is changed first does better than its peers; they follow, and the whole is proven and kept."""

FIRST_HARM = Scenario("one replica first, harm", 120.0, 390.0, 40.0, _REPLICAS)
"""The replica that is changed first does worse than its peers: it is put back, and they were never touched."""


@dataclass
class Landing:
    """One change that really took effect. by: "slotune", "late" (after a time-out) or "somebody"."""

    at_s: float
    key: str
    old: int
    new: int
    by: str = "slotune"
    replica: str = ""


@dataclass
class Outside:
    """The persistent truth. late: changes on their way, (lands at, key, value, replica)."""

    path: Path
    scenario: Scenario
    now_s: float = START_S
    landings: list[Landing] = field(default_factory=list)
    late: list[tuple[float, str, int, str]] = field(default_factory=list)
    shared: bool = False
    _world: World | None = None
    _seen: int = 0

    @classmethod
    def load(cls, path: Path, scenario: Scenario) -> Outside:
        if not path.exists():
            return cls(path, scenario)
        raw = json.loads(path.read_text())
        return cls(
            path, scenario, raw["now_s"], [Landing(**x) for x in raw["landings"]], [tuple(x) for x in raw["late"]]
        )

    def save(self) -> None:
        body = {"now_s": self.now_s, "landings": [x.__dict__ for x in self.landings], "late": self.late}
        temporary = self.path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(body))
        os.replace(temporary, self.path)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time, on what the file says now (only where several share the world)."""
        if not self.shared:
            yield
            return
        with self.path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.landings = Outside.load(self.path, self.scenario).landings
            yield

    @property
    def batch_size(self) -> int:
        return self.size("")

    def size(self, replica: str) -> int:
        """The batch size that is really in force on a replica."""
        with self._locked():
            last = self.last(replica)
            return 1 if last is None else last.new

    def last(self, replica: str) -> Landing | None:
        """What took effect on a replica last."""
        return next((landing for landing in reversed(self.landings) if landing.replica == replica), None)

    def land(self, key: str, value: int, by: str = "slotune", replica: str = "") -> None:
        """The value takes effect; setting the value that is there already is no change."""
        with self._locked():
            last = self.last(replica)
            old = 1 if last is None else last.new
            if value != old:
                self.landings.append(Landing(self.now_s, key, old, value, by, replica))
            self.save()

    def advance(self, to_s: float) -> None:
        for late in sorted(self.late):
            lands_s, key, value, replica = late
            if lands_s <= to_s:
                self.late.remove(late)
                self.now_s = max(self.now_s, lands_s)
                self.land(key, value, "late", replica)
        self.now_s = max(self.now_s, to_s)
        with self._locked():
            self.save()

    def metrics(self) -> World:
        """The fluid model, run from the start (or from where it was left) to now over what really landed."""
        if self._world is None:
            self._world, self._seen = self.scenario.world(), 0
        for landing in self.landings[self._seen :]:
            self._world.wait_until(landing.at_s)
            if isinstance(self._world, Fleet):
                self._world.sizes[landing.replica] = landing.new
            else:
                self._world.batch_size = landing.new
        self._seen = len(self.landings)
        self._world.wait_until(self.now_s)
        return self._world


LATE_BY_S = {"timeout-late": 60.0, "timeout-after-its-end": 200.0}
"""Before and after the time that slotune waits for an answer (`safety.in_flight`)."""


@dataclass
class Weather:
    """What goes wrong outside slotune, by name; read at every call. skew_s: slotune's clock minus the world's."""

    source_down_until_s: float = 0.0
    control_down_until_s: float = 0.0
    next_apply: str = ""
    """What the next change meets: timeout-landed, timeout-lost, one of LATE_BY_S, 409, 403, ignored."""
    applies: int = 0
    skew_s: float = 0.0


class OutsideSource:
    """Prometheus: its clock is the world's, whatever slotune's own says."""

    def __init__(self, outside: Outside, weather: Weather) -> None:
        self._outside, self._weather = outside, weather

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        self.check_reachable()
        if list(signals) == ["p95_ms", "emulated"]:
            # The mail's plot asks for it; drawing thousands of plots would take three quarters of the campaign's time.
            raise SourceUnreachable("no plots here")
        world = self._outside.metrics()
        found: dict[str, MetricWindow] = {}
        for service in services:
            values = {signal: world.values(signal, span) for signal in signals}
            values = {signal: v for signal, v in values.items() if np.isfinite(v).any()}
            if values:
                stale = {s: float(span.step_s * np.argmax(np.isfinite(v[::-1]))) for s, v in values.items()}
                found[service.name] = MetricWindow(service.name, span, values, "histogram", stale_s=stale)
        return found

    def check_reachable(self) -> None:
        if self._outside.now_s < self._weather.source_down_until_s:
            raise SourceUnreachable("Prometheus gives no answer")

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        return {}

    def read_buckets(self, services: Sequence[Service], span: Span) -> Mapping[str, BucketWindow]:
        return {}


class OutsideBatch:
    """The batch lever: absolute values, read back, and whatever the weather does to the call.

    step: called at every boundary inside (a process may die there).
    """

    name, lever = "http_config", "batch_size"

    def __init__(self, outside: Outside, weather: Weather, step: Callable[[str], None]) -> None:
        self._outside, self._weather, self._step = outside, weather, step

    def read(self, service: Service) -> Setting:
        self._step("read")
        if self._outside.now_s < self._weather.control_down_until_s:
            raise ControlUnreachable("the control endpoint gives no answer")
        return Setting(lever="batch_size", values={"batch_size": self._outside.batch_size, "batch_timeout_ms": 0.0})

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        before = self.read(service).values
        self._weather.applies += 1
        self._step(f"apply {self._weather.applies}")
        value = int(change.new["batch_size"])
        self._step("before landing")
        self._send(key, value)
        self._step("after landing")
        return Receipt(
            id="",
            plan_id="",
            service=service.name,
            lever="batch_size",
            before={knob: before[knob] for knob in change.new},
            after=dict(change.new),
            applied=True,
            changed=before["batch_size"] != change.new["batch_size"],
            at_s=self._outside.now_s + self._weather.skew_s,
        )

    def _send(self, key: str, value: int) -> None:
        fault, self._weather.next_apply = self._weather.next_apply, ""
        if fault == "timeout-lost":
            raise OutcomeUnknown("no answer in time")
        if fault in LATE_BY_S:
            self._outside.late.append((self._outside.now_s + LATE_BY_S[fault], key, value, ""))
            self._outside.save()
            raise OutcomeUnknown("no answer in time")
        if fault == "409":
            raise Conflict("somebody else changed it meanwhile")
        if fault == "403":
            raise ControlRefused("HTTP 403: forbidden <b>for you</b>")
        if fault == "ignored":
            raise NotApplied("the endpoint said yes and still shows the old value")
        if fault == "clamped":
            stood, taken = self._outside.batch_size, max(2, value // 2)
            self._outside.land(key, taken)
            before, after = ({"batch_size": size, "batch_timeout_ms": 0.0} for size in (stood, taken))
            raise NotApplied(f"the endpoint made {taken} of {value}", before=before, after=after)
        self._outside.land(key, value)
        if fault == "timeout-landed":
            raise OutcomeUnknown("no answer in time")
