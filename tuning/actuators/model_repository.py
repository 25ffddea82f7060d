"""FP32 to INT8 and back on servers that load one version on request: `{"version": ...}` to the repository's load call.

Load brings a version in beside the old one and serves it; the old one stays in memory, so the way back is one call. The
server may keep recorded inputs (`GET /recorded-inputs`) and compare live answers with another version (`POST /shadow`);
both are used where they are there. Options: see tuning.actuators._precision_endpoints.
"""

from __future__ import annotations

import requests

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators._http import LIMIT_BYTES, Http, Unanswered
from tuning.actuators._int8_source import LEVER
from tuning.actuators._precision_endpoints import PrecisionEndpoints, Row, Served
from tuning.errors import ControlRefused, ControlUnreachable

SAMPLE_LIMIT_BYTES = 16 * LIMIT_BYTES


class ModelRepository(PrecisionEndpoints):
    """The precision lever of the demo server and of others with the same calls."""

    name = "model_repository"

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
        rows = index.get("models") if isinstance(index, dict) else index
        return [row for row in rows or () if isinstance(row, dict) and row.get("name") == self.model(service)]

    def send(self, service: Service, http: Http, served: Served, version: str) -> None:
        path = f"/v2/repository/models/{self.model(service)}/load"
        timeout_s = options.number(service, LEVER, "load_timeout_s", 120.0)
        http.call("POST", path, {"version": version}, timeout_s=timeout_s)

    def unload(self, service: Service, http: Http, served: Served, version: str) -> None:
        http.call("POST", f"/v2/repository/models/{self.model(service)}/unload", {"version": version})

    def shadow(self, service: Service, http: Http, reference: str, share: float) -> str:
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
        return body.get("batch_size") if isinstance(body, dict) else None

    def recorded(self, service: Service, http: Http) -> bytes | None:
        try:
            with requests.get(
                f"{http.base}/recorded-inputs",
                headers=http.headers(),
                auth=http.auth(),
                timeout=(5.0, 30.0),
                stream=True,
                allow_redirects=False,
            ) as response:
                if response.status_code != 200:
                    return None
                data = response.raw.read(SAMPLE_LIMIT_BYTES + 1, decode_content=True)
                return bytes(data) if len(data) <= SAMPLE_LIMIT_BYTES else None
        except (requests.RequestException, OSError):
            return None


