"""`presets` of services.yaml: how a serving system that slotune does not know shows its signals."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from detection.model import OwnPreset
from tuning.settings_base import Section


class OwnSignalSettings(Section):
    """One signal of your own. What is wrong with it is said by `slotune check`; a running loop leaves it out alone."""

    promql: str
    """Its query: with $sel and $by like a preset's, or with neither and then of one series; $w is the rate window."""

    kind: str = Field("inference", alias="class")
    """model, inference, resource, data or business."""

    unit: str = Field("", max_length=20)
    """Its unit for people: share (shown in %), ms, 1/s, GB, orders, ..."""

    worse: str = "both"
    """The direction that hurts: up, down, both, or none (shown, and never an anomaly)."""

    floor: float = Field(0.0, ge=0)
    """The smallest change that is news, in its unit."""

    title: str = Field("", max_length=100)
    """What people call it; default: its name."""

    guard: bool | None = None
    """Whether a change that makes it worse is taken back; default: for the classes model and business."""


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
