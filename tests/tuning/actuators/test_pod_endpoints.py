"""The batch lever over the pods of a workload, and the canary on one of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from demo.kubernetes_api.resources import DEPLOYMENT, POD
from demo.kubernetes_api.server import KubernetesApi
from slotune.connections import EnvironmentConnections
from tests.fakes.actuators import ConfigEndpoint, FakeTime, config_endpoint, service
from tests.fakes.kubernetes import World, eventually
from tuning.actuators.http_config import HttpConfig
from tuning.actuators.http_release import HttpRelease
from tuning.errors import ConfigError, ControlUnreachable
from tuning.model import Change

pytestmark = pytest.mark.server
UP = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})


@pytest.fixture
def fleet() -> Iterator[tuple[World, list[ConfigEndpoint]]]:
    """Three pods, each with a control endpoint of its own."""
    with contextlib.ExitStack() as stack:
        endpoints = [stack.enter_context(config_endpoint()) for _ in range(4)]
        places = [("127.0.0.1", int(e.url.rpartition(":")[2])) for e in endpoints]
        api = stack.enter_context(KubernetesApi(tick_s=0.01, where=lambda *_: places))
        api.add_namespace("facts")
        api.add_deployment("facts", "web", 3)
        world = World(api)
        world.steady()
        yield world, endpoints


def lever(world: World, address: str = "pods://facts/web?port=8000&cluster=cluster") -> HttpConfig:
    environment = {"SLOTUNE_CONN_WEB": address, "SLOTUNE_CONN_CLUSTER": world.api.url}
    time = FakeTime()
    return HttpConfig(EnvironmentConnections(environment), time.clock, time.sleep)


WEB = service("batch_size", "http_config", connection="web", request_timeout_s=0.5)


def test_every_ready_pod_is_changed(fleet: tuple[World, list[ConfigEndpoint]]) -> None:
    world, endpoints = fleet
    receipt = lever(world).apply(WEB, UP, key="k")
    assert receipt.reason == "3 of 3 replicas changed"
    assert [e.config["batch_size"] for e in endpoints] == [8, 8, 8, 1]
    names = {p["metadata"]["name"] for p in world.api.store.list(POD, "facts")}
    assert set(lever(world).replicas(WEB)) == names


def test_a_release_lever_changes_every_ready_pod_too(fleet: tuple[World, list[ConfigEndpoint]]) -> None:
    world, endpoints = fleet
    for endpoint in endpoints:
        endpoint.config["version"] = "7"
    environment = {
        "SLOTUNE_CONN_WEB": "pods://facts/web?port=8000&cluster=cluster",
        "SLOTUNE_CONN_CLUSTER": world.api.url,
    }
    time = FakeTime()
    release = HttpRelease(EnvironmentConnections(environment), time.clock, time.sleep)
    write = {"path": "/config", "body": {"version": "{version}"}}
    read = {"path": "/config", "version_at": "/version"}
    ranker = service("release", "http_release", connection="web", read=read, write=write, request_timeout_s=0.5)
    back = Change(lever="release", old={"version": "7"}, new={"version": "6"})
    receipt = release.apply(ranker, back, key="k")
    assert receipt.reason == "version 6 serves on 3 of 3 replicas"
    assert [e.config["version"] for e in endpoints] == ["6", "6", "6", "7"]
    assert all(release.may(ranker, verb, ref) for verb, ref in release.rights(ranker))


def test_one_pod_first_then_all(fleet: tuple[World, list[ConfigEndpoint]]) -> None:
    world, endpoints = fleet
    actuator = lever(world)
    first, place = next(iter(actuator.replicas(WEB).items()))
    assert place in {e.url.removeprefix("http://") for e in endpoints}
    receipt = actuator.apply_to(WEB, UP, first, key="k-canary")
    assert list(receipt.evidence["replicas"]) == [first]  # type: ignore[call-overload]
    assert [e.config["batch_size"] for e in endpoints[:3]].count(8) == 1
    assert "replicas differ" in actuator.read(WEB).note
    assert actuator.apply(WEB, UP, key="k").reason == "2 of 3 replicas changed"
    assert [e.config["batch_size"] for e in endpoints[:3]] == [8, 8, 8]


def test_a_pod_that_came_later_shows_and_is_set(fleet: tuple[World, list[ConfigEndpoint]]) -> None:
    world, endpoints = fleet
    actuator = lever(world)
    actuator.apply(WEB, UP, key="k")
    world.api.store.update(DEPLOYMENT, "facts", "web", lambda o: {**o, "spec": {**o["spec"], "replicas": 4}}, "hpa")
    eventually(lambda: len(actuator.replicas(WEB)) == 4)
    assert "replicas differ" in actuator.read(WEB).note
    actuator.apply(WEB, UP, key="k")
    assert endpoints[3].config["batch_size"] == 8


def test_no_ready_pod_is_nobody(fleet: tuple[World, list[ConfigEndpoint]]) -> None:
    world, _ = fleet
    world.api.cluster.healthy = lambda _: False
    eventually(lambda: world.ready() == 0)
    with pytest.raises(ControlUnreachable, match="has no ready pod"):
        lever(world).read(WEB)


def stray(world: World, **changes: object) -> None:
    """A pod of somebody else's with the Deployment's labels, ready, that would answer at every port."""
    mine = world.api.store.list(POD, "facts")[0]
    meta = {"name": "stray", "labels": mine["metadata"]["labels"], "annotations": mine["metadata"]["annotations"]}
    world.api.store.create(POD, "facts", {**mine, "metadata": {**meta, **changes}}, "eve")


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {"kind": "ReplicaSet", "name": "web-abc", "uid": "made-up", "controller": True},
        {"kind": "Deployment", "name": "web", "uid": "made-up", "controller": True},
    ],
)
def test_credentials_go_to_the_workloads_own_pods_alone(
    fleet: tuple[World, list[ConfigEndpoint]], reference: dict[str, object] | None
) -> None:
    world, endpoints = fleet
    stray(world, **({"ownerReferences": [reference]} if reference else {}))
    actuator = lever(world, "pods://user:secret@facts/web?port=8000&cluster=cluster")
    assert "stray" not in actuator.replicas(WEB)
    assert actuator.apply(WEB, UP, key="k").reason == "3 of 3 replicas changed"
    assert all("Authorization" in headers for e in endpoints[:3] for headers in e.headers)


def test_strangers_alone_are_nobody_and_said_to_be_there(fleet: tuple[World, list[ConfigEndpoint]]) -> None:
    world, _ = fleet
    stray(world)
    world.api.cluster.healthy = lambda _: False
    eventually(lambda: world.ready() == 0)
    with pytest.raises(ControlUnreachable, match=r"no ready pod \(1 pods carry its labels and are not its own\)"):
        lever(world).read(WEB)


@pytest.mark.parametrize("ip", ["evil.example/x?", "127.0.0.1@10.0.0.1", "169.254.169.254", "127.0.0.1:9/", "0.0.0.0", "::"])
def test_what_is_no_address_of_a_machine_is_not_called(
    fleet: tuple[World, list[ConfigEndpoint]], ip: str
) -> None:
    world, _ = fleet
    world.api._stop.set()  # its kubelet would put the addresses right again
    victim = world.api.store.list(POD, "facts")[0]["metadata"]["name"]

    def change(obj: dict[str, object]) -> dict[str, object]:
        return {**obj, "status": {**obj["status"], "podIP": ip}}  # type: ignore[dict-item]

    def settled() -> bool:
        # A round of the kubelet that was under way when it was stopped may still put the address right.
        world.api.store.update(POD, "facts", victim, change, "kubelet", sub="status")
        time.sleep(0.1)
        found = next(pod for pod in world.api.store.list(POD, "facts") if pod["metadata"]["name"] == victim)
        return bool(found["status"]["podIP"] == ip)

    eventually(settled)
    assert victim not in lever(world).replicas(WEB) and len(lever(world).replicas(WEB)) == 2


@pytest.mark.parametrize(
    "address",
    ["pods://facts/web?port=8000", "pods://facts/web?cluster=cluster", "pods://facts?port=1&cluster=cluster"],
)
def test_an_incomplete_address_says_how_it_looks(fleet: tuple[World, list[ConfigEndpoint]], address: str) -> None:
    with pytest.raises(ConfigError, match="pods://NAMESPACE/NAME"):
        lever(fleet[0], address).read(WEB)
