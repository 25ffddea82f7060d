"""Batch size and queue delay of a Triton model through its repository load API (--model-control-mode=explicit).

Triton has no call for the batch size alone: the load call takes a complete model configuration that REPLACES the old
one, so this reads the whole configuration, changes it, and sends it back with the versions that serve now.
preferred_batch_size, which Triton fills in by itself, has to follow, or the load is refused. A batch change reloads the
model (a second instance beside the old one for a moment); a load that fails leaves the old one serving. Ensembles,
models with sequences, and a batch smaller than an ensemble around the model takes are refused: see _triton_api.

Options: settings.batch_size.TritonOptions; extra settings of the connection: see _triton_api.
"""

from __future__ import annotations

import copy

from detection.model import Service
from tuning.actuators import _answers as answers
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators._batch_endpoints import BatchEndpoints
from tuning.actuators._http import Http, Unanswered
from tuning.actuators._swap import Knobs
from tuning.actuators._triton_api import Config
from tuning.actuators.settings.batch_size import TritonOptions
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Setting

LOOK_EVERY_S = 1.0


class Triton(BatchEndpoints):
    """The batch lever of Triton: max_batch_size and dynamic_batching.max_queue_delay_microseconds."""

    name = "triton"
    options = TritonOptions

    def read(self, service: Service) -> Setting:
        """As every batch lever; useless where the model has no dynamic batcher: then no requests are joined."""
        setting = super().read(service)
        if "batch_timeout_ms" in setting.values:
            return setting
        words = "the model has no dynamic_batching: a batch is what one client sends, whatever max_batch_size is"
        return setting.model_copy(update={"useless": words})

    def read_one(self, service: Service, http: Http) -> Knobs:
        config = self._config(service, http)
        values: Knobs = {"batch_size": config["max_batch_size"]}
        batching = config.get("dynamic_batching")
        if isinstance(batching, dict):
            delay_us = answers.whole(batching.get("max_queue_delay_microseconds") or 0)
            if delay_us is None:
                raise ControlRefused(
                    f"{http.shown}: the configuration of the model shows no usable max_queue_delay_microseconds "
                    f"({options.bounded(repr(batching['max_queue_delay_microseconds']), 60)})"
                )
            values["batch_timeout_ms"] = delay_us / 1000
        return values

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        model, timeout_s = self._model(service), options.of(service, self.lever, TritonOptions).load_timeout_s
        versions = api.ready(api.rows_of(http, model))
        if not versions:
            raise ControlRefused(f"{http.shown} has no version of {model} loaded: there is nothing to change")
        old = api.pinned(self._config(service, http), versions)
        new = with_batching(old, wanted)
        if new["max_batch_size"] < old["max_batch_size"]:
            around = api.ensembles_below(http, model, new["max_batch_size"])
            if around:
                raise ControlRefused(
                    f"{model} is a step of {', '.join(around)}: with max_batch_size {new['max_batch_size']} Triton "
                    "would drop the ensemble"
                )
        deadline_s = self._clock() + timeout_s
        try:
            api.change(http, model, old, new, timeout_s)
        except Unanswered:
            # a proxy gives up on a long load before Triton does
            while self._clock() < deadline_s and not self._shows(service, http, wanted):
                self._sleep(LOOK_EVERY_S)
            raise

    def _shows(self, service: Service, http: Http, wanted: Knobs) -> bool:
        try:
            return options.agrees(self.read_one(service, http), wanted)
        except (ControlUnreachable, ControlRefused):
            return False

    def _model(self, service: Service) -> str:
        return options.of(service, self.lever, TritonOptions).model or service.name

    def _config(self, service: Service, http: Http) -> Config:
        model = self._model(service)
        config = api.reloadable(api.config_of(http, model), model)
        size = config["max_batch_size"]
        if size < 1:
            raise ControlRefused(f"the model {model} does not batch (max_batch_size {size}): this lever cannot help it")
        return config


def with_batching(config: Config, wanted: Knobs) -> Config:
    """The complete configuration with the wanted knobs, and preferred_batch_size kept consistent with them."""
    changed = copy.deepcopy(config)
    old = int(config["max_batch_size"])
    new = int(wanted["batch_size"] or old) if "batch_size" in wanted else old
    changed["max_batch_size"] = new
    batching = (
        changed.setdefault("dynamic_batching", {}) if "batch_timeout_ms" in wanted else changed.get("dynamic_batching")
    )
    if isinstance(batching, dict):
        given = batching.get("preferred_batch_size")
        sizes = [answers.whole(size, low=1) for size in given] if isinstance(given, list) else []
        preferred = [size for size in sizes if size is not None]
        if preferred == [old]:
            batching["preferred_batch_size"] = [new]  # what Triton had filled in by itself
        elif preferred:
            batching["preferred_batch_size"] = [size for size in preferred if size <= new] or [new]
        if "batch_timeout_ms" in wanted:
            batching["max_queue_delay_microseconds"] = round(float(wanted["batch_timeout_ms"] or 0) * 1000)
    return changed
