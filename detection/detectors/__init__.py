"""Detectors, one method a file. `REGISTRY` makes each of them a detection.ports.Detector.

The sweep does not run them one by one: `detection.scoring` computes the same methods as matrices over all services.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detection.detectors._band import BandDetector
from detection.detectors._joint import JointDetector
from detection.detectors.absent import AbsentData
from detection.detectors.band import QuantileBand
from detection.detectors.clock import Clock
from detection.detectors.dynamic import DynamicThreshold
from detection.detectors.fluctuation import FluctuationDetector
from detection.detectors.iqr import Iqr
from detection.detectors.isolation_forest import SharedForest
from detection.detectors.jump import Jump
from detection.detectors.level import Level
from detection.detectors.local_outlier import LocalOutlier
from detection.detectors.pca_residual import PcaResidual
from detection.detectors.rules import ThresholdRules
from detection.detectors.sigma import Sigma
from detection.errors import ConfigError
from detection.model import Service
from detection.ports import Detector
from detection.settings import DetectionSettings

Factory = Callable[[Sequence[Service], DetectionSettings], Detector]

REGISTRY: dict[str, Factory] = {
    "absent": AbsentData,
    "band": lambda services, settings: BandDetector(QuantileBand()),
    "clock": lambda services, settings: BandDetector(Clock()),
    "dynamic": lambda services, settings: DynamicThreshold(settings.dynamic_series, settings.dynamic_method),
    "fluctuation": lambda services, settings: FluctuationDetector(settings.fluctuation_ratio),
    "iqr": lambda services, settings: BandDetector(Iqr()),
    "isolation_forest": lambda services, settings: JointDetector(SharedForest(settings.seed)),
    "jump": lambda services, settings: BandDetector(Jump()),
    "level": lambda services, settings: BandDetector(Level()),
    "local_outlier": lambda services, settings: JointDetector(LocalOutlier()),
    "pca_residual": lambda services, settings: JointDetector(PcaResidual()),
    "rules": ThresholdRules,
    "sigma": lambda services, settings: BandDetector(Sigma()),
}


def get(name: str) -> Factory:
    """The factory of a detector. ConfigError with the known names when there is none."""
    try:
        return REGISTRY[name]
    except KeyError:
        raise ConfigError(f"there is no detector {name!r}; known: {', '.join(sorted(REGISTRY))}") from None
