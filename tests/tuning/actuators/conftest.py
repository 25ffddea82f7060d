"""A running Kubernetes-shaped API server with one Deployment and its HPA."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.kubernetes import World


@pytest.fixture
def world() -> Iterator[World]:
    with KubernetesApi(tick_s=0.01) as api:
        api.add_namespace("facts")
        api.add_deployment("facts", "web", 2)
        api.add_hpa("facts", "web", "web", 2, 10, sync_s=0.05)
        made = World(api)
        made.steady()
        yield made
