"""Batch size and queue delay of a Triton model through its repository load API (--model-control-mode=explicit).

Triton has no call for the batch size alone: the load call takes a complete model configuration that REPLACES the old
one, so this reads the whole configuration, changes it, and sends it back. preferred_batch_size, which Triton fills in
by itself, has to follow, or the load is refused. A batch change reloads the model (a second instance beside the old
one for a moment); a load that fails leaves the old one serving.

Options of the lever: connection (the HTTP address; extra grpc "host:port": loads go through gRPC where tritonclient is
installed, because an HTTP load stalls HTTP inference while it lasts), endpoints, model, load_timeout_s (60).
"""

from __future__ import annotations

import copy

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators._batch_endpoints import BatchEndpoints, Knobs
from tuning.actuators._http import Http
from tuning.actuators._triton_api import Config
from tuning.errors import ControlRefused, NotApplied


class Triton(BatchEndpoints):
    """The batch lever of Triton: max_batch_size and dynamic_batching.max_queue_delay_microseconds."""

    name = "triton"

    def read_one(self, service: Service, http: Http) -> Knobs:
        config = self._config(service, http)
        values: Knobs = {"batch_size": config["max_batch_size"]}
        batching = config.get("dynamic_batching")
        if isinstance(batching, dict):
            values["batch_timeout_ms"] = int(batching.get("max_queue_delay_microseconds") or 0) / 1000
        return values

    def send(self, service: Service, http: Http, wanted: Knobs) -> None:
        model = options.text(service, self.lever, "model", service.name)
        changed = with_batching(self._config(service, http), wanted)
        timeout_s = options.number(service, self.lever, "load_timeout_s", 60.0)
        api.load(http, model, changed, timeout_s)
        self._check_ready(http, model)

    def _config(self, service: Service, http: Http) -> Config:
        model = options.text(service, self.lever, "model", service.name)
        config = api.config_of(http, model)
        size = config["max_batch_size"]
        if size < 1:
            raise ControlRefused(f"the model {model} does not batch (max_batch_size {size}): this lever cannot help it")
        return config

    @staticmethod
    def _check_ready(http: Http, model: str) -> None:
        """The configuration alone can be stale: the index and the version's own readiness tell."""
        rows = api.index(http, model)
        ready = [row for row in rows if row.get("state") == "READY"]
        if not ready:
            why = "; ".join(options.bounded(str(row.get("reason") or row.get("state"))) for row in rows) or "not listed"
            raise NotApplied(f"{http.shown} accepted the configuration, but no version of {model} is ready ({why})")
        for row in ready:
            http.call("GET", f"/v2/models/{model}/versions/{row.get('version')}/ready")


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
        preferred = [int(size) for size in batching.get("preferred_batch_size") or []]
        if preferred == [old]:
            batching["preferred_batch_size"] = [new]  # what Triton had filled in by itself
        elif preferred:
            batching["preferred_batch_size"] = [size for size in preferred if size <= new] or [new]
        if "batch_timeout_ms" in wanted:
            batching["max_queue_delay_microseconds"] = round(float(wanted["batch_timeout_ms"] or 0) * 1000)
    return changed
