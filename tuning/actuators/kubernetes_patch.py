"""Batch size and batch timeout in any field of any Kubernetes object, by JSON pointer: what an operator reads.

A KServe InferenceService's containerConcurrency, a key of a ConfigMap, a field of your own custom resource. What the
operator does with the field takes its time (the lever's effect_delay). How it is written: _kubernetes_knobs. Options:
settings.batch_size.KubernetesPatchOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._kubernetes_knobs import KubernetesFields, Target
from tuning.actuators._pointer_knobs import Where
from tuning.actuators.settings.batch_size import KubernetesPatchOptions


class KubernetesPatch(KubernetesFields):
    """The batch lever of what an operator runs."""

    name = "kubernetes_patch"
    lever = "batch_size"

    def target(self, service: Service) -> Target:
        given = options.of(service, self.lever, KubernetesPatchOptions)
        where = Where(given.batch_size_at, given.batch_timeout_at, given.batch_timeout_unit)
        return Target(given.connection, given.namespace, given.kind, given.target, given.request_timeout_s, where)
