"""A sweep over services of which one cannot be read, one sleeps on purpose, and Prometheus' clock is off."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from detection.model import MetricWindow, Reading, Service, Span
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, WorldSource, parts
from tuning.errors import ControlUnreachable
from tuning.loop.parts import Parts
from tuning.loop.watch import detect_anomalies, open_incidents, open_incidents_of, pull_metrics
from tuning.model import Setting

TWO = SERVICES + """
  - name: other
    serving: slotune_demo
    selectors: {service: other}
    slo: {p95: 150ms, for: 10s}
    mode: observe
    levers:
      replicas: {min: 0, max: 4, connection: cluster, namespace: n, target: other}
""".replace("min: 0", "min: 1")


class PickySource(WorldSource):
    """The world's metrics, without the services in `unreadable` (named) and `silent` (not named)."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.unreadable: dict[str, str] = {}
        self.silent: set[str] = set()
        self.skew_s: float | None = None

    def read(self, services: Sequence[Service], signals: Sequence[str], span: Span) -> Mapping[str, MetricWindow]:
        found = super().read([s for s in services if s.name not in {*self.unreadable, *self.silent}], signals, span)
        return Reading(found, self.unreadable, {}, self.skew_s)


class Replicas:
    name, lever = "kubernetes", "replicas"

    def __init__(self, replicas: int | None) -> None:
        self.replicas = replicas

    def read(self, service: Service) -> Setting:
        if self.replicas is None:
            raise ControlUnreachable("the API server gives no answer")
        return Setting(lever="replicas", values={"min_replicas": 0, "max_replicas": 4, "replicas": self.replicas})


def fleet(world: World, replicas: int | None = 2) -> tuple[Parts, PickySource]:
    source = PickySource(world)
    made = parts(world, FakeLedger(), KeptMails(), TWO)
    return dataclasses.replace(made, source=source, actuator=lambda _service, _lever: Replicas(replicas)), source  # type: ignore[arg-type,return-value]


def sweep(loop: Parts, world: World):
    world.wait(120)
    found = detect_anomalies(loop, pull_metrics(loop, world.now_s))
    open_incidents(loop, found)
    return found


def test_the_others_are_watched_and_the_unreadable_one_is_named():
    world = World(qps=lambda t: 400.0)
    loop, source = fleet(world)
    source.unreadable = {"other": "qps: Prometheus refuses the query"}
    found = sweep(loop, world)
    assert found.unreadable == source.unreadable and found.silent == () and found.services == 1
    assert {i.service for i in open_incidents_of(loop.ledger, world.now_s)} == {"ranker"}


def test_an_incident_of_a_service_that_cannot_be_read_stays_open():
    world = World(qps=lambda t: 400.0)
    loop, source = fleet(world)
    sweep(loop, world)
    assert {i.service for i in open_incidents_of(loop.ledger, world.now_s)} >= {"other"}
    source.unreadable = {"other": "a part of the data"}
    for _ in range(8):
        sweep(loop, world)
    assert "other" in {i.service for i in open_incidents_of(loop.ledger, world.now_s)}


def silent_incidents(replicas: int | None) -> tuple[set[str], tuple[str, ...]]:
    world = World()
    loop, source = fleet(world, replicas)
    sweep(loop, world)
    source.silent = {"other"}
    for _ in range(4):
        found = sweep(loop, world)
    return {i.symptom for i in open_incidents_of(loop.ledger, world.now_s) if i.service == "other"}, found.asleep


def test_scaled_to_zero_on_purpose_is_no_absent_data():
    assert silent_incidents(0) == (set(), ("other",))


def test_silence_with_replicas_wanted_is_absent_data():
    assert silent_incidents(2) == ({"absent_data"}, ())


def test_where_nobody_can_tell_silence_stays_absent_data():
    assert silent_incidents(None) == ({"absent_data"}, ())


def test_the_clocks_difference_travels_with_the_sweep():
    world = World()
    loop, source = fleet(world)
    source.skew_s = -300.0
    assert sweep(loop, world).clock_skew_s == -300.0
