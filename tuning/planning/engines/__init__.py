"""Engines: what turns arrivals and a setting into latency, one file each. A preset names the one of its server."""

from __future__ import annotations

from typing import Any

from detection.errors import ConfigError
from tuning.planning.engines.continuous_batching import ContinuousBatching
from tuning.planning.engines.dynamic_batching import DynamicBatching
from tuning.planning.ports import Engine

REGISTRY: dict[str, Engine[Any]] = {
    "continuous_batching": ContinuousBatching(),
    "dynamic_batching": DynamicBatching(),
}


def get(name: str) -> Engine[Any]:
    """The engine of a name; ConfigError with the known names for any other."""
    try:
        return REGISTRY[name]
    except KeyError:
        known = ", ".join(sorted(REGISTRY))
        raise ConfigError(f"no engine is called {name!r}; known are: {known}") from None
