"""The actuators: one file per way of pulling a lever. `REGISTRY` maps names in services.yaml to their factories."""

from __future__ import annotations

from collections.abc import Callable

from tuning.actuators.http_config import HttpConfig
from tuning.actuators.kubernetes import KubernetesReplicas
from tuning.actuators.model_repository import ModelRepository
from tuning.actuators.pod_spec import PodSpec
from tuning.actuators.triton import Triton
from tuning.errors import ConfigError
from tuning.ports import Actuator, Connections

Factory = Callable[[Connections, Callable[[], float], Callable[[float], None]], Actuator]

REGISTRY: dict[str, Factory] = {
    "http_config": HttpConfig,
    "kubernetes": KubernetesReplicas,
    "model_repository": ModelRepository,
    "pod_spec": PodSpec,
    "triton": Triton,
}


def get(name: str) -> Factory:
    """The factory of that name: `get(name)(connections, clock, sleep)`; ConfigError lists the known names."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise ConfigError(f"unknown actuator {name!r}; known: {', '.join(sorted(REGISTRY))}") from None
