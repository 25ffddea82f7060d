"""discover --kubeconfig: the workload behind the pods of a service, who decides its replicas, and what is written of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from demo.kubernetes_api.server import KubernetesApi
from slotune.commands.discover import _place
from slotune.discovery import Found, Sighting
from tests.fakes.kubernetes import World, eventually

pytestmark = pytest.mark.server


@pytest.fixture
def cluster(tmp_path: Path):
    """A namespace with two Deployments, one of them with an HPA, and a kubeconfig for it."""
    with KubernetesApi(tick_s=0.01) as api:
        api.add_namespace("prod")
        for name, replicas in (("ranker", 2), ("other", 1)):
            api.add_deployment("prod", name, replicas)
        api.add_hpa("prod", "ranker-hpa", "ranker", 2, 6, sync_s=0.05)
        world = World(api)
        file = tmp_path / "kubeconfig"
        entry = {"cluster": {"server": api.url}, "name": "c"}
        context = {"context": {"cluster": "c", "user": "u"}, "name": "x"}
        user = {"name": "u", "user": {}}
        body = {"apiVersion": "v1", "kind": "Config", "clusters": [entry], "contexts": [context], "users": [user], "current-context": "x"}
        file.write_text(yaml.safe_dump(body))
        yield world, file


def names(world: World, app: str) -> list[str]:
    from demo.kubernetes_api.resources import POD

    found: list[str] = []

    def there() -> bool:
        pods = world.api.store.list(POD, "prod")
        found[:] = [p["metadata"]["name"] for p in pods if p["metadata"]["name"].startswith(f"{app}-")]
        return bool(found)

    eventually(there)
    return found


def seen(*instances: str, **selectors: str) -> Found:
    targets = frozenset(("job", instance) for instance in instances)
    return Found("my-ranker", Sighting("triton", "nv_inference_count"), {"model": "m", **selectors}, targets)


def test_the_workload_its_autoscaler_and_its_pods_are_told(cluster):
    world, file = cluster
    pods = names(world, "ranker")
    lines = _place(seen(*(f"{pod}:8002" for pod in pods), namespace="prod"), file, "default")
    assert lines[0] == f"In Kubernetes: Deployment prod/ranker, {len(pods)} pods, HPA ranker-hpa, 2 to 6 replicas."
    lever = yaml.safe_load(lines[1].partition("would be")[2])["replicas"]
    assert lever == {"min": 2, "max": 6, "connection": "cluster", "namespace": "prod", "target": "ranker"}
    assert lines[2].endswith("export SLOTUNE_CONN_MY_RANKER_CONTROL='pods://prod/ranker?port=8002&cluster=cluster'")


def test_a_workload_that_nobody_scales(cluster):
    world, file = cluster
    (pod,) = names(world, "other")
    lines = _place(seen(f"{pod}:8002"), file, "prod")
    assert "Deployment prod/other, 1 pod, no autoscaler, 1 to 1 replicas" in lines[0]


def test_pods_of_two_workloads_or_of_none_are_not_guessed(cluster):
    world, file = cluster
    both = [f"{names(world, app)[0]}:8002" for app in ("ranker", "other")]
    for found in (seen(*both), seen("10.9.9.9:8002")):
        assert _place(found, file, "prod") == ("No single workload in the namespace prod has pods at the addresses of its series.",)


def test_a_cluster_that_does_not_answer_costs_a_comment(tmp_path):
    assert "cannot be looked up" in _place(seen("a:1"), tmp_path / "nothing", "prod")[0]
