"""`presets` of services.yaml: how a serving system that slotune does not know shows its signals."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detection.model import OwnPreset
from tuning.settings_base import Section


class PresetSettings(Section):
    """One serving system: the preset that it is like, and what differs, or all of it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name, for `serving` of the services."""

    like: str = ""
    """The preset that it starts from; default: from nothing."""

    title: str = Field("", max_length=200)
    """What it is, for people."""

    signals: dict[str, str] = {}
    """Signals by PromQL with the places $sel, $by, $w and $(name), in the signals' own units: docs/presets.md."""

    names: dict[str, str] = {}
    """Metrics by the names that stand as $(name) in the queries; a service may override them (metric.<name>)."""

    units: dict[str, str] = {}
    """Units of the durations among them: s, ms or us; $(name_ms) is how many ms one of it is."""

    buckets: str = ""
    """PromQL of what fell into the cumulative buckets behind p95_ms, by le: tells where the histogram ends."""

    buckets_unit: Literal["s", "ms", "us"] = "s"
    """Unit of the buckets' bounds."""

    percentiles: Literal["histogram", "summary"] | None = None
    """Where the percentiles come from; a summary remembers for longer than the rate window. Default: a histogram."""

    replica_label: str = ""
    """The label that tells replicas apart; default: as there, else `replica`."""

    presence: str = ""
    """A selector with one series for each scrape of a replica; more of them are one target scraped twice."""

    def data(self) -> OwnPreset:
        """As the rest of slotune knows it."""
        return OwnPreset.model_validate(self.model_dump(exclude={"name"}))
