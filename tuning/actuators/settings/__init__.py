"""What each actuator can be told at its lever: one class per actuator, and the only place where a default stands.

`tuning.settings` puts them behind `levers.<lever>` of services.yaml, the configuration reference is generated from
them, and the actuators read them through `tuning.actuators._options.of`. An unknown key is an error. One file per
lever; `endpoints` and `fields` hold what several share.
"""

from __future__ import annotations

from tuning.actuators.settings.admission import HttpAdmissionOptions, KubernetesAdmissionOptions, TritonAdmissionOptions
from tuning.actuators.settings.batch_size import (
    HttpConfigOptions,
    HttpOptions,
    KubernetesPatchOptions,
    PodSpecOptions,
    TritonOptions,
)
from tuning.actuators.settings.breaker import HttpBreakerOptions
from tuning.actuators.settings.command import CommandOptions
from tuning.actuators.settings.precision import ModelRepositoryOptions, TritonRepositoryOptions
from tuning.actuators.settings.release import (
    HttpReleaseOptions,
    KubernetesReleaseOptions,
    MlflowReleaseOptions,
    TritonReleaseOptions,
)
from tuning.actuators.settings.replicas import KubernetesOptions
from tuning.actuators.settings.restart import HttpRestartOptions, KubernetesRestartOptions
from tuning.actuators.settings.variant import HttpVariantOptions, TritonVariantOptions
from tuning.settings_base import Section

OPTIONS: dict[str, type[Section]] = {
    "command": CommandOptions,
    "http": HttpOptions,
    "http_admission": HttpAdmissionOptions,
    "http_breaker": HttpBreakerOptions,
    "http_config": HttpConfigOptions,
    "http_release": HttpReleaseOptions,
    "http_restart": HttpRestartOptions,
    "http_variant": HttpVariantOptions,
    "kubernetes": KubernetesOptions,
    "kubernetes_admission": KubernetesAdmissionOptions,
    "kubernetes_patch": KubernetesPatchOptions,
    "kubernetes_release": KubernetesReleaseOptions,
    "kubernetes_restart": KubernetesRestartOptions,
    "mlflow_release": MlflowReleaseOptions,
    "model_repository": ModelRepositoryOptions,
    "pod_spec": PodSpecOptions,
    "triton": TritonOptions,
    "triton_admission": TritonAdmissionOptions,
    "triton_release": TritonReleaseOptions,
    "triton_repository": TritonRepositoryOptions,
    "triton_variant": TritonVariantOptions,
}
"""By the name of the actuator; a test holds it against the registry."""
