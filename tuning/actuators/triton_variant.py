"""Variants that are versions of one Triton model: the whole one, INT8, a distilled one, another engine's build.

As a release is reverted: a load whose `version_policy` names one version alone; what is on disk stays there. A restart
of Triton reads config.pbtxt again, and so leads back to what that names. Needs --model-control-mode=explicit.
Options: settings.variant.TritonVariantOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators import _variants as variants
from tuning.actuators._choice_endpoints import ChoiceEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.variant import TritonVariantOptions
from tuning.model import Setting


class TritonVariant(ChoiceEndpoints):
    """The variant lever of Triton."""

    name, lever, knob = "triton_variant", "variant", "variant"
    options = TritonVariantOptions

    def read(self, service: Service) -> Setting:
        return variants.known(self._given(service), super().read(service))

    def read_one(self, service: Service, http: Http) -> Knobs:
        given = self._given(service)
        return {"variant": variants.name_of(given, api.answering(http, given.model or service.name))}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        given = self._given(service)
        version = variants.value_of(given, str(wanted["variant"]))
        api.answer_with(http, given.model or service.name, version, given.load_timeout_s)

    def _given(self, service: Service) -> TritonVariantOptions:
        return options.of(service, self.lever, TritonVariantOptions)
