"""Presets: how one serving system's own metrics become the signals of detection.signals.

One file per serving system, each with a `PRESET`; `REGISTRY` is the sorted list of them.
"""

from __future__ import annotations

import difflib

from detection.errors import ConfigError
from detection.presets import (
    bentoml,
    generic_histogram,
    kserve,
    mlserver,
    ray_serve,
    slotune_demo,
    torchserve,
    triton,
    vllm,
)
from detection.presets._preset import PERCENTILE_LABEL, Preset

__all__ = ["PERCENTILE_LABEL", "REGISTRY", "Preset", "get"]

REGISTRY: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        bentoml.PRESET,
        generic_histogram.PRESET,
        kserve.PRESET,
        mlserver.PRESET,
        ray_serve.PRESET,
        slotune_demo.PRESET,
        torchserve.PRESET,
        triton.PRESET,
        vllm.PRESET,
    )
}


def get(name: str) -> Preset:
    """The preset of a serving system. ConfigError with the known names when there is none."""
    try:
        return REGISTRY[name]
    except KeyError:
        near = difflib.get_close_matches(name, REGISTRY, 1)
        hint = f"did you mean {near[0]!r}? Known" if near else "known"
        raise ConfigError(f"there is no preset {name!r} for a serving system; {hint}: {', '.join(REGISTRY)}") from None
