"""How the demo uses the Kubernetes-shaped API: processes behind a Deployment, told by callbacks."""

from __future__ import annotations

import pytest

from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.kubernetes import World, bounds, eventually

pytestmark = pytest.mark.server


class Processes:
    """Starts "processes" as told; each becomes ready when the test says so. The first order fails."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, int]] = []
        self.ready = 2

    def on_scale(self, namespace: str, name: str, replicas: int) -> None:
        self.told.append((namespace, name, replicas))
        if len(self.told) == 1:
            raise OSError("no port is free")


def test_orders_and_readiness_go_through_the_callbacks() -> None:
    processes = Processes()
    with KubernetesApi(
        tick_s=0.01,
        on_scale=processes.on_scale,
        ready=lambda *_: processes.ready,
        where=lambda *_: [("127.0.0.1", 8000)],
    ) as api:
        api.add_namespace("facts")
        api.add_deployment("facts", "web", 2)
        api.add_hpa("facts", "web", "web", 2, 10, sync_s=0.02)
        world = World(api)
        world.steady()
        assert processes.told == [], "the initial replicas are the caller's own business"
        world.lever().apply(world.service(), bounds((2, 10), (4, 10)), key="k")
        eventually(lambda: ("facts", "web", 4) in processes.told)
        assert world.ready() == 2
        processes.ready = 4
        eventually(lambda: world.ready() == 4)
        world.lever().apply(world.service(), bounds((4, 10), (5, 10)), key="k2")  # the controllers survived the OSError
        eventually(lambda: ("facts", "web", 5) in processes.told)


def test_it_stops_cleanly_and_frees_its_port() -> None:
    with KubernetesApi(tick_s=0.01) as first:
        port = int(first.url.rpartition(":")[2])
    with KubernetesApi("127.0.0.1", port, tick_s=0.01) as again:
        assert again.url == f"http://127.0.0.1:{port}"
