"""The version that answers on Triton, which chooses by `version_policy` in the model's configuration.

A request that names no version gets the highest one that is loaded, so the way back is a load whose policy names the
old version alone; what is on disk stays there. The rest of the configuration is sent back as read. Needs
--model-control-mode=explicit. A restart of Triton reads config.pbtxt again: whoever released the version has to change
its version_policy there, or take the version from the repository.

Options: tuning.actuators.settings.TritonReleaseOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators._http import Http
from tuning.actuators._release_endpoints import ReleaseEndpoints
from tuning.actuators._swap import Knobs
from tuning.actuators.settings import TritonReleaseOptions
from tuning.errors import ControlRefused


class TritonRelease(ReleaseEndpoints):
    """The release lever of Triton."""

    name = "triton_release"
    options = TritonReleaseOptions

    def read_one(self, service: Service, http: Http) -> Knobs:
        rows = api.rows_of(http, self._model(service))
        there = api.ready(rows)
        if not there:
            why = "; ".join(options.bounded(str(row["reason"]), 120) for row in rows[:4] if row.get("reason"))
            said = why or "is the model's name right?"
            raise ControlRefused(f"{http.shown} has no version of {self._model(service)} loaded ({said})")
        return {"version": str(max(there))}

    def send(self, service: Service, http: Http, version: str) -> None:
        model = self._model(service)
        if not version.isdigit():
            raise ControlRefused(f"{version!r} is no version of a Triton model: those are numbers")
        config = api.reloadable(api.config_of(http, model), model)
        there = api.ready(api.rows_of(http, model))
        timeout_s = options.of(service, self.lever, TritonReleaseOptions).load_timeout_s
        api.change(http, model, api.pinned(config, there), api.pinned(config, {int(version)}), timeout_s)

    def _model(self, service: Service) -> str:
        return options.of(service, self.lever, TritonReleaseOptions).model or service.name
