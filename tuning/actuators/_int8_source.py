"""Where the precision lever gets its INT8 version from: the user's model and rows, judged, published once.

Options: settings.precision.PrecisionOptions, and `drift`, which the loop puts there: what learn_baselines knows
about the service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from detection.model import Service
from tuning.actuators import _options as options
from tuning.actuators.settings.precision import PrecisionOptions
from tuning.errors import QuantizationRefused
from tuning.ports import Connections
from tuning.quantization import pipeline
from tuning.quantization.build_target import BuildTarget
from tuning.quantization.calibration import CalibrationData, TrafficDrift, check_fresh, from_bytes, load_calibration
from tuning.quantization.ensure import Make, ensure_int8
from tuning.quantization.gates import GateLimits
from tuning.quantization.likeness import Kind
from tuning.quantization.onnx_model import LoadedModel, load_model
from tuning.quantization.repository import Repository

LEVER = "precision"
MIN_LIVE_ROWS = 100
DAY_S = 86_400.0


@dataclass(frozen=True)
class Around:
    """What the servers say: versions they have loaded, inputs they kept (.npz bytes), the batch size in force."""

    serving: tuple[int, ...] = ()
    samples: tuple[bytes | None, ...] = ()
    batch_size: int | None = None


class Int8Source:
    """Finds or makes the INT8 version of a service. `make`: the build, instead of the one that the lever names."""

    def __init__(
        self,
        connections: Connections,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        make: Make | None,
    ) -> None:
        self._connections, self._clock, self._sleep, self._make = connections, clock, sleep, make

    def version(
        self, service: Service, given: PrecisionOptions, key: str, around: Around
    ) -> tuple[str, dict[str, object]]:
        """(version to serve, evidence for the receipt). Raises QuantizationRefused, GateRefused, Temporary."""
        path, calibration, root = given.onnx, given.calibration, given.repository
        if not path or not calibration or not root:
            raise QuantizationRefused(
                f"no calibrated model is configured for {service.name}: its precision lever needs onnx, calibration "
                "and repository"
            )
        model = load_model(Path(path))
        recorded = _largest(around.samples, model)
        if calibration == "recorded":
            if recorded is None:
                raise QuantizationRefused(
                    f"{service.name} has recorded fewer than {MIN_LIVE_ROWS} inputs: wait for traffic, or name a file"
                )
            data, live = recorded, None
        else:
            data, live = load_calibration(Path(calibration), model), recorded
            age_s = given.max_calibration_age_days * DAY_S
            check_fresh(data, now_s=self._clock(), max_age_s=age_s, drift=_drift(service))
        build = given.build
        ensured = ensure_int8(
            Repository(Path(root), given.model or service.name),
            model,
            data,
            _recipe(given, around.batch_size),
            key=key,
            live=live,
            serving=around.serving,
            keep=given.keep_versions,
            make=self._make or self._maker(service, build, Path(root), key),
        )
        judged = "recorded live inputs" if recorded is not None else "held-back calibration rows"
        where = build.text() if ensured.made else "an earlier build"
        evidence = {**ensured.evidence, "built": ensured.made, "built_by": where, "judged_on": judged}
        return str(ensured.version.number), evidence

    def _maker(self, service: Service, build: BuildTarget, root: Path, key: str) -> Make | None:
        """None: the build in this process."""
        if build.kind != "pod":
            return None
        from tuning.actuators._pod_build import PodBuild  # the Kubernetes client is a second of imports

        return PodBuild(self._connections, self._clock, self._sleep, build, service.name, root, key)


def _largest(samples: Sequence[bytes | None], model: LoadedModel) -> CalibrationData | None:
    """Inputs that the servers kept: the largest usable sample; None when none has enough."""
    found: list[CalibrationData] = []
    for sample in samples:
        if sample is None:
            continue
        try:
            found.append(from_bytes(sample, model, source="the recorded live inputs", min_rows=MIN_LIVE_ROWS))
        except QuantizationRefused:
            continue
    return max(found, key=lambda data: data.rows, default=None)


def _recipe(given: PrecisionOptions, batch_size: int | None) -> pipeline.Recipe:
    limits = GateLimits(
        max_accuracy_drop=given.max_accuracy_drop,
        min_agreement=given.min_agreement,
        min_speedup=given.min_speedup,
    )
    usable = batch_size is not None and 1 <= batch_size <= 256
    batches = tuple(sorted({1, batch_size if usable and batch_size else 8}))
    kind: Kind | None = None if given.answers == "auto" else given.answers
    return pipeline.Recipe(limits=limits, batches=batches, output=given.output, answers=kind)


def _drift(service: Service) -> TrafficDrift | None:
    figure = options.lever_of(service, LEVER).options.get("drift")
    if not isinstance(figure, Mapping):
        return None
    return TrafficDrift(
        psi=float(figure.get("psi") or 0.0),
        limit=float(figure.get("psi_limit") or 0.0),
        seen_s=float(figure.get("at_s") or 0.0),
        words=str(figure.get("reason") or ""),
    )
