"""Presets: how one serving system's own metrics become the signals of detection.signals.

One file per serving system, each with a `PRESET`; `REGISTRY` is the sorted list of them.
"""

from __future__ import annotations

from detection.errors import ConfigError
from detection.presets import generic_histogram, slotune_demo, triton
from detection.presets._preset import Preset

__all__ = ["REGISTRY", "Preset", "get"]

REGISTRY: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        generic_histogram.PRESET,
        slotune_demo.PRESET,
        triton.PRESET,
    )
}


def get(name: str) -> Preset:
    """The preset of a serving system. ConfigError with the known names when there is none."""
    try:
        return REGISTRY[name]
    except KeyError:
        known = ", ".join(sorted(REGISTRY))
        raise ConfigError(f"there is no preset {name!r} for a serving system; known: {known}") from None
