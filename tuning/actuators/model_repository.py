"""FP32 to INT8 and back on servers that load one version on request: `{"version": ...}` to the repository's load call.

Load brings a version in beside the old one and serves it; the old one stays in memory, so the way back is one call. The
server may keep recorded inputs (`GET /recorded-inputs`) and compare live answers with another version (`POST /shadow`);
both are used where they are there. Options: settings.precision.ModelRepositoryOptions.
"""

from __future__ import annotations

from detection.model import Service
from tuning.actuators import _answers as answers
from tuning.actuators import _options as options
from tuning.actuators._http import LIMIT_BYTES, Http, Unanswered, segment
from tuning.actuators._precision_endpoints import PrecisionEndpoints, Row, Served
from tuning.actuators.settings.precision import ModelRepositoryOptions
from tuning.errors import ControlRefused, ControlUnreachable

SAMPLE_LIMIT_BYTES = 16 * LIMIT_BYTES
SAMPLE_TIMEOUT_S = 30.0


class ModelRepository(PrecisionEndpoints):
    """The precision lever of the demo server and of others with the same calls."""

    name = "model_repository"
    options = ModelRepositoryOptions

    def conclude(self, service: Service) -> None:
        """Stop shadowing on every replica; a server without it has nothing to stop."""
        for http in self.endpoints(service).values():
            try:
                http.call("POST", "/shadow", {"share": 0.0})
            except Unanswered as error:
                raise ControlUnreachable(str(error)) from error
            except ControlRefused:
                continue

    def versions(self, service: Service, http: Http) -> list[Row]:
        index = http.call("GET", "/v2/repository/index")
        try:
            rows = answers.rows(index.get("models") if isinstance(index, dict) else index)
        except answers.Unusable as error:
            raise ControlRefused(f"GET {http.shown}/v2/repository/index answered {error}") from error
        return [row for row in rows if row.get("name") == self.model(service)]

    def send(self, service: Service, http: Http, served: Served, version: str) -> None:
        path = f"/v2/repository/models/{segment(self.model(service))}/load"
        http.call("POST", path, {"version": version}, timeout_s=self.options_of(service).load_timeout_s)

    def unload(self, service: Service, http: Http, served: Served, version: str) -> None:
        http.call("POST", f"/v2/repository/models/{segment(self.model(service))}/unload", {"version": version})

    def shadow(self, service: Service, http: Http, reference: str, *, on: bool) -> str:
        share = options.of(service, self.lever, ModelRepositoryOptions).shadow_share if on else 0.0
        body = {"reference": reference, "share": share} if share > 0 else {"share": 0.0}
        try:
            http.call("POST", "/shadow", body)
        except (ControlRefused, ControlUnreachable, Unanswered) as error:
            return f"not available: {options.bounded(str(error), 120)}"
        return f"{share:.0%} of the requests also go through version {reference}" if share > 0 else "off"

    def batch_size(self, service: Service, http: Http) -> int | None:
        try:
            body = http.call("GET", "/config")
        except (ControlRefused, ControlUnreachable):
            return None
        return answers.whole(body.get("batch_size"), low=1) if isinstance(body, dict) else None

    def recorded(self, service: Service, http: Http) -> bytes | None:
        return http.fetch("/recorded-inputs", timeout_s=SAMPLE_TIMEOUT_S, limit_bytes=SAMPLE_LIMIT_BYTES)
