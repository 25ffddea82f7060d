"""The actuators: one file per way of pulling a lever. `REGISTRY` maps names in services.yaml to their factories.

A factory imports its file when it is called: a task that changes a batch size does not pay for the Kubernetes client.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from tuning.errors import ConfigError
from tuning.ports import Actuator, Connections

Factory = Callable[[Connections, Callable[[], float], Callable[[float], None]], Actuator]


def _lazy(module: str, name: str) -> Factory:
    def make(connections: Connections, clock: Callable[[], float], sleep: Callable[[float], None]) -> Actuator:
        made: Actuator = getattr(importlib.import_module(f"{__name__}.{module}"), name)(connections, clock, sleep)
        return made

    return make


REGISTRY: dict[str, Factory] = {
    "command": _lazy("command", "Command"),
    "http": _lazy("http", "HttpTemplate"),
    "http_admission": _lazy("http_admission", "HttpAdmission"),
    "http_breaker": _lazy("http_breaker", "HttpBreaker"),
    "http_config": _lazy("http_config", "HttpConfig"),
    "http_release": _lazy("http_release", "HttpRelease"),
    "http_restart": _lazy("http_restart", "HttpRestart"),
    "http_variant": _lazy("http_variant", "HttpVariant"),
    "kubernetes": _lazy("kubernetes", "KubernetesReplicas"),
    "kubernetes_admission": _lazy("kubernetes_admission", "KubernetesAdmission"),
    "kubernetes_patch": _lazy("kubernetes_patch", "KubernetesPatch"),
    "kubernetes_release": _lazy("kubernetes_release", "KubernetesRelease"),
    "kubernetes_restart": _lazy("kubernetes_restart", "KubernetesRestart"),
    "mlflow_release": _lazy("mlflow_release", "MlflowRelease"),
    "model_repository": _lazy("model_repository", "ModelRepository"),
    "pod_spec": _lazy("pod_spec", "PodSpec"),
    "triton": _lazy("triton", "Triton"),
    "triton_admission": _lazy("triton_admission", "TritonAdmission"),
    "triton_release": _lazy("triton_release", "TritonRelease"),
    "triton_repository": _lazy("triton_repository", "TritonRepository"),
    "triton_variant": _lazy("triton_variant", "TritonVariant"),
}


def get(name: str) -> Factory:
    """The factory of that name: `get(name)(connections, clock, sleep)`; ConfigError lists the known names."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise ConfigError(f"unknown actuator {name!r}; known: {', '.join(sorted(REGISTRY))}") from None
