"""The outside world with several replicas: each has its own queue, series and control endpoint, and one goes first.

The lever is the production one for control endpoints (all replicas or none, read back, put back); only its two calls
to an endpoint end in the outside world's file instead of a socket.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from detection.model import MetricWindow, Service, Span
from tests.fakes.replicas import Fleet
from tests.faults.outside import LATE_BY_S, Outside, OutsideSource, Weather
from tuning.actuators._batch_endpoints import BatchEndpoints
from tuning.actuators._http import Http, Unanswered
from tuning.actuators._swap import Knobs
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Change, Receipt, Setting
from tuning.ports import Connection


class ReplicaSource(OutsideSource):
    """Series of each replica too."""

    def read_replicas(
        self, services: Sequence[Service], signals: Sequence[str], span: Span
    ) -> Mapping[str, Mapping[str, MetricWindow]]:
        self.check_reachable()
        world = self._outside.metrics()
        assert isinstance(world, Fleet)
        return {
            service.name: {
                name: MetricWindow(
                    service.name, span, {s: world.values_of(name, s, span) for s in signals}, "histogram", name
                )
                for name in world.sizes
            }
            for service in services
        }


class _Addresses:
    def get(self, name: str) -> Connection:
        return Connection(name, f"http://{name}:8000")


class ReplicaBatch(BatchEndpoints):
    """step: called before every read of the service, and around every call that changes a replica."""

    name = "http_config"

    def __init__(self, outside: Outside, weather: Weather, step: Callable[[str], None]) -> None:
        super().__init__(_Addresses(), lambda: outside.now_s + weather.skew_s, lambda _s: None)
        self._outside, self._weather, self._step, self._key = outside, weather, step, ""

    def read(self, service: Service) -> Setting:
        self._step("read")
        return super().read(service)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        self._key = key
        return super().apply(service, change, key=key)

    def apply_to(self, service: Service, change: Change, replica: str, *, key: str) -> Receipt:
        self._key = key
        return super().apply_to(service, change, replica, key=key)

    def _configured(self, service: Service) -> dict[str, Connection]:
        return {name: self._connections.get(name) for name in self._outside.scenario.replicas}

    def read_one(self, service: Service, http: Http) -> Knobs:
        self._check_reachable()
        return {"batch_size": self._outside.size(_name(http)), "batch_timeout_ms": 0.0}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        self._check_reachable()
        self._weather.applies += 1
        self._step(f"apply {self._weather.applies}")
        self._step("before landing")
        self._land(_name(http), int(wanted["batch_size"]))
        self._step("after landing")

    def _check_reachable(self) -> None:
        if self._outside.now_s < self._weather.control_down_until_s:
            raise ControlUnreachable("the control endpoint gives no answer")

    def _land(self, replica: str, value: int) -> None:
        fault, self._weather.next_apply = self._weather.next_apply, ""
        if fault in ("409", "403"):
            raise ControlRefused(f"HTTP {fault}: not <b>for you</b>")
        if fault in LATE_BY_S:
            self._outside.late.append((self._outside.now_s + LATE_BY_S[fault], self._key, value, replica))
            self._outside.save()
        elif fault not in ("ignored", "timeout-lost"):
            self._outside.land(self._key, value, replica=replica)
        if fault.startswith("timeout"):
            raise Unanswered("no answer in time")


def _name(http: Http) -> str:
    return http.place.partition(":")[0]
