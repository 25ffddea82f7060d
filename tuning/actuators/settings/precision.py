"""The lever of precision: INT8 beside FP32 in a model repository."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuning.actuators.settings.endpoints import MAX_TIMEOUT_S, EndpointOptions
from tuning.quantization.build_target import BuildTarget
from tuning.quantization.gates import MAX_ACCURACY_DROP, MIN_SPEEDUP


class PrecisionOptions(EndpointOptions):
    """The precision lever: a version in the model repository that each server is told to serve."""

    model: str = ""
    """The model's name at the server; default: the service's name."""

    onnx: str | None = None
    """Path of the FP32 ONNX model. Without it the lever holds: no calibrated model configured."""

    calibration: str | None = None
    """Path of the calibration data (.npz file or folder), or "recorded" for inputs that the service kept."""

    repository: str | None = None
    """Path of the model repository (Triton layout) that the server loads from."""

    max_accuracy_drop: float = Field(MAX_ACCURACY_DROP, ge=0, le=1)
    """Largest loss of accuracy on held-back data."""

    min_agreement: float = Field(0.98, ge=0, le=1)
    """Smallest share of answers on which INT8 and FP32 agree (for embeddings: of nearest neighbours that stay)."""

    output: str | None = None
    """Name of the output that is compared, for a model with several."""

    answers: Literal["auto", "classes", "vectors", "values"] = "auto"
    """What that output is: class scores, vectors (embeddings) or numbers; auto: told from its name and values."""

    min_speedup: float = Field(MIN_SPEEDUP, gt=0, le=1000)
    """INT8 must be at least this many times faster, else it is refused."""

    build: BuildTarget = BuildTarget()
    """Where INT8 is made."""

    keep_versions: int = Field(4, ge=2, le=1000)
    """How many versions stay in the repository; the one in use and the way back are never removed."""

    max_calibration_age_days: float = Field(30.0, gt=0)
    """Calibration data older than this are refused."""

    load_timeout_s: float = Field(120.0, gt=0, le=MAX_TIMEOUT_S)
    """How long loading a version may take."""


class ModelRepositoryOptions(PrecisionOptions):
    """model_repository: servers that load one version on request."""

    shadow_share: float = Field(0.1, ge=0, le=1)
    """Share of live requests that also go through the old version after a swap, to compare the answers."""


class TritonRepositoryOptions(PrecisionOptions):
    """triton_repository: the same on Triton, through `version_policy`."""
