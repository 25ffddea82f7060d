"""The version that answers on Triton, which chooses by `version_policy` in the model's configuration.

A request that names no version gets the highest one that is loaded, so the way back is a load whose policy names the
old version alone; what is on disk stays there. The rest of the configuration is sent back as read. Needs
--model-control-mode=explicit. A restart of Triton reads config.pbtxt again: whoever released the version has to change
its version_policy there, or take the version from the repository.

Options: settings.release.TritonReleaseOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators._choice_endpoints import ChoiceEndpoints
from tuning.actuators._http import Http
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.release import TritonReleaseOptions


class TritonRelease(ChoiceEndpoints):
    """The release lever of Triton."""

    name, lever, knob = "triton_release", "release", "version"
    options = TritonReleaseOptions

    def read_one(self, service: Service, http: Http) -> Knobs:
        return {"version": api.answering(http, self._model(service))}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        timeout_s = options.of(service, self.lever, TritonReleaseOptions).load_timeout_s
        api.answer_with(http, self._model(service), str(wanted["version"]), timeout_s)

    def _model(self, service: Service) -> str:
        return options.of(service, self.lever, TritonReleaseOptions).model or service.name
