"""The Kubernetes-shaped API server as tests see it, with the replica lever on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from demo.kubernetes_api.resources import DEPLOYMENT, HPA
from demo.kubernetes_api.server import KubernetesApi
from detection.model import Service
from tests.fakes.actuators import FakeConnections, service
from tuning.actuators.kubernetes import KubernetesReplicas
from tuning.model import Change
from tuning.ports import Connection


def eventually(true: Callable[[], bool], within_s: float = 5.0) -> None:
    """Waits for the stand-in's controllers."""
    until = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.01)


@dataclass
class World:
    """The stand-in and everything a test asks of it. `clock` runs ahead of real time by what was slept."""

    api: KubernetesApi
    ahead_s: float = 0.0
    slept: list[float] = field(default_factory=list)
    on_sleep: Callable[[], None] | None = None
    connections: FakeConnections = field(default_factory=lambda: FakeConnections({}))

    def clock(self) -> float:
        return time.time() + self.ahead_s

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ahead_s += seconds
        if self.on_sleep:
            self.on_sleep()
        time.sleep(min(seconds, 0.02))

    def connect(self, token: str | None = None) -> FakeConnections:
        self.connections.known["cluster"] = Connection(name="cluster", url=self.api.url, password=token)
        return self.connections

    def lever(self, token: str | None = None) -> KubernetesReplicas:
        return KubernetesReplicas(self.connect(token), self.clock, self.sleep)

    def service(self, **options: object) -> Service:
        given: dict[str, object] = {
            "connection": "cluster", "namespace": "facts", "target": "web", "request_timeout_s": 0.5,
        }  # fmt: skip
        return service("replicas", "kubernetes", maximum=10, **(given | options))

    def hpa(self, name: str = "web") -> dict[str, Any]:
        return self.api.store.get(HPA, "facts", name)

    def bounds(self) -> tuple[int, int]:
        spec = self.hpa()["spec"]
        return spec["minReplicas"], spec["maxReplicas"]

    def deployment(self, name: str = "web") -> dict[str, Any]:
        return self.api.store.get(DEPLOYMENT, "facts", name)

    def replicas(self, name: str = "web") -> int:
        return int(self.deployment(name)["spec"]["replicas"])

    def edit_hpa(self, manager: str, **spec: int) -> None:
        """What a person (or another controller) does without asking anybody."""

        def change(obj: dict[str, Any]) -> dict[str, Any]:
            obj["spec"] |= spec
            return obj

        self.api.store.update(HPA, "facts", "web", change, manager)

    def ready(self, name: str = "web") -> int:
        return int(self.deployment(name).get("status", {}).get("readyReplicas", 0))

    def steady(self, name: str = "web") -> None:
        """Until every pod is ready."""
        eventually(lambda: self.ready(name) == self.replicas(name))


def bounds(old: tuple[int, int], new: tuple[int, int]) -> Change:
    """A change of both bounds."""
    return Change(
        lever="replicas",
        old={"min_replicas": old[0], "max_replicas": old[1]},
        new={"min_replicas": new[0], "max_replicas": new[1]},
    )
