"""Presets: how one serving system's own metrics become the signals of detection.signals.

One file per serving system, each with a `PRESET`; `REGISTRY` is the sorted list of them, with those of packages. A
preset of services.yaml travels with its services (`Service.preset`).
"""

from __future__ import annotations

import dataclasses
import difflib

from detection import own_signals
from detection.errors import ConfigError
from detection.model import Service
from detection.presets import (
    bentoml,
    dynamo,
    generic_histogram,
    kserve,
    llamacpp,
    mlserver,
    ray_serve,
    sglang,
    slotune_demo,
    tensorrt_llm,
    tgi,
    torchserve,
    training,
    triton,
    vllm,
)
from detection.presets._own import made, packaged, problems
from detection.presets._preset import PERCENTILE_LABEL, Preset
from detection.windows import PERCENTILES

__all__ = ["OURS", "PERCENTILE_LABEL", "REGISTRY", "Preset", "get", "made", "of", "problems", "signals_off"]

OURS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        bentoml.PRESET,
        dynamo.PRESET,
        generic_histogram.PRESET,
        kserve.PRESET,
        llamacpp.PRESET,
        mlserver.PRESET,
        ray_serve.PRESET,
        sglang.PRESET,
        slotune_demo.PRESET,
        tensorrt_llm.PRESET,
        tgi.PRESET,
        torchserve.PRESET,
        triton.PRESET,
        training.PRESET,
        vllm.PRESET,
    )
}
REGISTRY: dict[str, Preset] = dict(sorted((OURS | packaged(OURS)).items()))
"""Ours, and those of packages."""


def get(name: str) -> Preset:
    """The preset of a serving system. ConfigError with the known names when there is none."""
    try:
        return REGISTRY[name]
    except KeyError:
        near = difflib.get_close_matches(name, REGISTRY, 1)
        hint = f"did you mean {near[0]!r}? Known" if near else "known"
        raise ConfigError(f"there is no preset {name!r} for a serving system; {hint}: {', '.join(REGISTRY)}") from None


def signals_off(service: Service) -> dict[str, str]:
    """The service's own signals that cannot be used, by name, with why."""
    return own_signals.off(service, _preset_of(service).query_problem)


def _preset_of(service: Service) -> Preset:
    return get(service.serving) if service.preset is None else made(service.serving, service.preset, REGISTRY)


def of(service: Service) -> Preset:
    """The preset of a service with the service's own signals. ConfigError: no such preset, or a query that is none.

    A service that says where its percentiles come from has no buckets: those of the preset belong to another metric.
    """
    preset = _preset_of(service)
    if service.own_signals or service.exporters:
        more = own_signals.templates(service, preset.query_problem)
        preset = dataclasses.replace(preset, signals={**preset.signals, **more})
    if not service.queries:
        return preset
    for signal, template in service.queries.items():
        problem = preset.query_problem(template)
        if problem:
            raise ConfigError(f"its own query of {signal} {problem}")
    own = any(signal in PERCENTILES for signal in service.queries)
    return dataclasses.replace(
        preset,
        signals={**preset.signals, **service.queries},
        buckets="" if own else preset.buckets,
        native={signal: query for signal, query in preset.native.items() if signal not in service.queries},
    )
