"""The batch lever over control endpoints, one per replica: the replicas can be changed one at a time."""

from __future__ import annotations

from detection.model import Service
from tuning.actuators._http import budget_of
from tuning.actuators._knob_endpoints import KnobEndpoints
from tuning.actuators.settings.batch_size import BatchEndpointOptions
from tuning.actuators.settings.endpoints import EndpointOptions
from tuning.errors import ConfigError
from tuning.model import Change, Receipt


class BatchEndpoints(KnobEndpoints):
    """Reads and changes the batch knobs of every endpoint of a service, or of one alone."""

    lever = "batch_size"
    options: type[EndpointOptions] = BatchEndpointOptions

    def replicas(self, service: Service) -> dict[str, str]:
        """host:port by the name by which `apply_to` knows the replica."""
        return {name: http.place for name, http in self._endpoints(service).items()}

    def apply_to(self, service: Service, change: Change, replica: str, *, key: str) -> Receipt:
        """Change one replica only, so that the others can serve as its control. Errors as for `apply`."""
        endpoints = self._endpoints(service, budget := budget_of(service, self.lever))
        if replica not in endpoints:
            raise ConfigError(f"{service.name} has no replica {replica}; known: {', '.join(endpoints)}")
        receipt = self._apply(service, change, key, {replica: endpoints[replica]}, budget)
        return receipt.model_copy(update={"replica": replica, "reason": f"{receipt.reason}: {replica}"})
