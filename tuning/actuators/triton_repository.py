"""FP32 to INT8 and back on Triton, which chooses versions by `version_policy` in the model's configuration.

To a newer version: the policy names the old and the new one, so that both are loaded; a request that names no version
gets the highest. Back: the policy names the old version alone, which never left the memory, and Triton drops the other
when its last request is answered. The rest of the configuration is sent back as it was read. Needs
--model-control-mode=explicit, a file called as `default_model_filename` says (model.onnx), and a backend that runs it.

Triton cannot compare two versions on live requests and keeps no inputs, so here the gates before the swap carry the
proof of the answers. A restart of Triton reads config.pbtxt again: its version_policy names the version to
start with.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators import _triton_api as api
from tuning.actuators._http import Http
from tuning.actuators._int8_source import LEVER
from tuning.actuators._precision_endpoints import PrecisionEndpoints, Row, Served


class TritonRepository(PrecisionEndpoints):
    """The precision lever of Triton."""

    name = "triton_repository"

    def versions(self, service: Service, http: Http) -> list[Row]:
        return api.index(http, self.model(service))

    def send(self, service: Service, http: Http, served: Served, version: str) -> None:
        # Only a lower version can stay loaded beside the one that is to answer: the highest gets the requests.
        beside = {served["version"]} if int(served["version"]) < int(version) else set()
        self._load_versions(service, http, {version, *beside})

    def unload(self, service: Service, http: Http, served: Served, version: str) -> None:
        """Nothing to do: `send` names every version that stays."""

    def batch_size(self, service: Service, http: Http) -> int | None:
        return int(api.config_of(http, self.model(service))["max_batch_size"]) or None

    def _load_versions(self, service: Service, http: Http, versions: set[str]) -> None:
        model = self.model(service)
        timeout_s = options.number(service, LEVER, "load_timeout_s", 120.0)
        api.load(http, model, with_versions(api.config_of(http, model), versions), timeout_s)


def with_versions(config: api.Config, versions: set[str]) -> api.Config:
    """The complete configuration with exactly these versions in force."""
    return {**config, "version_policy": {"specific": {"versions": sorted(int(version) for version in versions)}}}
