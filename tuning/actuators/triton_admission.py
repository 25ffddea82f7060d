"""The longest queue of a Triton model: max_queue_size of its dynamic batcher's default queue policy.

A load with the complete configuration, as every change of Triton's (see _triton_api); what waits meanwhile waits on. 0
is Triton's own word for "no limit". Needs --model-control-mode=explicit. Options:
settings.admission.TritonAdmissionOptions.
"""

from __future__ import annotations

import copy
from typing import Any

from detection.model import Service
from tuning.actuators import _admission as admission
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators._http import Http
from tuning.actuators._knob_endpoints import KnobEndpoints
from tuning.actuators._swap import Knobs
from tuning.actuators.settings.admission import TritonAdmissionOptions
from tuning.errors import ControlRefused
from tuning.model import Change, Receipt, Setting

KNOB = admission.KNOBS["queue"]
_NO_BATCHER = "has no dynamic_batching: it has no queue whose length could be limited"
_LEVELS = "has priority levels (priority_queue_policy), each with a queue of its own: limit these by hand"


class TritonAdmission(KnobEndpoints):
    """The admission lever of Triton."""

    name, lever = "triton_admission", admission.LEVER
    options = TritonAdmissionOptions

    def read(self, service: Service) -> Setting:
        return admission.usable(super().read(service), KNOB, 0)

    def apply(self, service: Service, change: Change, *, key: str) -> Receipt:
        admission.checked(change, KNOB)
        return super().apply(service, change, key=key)

    def read_one(self, service: Service, http: Http) -> Knobs:
        model = self._model(service)
        policy = _policy(api.reloadable(api.config_of(http, model), model), model)
        words = f"{http.shown}: {model} shows no usable max_queue_size"
        return {KNOB: admission.limit_of(policy.get("max_queue_size") or 0, words)}

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        model, timeout_s = self._model(service), options.of(service, self.lever, TritonAdmissionOptions).load_timeout_s
        versions = api.ready(api.rows_of(http, model))
        if not versions:
            raise ControlRefused(f"{http.shown} has no version of {model} loaded: there is nothing to change")
        old = api.pinned(api.reloadable(api.config_of(http, model), model), versions)
        new = copy.deepcopy(old)
        new["dynamic_batching"]["default_queue_policy"] = {**_policy(old, model), "max_queue_size": int(wanted[KNOB])}
        api.change(http, model, old, new, timeout_s)

    def _model(self, service: Service) -> str:
        return options.of(service, self.lever, TritonAdmissionOptions).model or service.name


def _policy(config: api.Config, model: str) -> dict[str, Any]:
    """The queue policy of a model's configuration, {} where it names none. ControlRefused: it has no one queue."""
    batching = config.get("dynamic_batching")
    if not isinstance(batching, dict):
        raise ControlRefused(f"{model} {_NO_BATCHER}")
    if batching.get("priority_queue_policy"):
        raise ControlRefused(f"{model} {_LEVELS}")
    policy = batching.get("default_queue_policy")
    return dict(policy) if isinstance(policy, dict) else {}
