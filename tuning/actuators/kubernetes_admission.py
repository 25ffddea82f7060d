"""A limit of what is taken in that stands in a field of a Kubernetes object: a gateway's or an operator's.

The connections of an Istio DestinationRule, the rate of a traffic policy, a KServe InferenceService's
containerConcurrency. How it is written: _kubernetes_knobs. Options:
settings.admission.KubernetesAdmissionOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _admission as admission
from tuning.actuators import _options as options
from tuning.actuators._kubernetes_knobs import KubernetesFields, Target
from tuning.actuators.settings.admission import KubernetesAdmissionOptions
from tuning.model import Change, Receipt, Setting


class KubernetesAdmission(KubernetesFields):
    """The admission lever in a field of an object."""

    name, lever = "kubernetes_admission", admission.LEVER

    def read(self, service: Service) -> Setting:
        given = self._chosen(service)
        return admission.usable(super().read(service), admission.KNOBS[given.limits], given.unlimited)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        admission.checked(change, admission.KNOBS[self._chosen(service).limits])
        return super().apply(service, change, key=key)

    def target(self, service: Service) -> Target:
        given = self._chosen(service)
        where = admission.LimitAt(given.limit_at, admission.KNOBS[given.limits])
        return Target(given.connection, given.namespace, given.kind, given.target, given.request_timeout_s, where)

    def _chosen(self, service: Service) -> KubernetesAdmissionOptions:
        return options.of(service, self.lever, KubernetesAdmissionOptions)
