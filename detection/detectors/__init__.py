"""Detectors, one method a file. What stands in `REGISTRY` is what the settings may name, and what runs.

A detector is one of the kinds of `detection.methods` or speaks for itself (`detection.ports.Detector`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Collection, Mapping, Sequence

from detection import own_signals
from detection.detectors.absent import AbsentData
from detection.detectors.band import QuantileBand
from detection.detectors.clock import Clock
from detection.detectors.dynamic import DynamicThreshold
from detection.detectors.fluctuation import Fluctuation
from detection.detectors.iqr import Iqr
from detection.detectors.isolation_forest import SharedForest
from detection.detectors.jump import Jump
from detection.detectors.level import Level
from detection.detectors.local_outlier import LocalOutlier
from detection.detectors.pca_residual import PcaResidual
from detection.detectors.rules import RULES, ThresholdRules
from detection.detectors.sigma import Sigma
from detection.detectors.sustained import Sustained
from detection.detectors.training import TrainingJobs
from detection.errors import ConfigError
from detection.methods import Method, Methods
from detection.model import Service
from detection.settings import DetectionSettings
from detection.signals import SIGNALS

Factory = Callable[[Sequence[Service], DetectionSettings], Method]
Registry = Mapping[str, Factory]

REGISTRY: Registry = {
    "absent": AbsentData,
    "band": lambda services, settings: QuantileBand(),
    "clock": lambda services, settings: Clock(),
    "dynamic": lambda services, settings: DynamicThreshold(settings.dynamic_series, settings.dynamic_method),
    "fluctuation": lambda services, settings: Fluctuation(settings.fluctuation_ratio),
    "iqr": lambda services, settings: Iqr(),
    "isolation_forest": lambda services, settings: SharedForest(settings.seed),
    "jump": lambda services, settings: Jump(),
    "level": lambda services, settings: Level(),
    "local_outlier": lambda services, settings: LocalOutlier(),
    "pca_residual": lambda services, settings: PcaResidual(),
    "rules": ThresholdRules,
    "sigma": lambda services, settings: Sigma(),
    "sustained": lambda services, settings: Sustained(),
    "training": TrainingJobs,
}


def get(name: str, registry: Registry = REGISTRY) -> Factory:
    """The factory of a detector. ConfigError with the known names when there is none."""
    try:
        return registry[name]
    except KeyError:
        raise ConfigError(f"there is no detector {name!r}; known: {', '.join(sorted(registry))}") from None


def chosen(services: Sequence[Service], settings: DetectionSettings, registry: Registry = REGISTRY) -> Methods:
    """The detectors that the settings switch on, made for these services. ConfigError for a name that is not known."""
    found = Methods.of({name: get(name, registry)(services, settings) for name in settings.running()})
    return dataclasses.replace(found, defined=own_signals.names(services))


def unknown_names(
    settings: DetectionSettings, registry: Registry = REGISTRY, own: Collection[str] = ()
) -> dict[tuple[str | int, ...], str]:
    """What the settings name and nothing knows: by path below `detection`, the sentence with the known names."""
    known = ", ".join(sorted(registry))
    wrong: dict[tuple[str | int, ...], str] = {
        ("detectors", index): f"there is no detector {name!r}; known: {known}"
        for index, name in enumerate(settings.detectors)
        if name not in registry
    }
    rules = sorted({*RULES, AbsentData.rule})
    wrong |= {
        ("rules", name): f"there is no rule {name!r}; known: {', '.join(rules)}"
        for name in settings.rules
        if name not in rules
    }
    for index, limit in enumerate(settings.limits):
        if limit.signal not in SIGNALS and limit.signal not in own:
            near = difflib.get_close_matches(limit.signal, [*SIGNALS, *own], 1)
            hint = f"did you mean {near[0]!r}? All" if near else "all"
            wrong["limits", index, "signal"] = f"there is no signal {limit.signal!r}; {hint} stand in docs/presets.md"
        if limit.name in rules:
            words = f"{limit.name!r} is a rule already: change it under detection.rules, or choose another name"
            wrong["limits", index, "name"] = words
    return wrong
