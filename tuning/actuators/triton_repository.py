"""FP32 to INT8 and back on Triton, which chooses versions by `version_policy` in the model's configuration.

To a newer version: the policy names those in memory and the new one, so that all are loaded; a request that names no
version gets the highest. Back: the policy names the old version and what served beside it, which never left the memory,
and Triton drops the other when its last request is answered. The rest of the configuration is sent back as read.
Before a version is published the policy is pinned to the versions that serve, so that publishing alone changes nothing
(Triton's default policy is "the newest"). Needs --model-control-mode=explicit, a file called as
`default_model_filename` says (model.onnx), and a backend that runs it.

Triton cannot compare two versions on live requests and keeps no inputs, so here the gates before the swap carry the
proof of the answers. A restart of Triton reads config.pbtxt again: its version_policy names the version to start with;
where it names none, the lever's note says so.
"""

from __future__ import annotations

import re
from pathlib import Path

from detection.model import Service
from tuning.actuators import _triton_api as api
from tuning.actuators._http import Http, Unanswered
from tuning.actuators._precision_endpoints import PrecisionEndpoints, Row, Served
from tuning.actuators.settings.precision import TritonRepositoryOptions
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Setting

NOT_ONNX = ("tensorrt", "tensorrt_plan", "tensorflow", "pytorch", "pytorch_libtorch", "openvino")


class TritonRepository(PrecisionEndpoints):
    """The precision lever of Triton."""

    name = "triton_repository"
    options = TritonRepositoryOptions

    def versions(self, service: Service, http: Http) -> list[Row]:
        return api.rows_of(http, self.model(service))

    def read(self, service: Service) -> Setting:
        """As every precision lever, with a note where a server that starts anew would choose for itself."""
        setting = super().read(service)
        return setting.model_copy(
            update={"note": "; ".join(filter(None, (setting.note, self._restart_words(service))))}
        )

    def prepare(self, service: Service, http: Http, served: Served) -> None:
        """Pin what serves. Raises ControlRefused where the model cannot run what is published, or cannot be pinned."""
        model = self.model(service)
        config = self._config(service, http)
        kind = str(config.get("backend") or config.get("platform") or "")
        if kind in NOT_ONNX or str(config.get("platform", "")).startswith("tensorflow"):
            raise ControlRefused(f"{model} runs on the backend {kind}: an INT8 ONNX version would not load there")
        found = config.get("instance_group")
        groups = found if isinstance(found, list) else []
        if any(isinstance(group, dict) and group.get("kind") == "KIND_GPU" for group in groups):
            raise ControlRefused(
                f"{model} runs on GPUs (KIND_GPU), and INT8 for ONNX Runtime is timed on a CPU: build its version with "
                "`slotune quantize --target tensorrt` on such a node"
            )
        try:
            self._load_versions(service, http, {int(version) for version in served["loaded"]})
        except Unanswered as error:
            raise ControlUnreachable(f"{error}: nothing was published") from error

    def send(self, service: Service, http: Http, served: Served, version: str) -> None:
        # Only lower versions can stay loaded beside the one that is to answer: the highest gets the requests. INT8
        # versions that this lever made earlier and that no longer serve give their memory back.
        target = int(version)
        ours = {int(name) for name, found in self._on_disk(service).items() if found.precision == "int8"}
        loaded = {int(name) for name in served["loaded"]}
        beside = {v for v in loaded if v < target and (v not in ours or v == int(served["version"]))}
        self._load_versions(service, http, {target, *beside})

    def unload(self, service: Service, http: Http, served: Served, version: str) -> None:
        """Nothing to do: `send` names every version that stays."""

    def batch_size(self, service: Service, http: Http) -> int | None:
        return api.config_of(http, self.model(service))["max_batch_size"] or None

    def _config(self, service: Service, http: Http) -> api.Config:
        model = self.model(service)
        return api.reloadable(api.config_of(http, model), model)

    def _load_versions(self, service: Service, http: Http, versions: set[int]) -> None:
        model = self.model(service)
        timeout_s = self.options_of(service).load_timeout_s
        config = self._config(service, http)
        old = api.pinned(config, api.ready(api.rows_of(http, model)))
        api.change(http, model, old, api.pinned(config, versions), timeout_s)

    def _restart_words(self, service: Service) -> str:
        root = self.options_of(service).repository
        file = Path(root or ".") / self.model(service) / "config.pbtxt"
        try:
            text = file.read_text(errors="replace")
        except OSError:
            text = ""
        if not root or re.search(r"version_policy\s*:?\s*\{\s*specific\b", text):
            return ""
        return (
            "config.pbtxt has no version_policy with specific versions: a server that starts anew takes the newest "
            "version on disk"
        )
