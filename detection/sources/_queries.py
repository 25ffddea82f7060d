"""Which services share a query, and how their labels become matchers.

A label's name may be any text in Prometheus 3 (`service.name`), where it stands in quotes; older servers refuse that
query, and with it the services that are selected so, and no others: services share a query only where their selectors
have the same keys.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from detection import presets
from detection.errors import ConfigError
from detection.model import Service, Span
from detection.outside_text import quoted
from detection.presets import Preset

MAX_SAMPLES = 1_000_000
MAX_POINTS = 10_000
_Pairs = tuple[tuple[str, str], ...]
_PLAIN_LABEL = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")


@dataclass(frozen=True)
class Group:
    """Services that one query can ask for."""

    preset: Preset
    names: Mapping[str, str]
    keys: tuple[str, ...]
    services: tuple[Service, ...]

    def query(self, template: str, window_s: float, more_keys: Sequence[str] = ()) -> str:
        """A template of the preset for these services; more_keys: further labels that tell its series apart."""
        by = "".join(f"{label(key)}," for key in (*self.keys, *more_keys))
        return self.preset.query(
            template, selector=self.selector(), by=by, window=f"{window_s:g}s", names=self.names
        )

    def selector(self) -> str:
        """The matchers, each ending in a comma."""
        parts = []
        for key in self.keys:
            values = sorted({service.selectors[key] for service in self.services})
            pattern = "|".join(re.escape(value).replace("\\-", "-") for value in values)
            matcher = f"=~{quoted(pattern)}," if len(values) > 1 else f"={quoted(values[0])},"
            parts.append(label(key) + matcher)
        return "".join(parts)

    def owners(self) -> Mapping[tuple[str, ...], list[str]]:
        """The services' names by the values of the keys."""
        found: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for service in self.services:
            found[tuple(service.selectors[key] for key in self.keys)].append(service.name)
        return found

    def of(self, services: Sequence[Service]) -> Group:
        """The same query for some of its services."""
        return replace(self, services=tuple(services))


def label(name: str) -> str:
    """A label's name as PromQL writes it."""
    return name if _PLAIN_LABEL.match(name) else quoted(name)


def groups(services: Sequence[Service], samples_each: int) -> tuple[list[Group], dict[str, ConfigError]]:
    """Services that share a query, one answer under MAX_SAMPLES; and the services that cannot be asked for, with why.

    samples_each: points of one service in one answer.
    """
    shared: dict[tuple[_Pairs, _Pairs, tuple[str, ...]], list[Service]] = defaultdict(list)
    wrong: dict[str, ConfigError] = {}
    for service in services:
        try:
            preset = presets.of(service)
            _askable(service)
            own = tuple(sorted(service.queries.items()))
            if service.own_signals or service.exporters:
                own = tuple(sorted(preset.signals.items()))
            shared[own, preset.resolved(service.labels), (preset.name, *sorted(service.selectors))].append(service)
        except ConfigError as error:
            wrong[service.name] = ConfigError(f"the service {service.name!r}: {error}")
    size = max(1, MAX_SAMPLES // max(1, min(samples_each, MAX_POINTS)))
    found = [
        Group(presets.of(members[0]), dict(names), tuple(keys), tuple(members[first : first + size]))
        for (_, names, (_, *keys)), members in shared.items()
        for first in range(0, len(members), size)
    ]
    return found, wrong


def _askable(service: Service) -> None:
    if not service.selectors:
        raise ConfigError("it has no selectors, so its series cannot be found")
    for key in service.selectors:
        if not key or "\0" in key or key == "__name__":
            raise ConfigError(f"{key!r} is no label that can single out a service's series")


def pieces(span: Span) -> Iterator[Span]:
    """The span in parts that stay under Prometheus' limit of 11,000 points a series."""
    for first in range(0, span.points, MAX_POINTS):
        last = min(first + MAX_POINTS, span.points) - 1
        yield Span(span.start_s + first * span.step_s, span.start_s + last * span.step_s, span.step_s)
