"""Sources: where signals come from. One file per kind of source; all implement detection.ports.MetricsSource."""

from __future__ import annotations

from collections.abc import Callable

from detection.errors import ConfigError
from detection.ports import MetricsSource
from detection.sources.prometheus import PrometheusSource
from detection.sources.recorded import RecordedSource

REGISTRY: dict[str, Callable[..., MetricsSource]] = {
    "prometheus": PrometheusSource,
    "recorded": RecordedSource,
}


def get(name: str) -> Callable[..., MetricsSource]:
    """The factory of a source. ConfigError with the known names when there is none."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise ConfigError(f"there is no metrics source {name!r}; known: {', '.join(sorted(REGISTRY))}") from None
