"""An INT8 version in the model repository that has passed every gate: found when it is there, made when it is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuning.errors import QuantizationRefused
from tuning.quantization import pipeline
from tuning.quantization.artefacts import Artefact
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.gates import GateRefused
from tuning.quantization.onnx_model import LoadedModel
from tuning.quantization.polite import politely
from tuning.quantization.repository import Manifest, Repository, Version, config_pbtxt, problems
from tuning.quantization.tensorrt_engine import Engine, EngineFacts, check_engine

Make = Callable[[LoadedModel, CalibrationData, pipeline.Recipe, CalibrationData | None], pipeline.Quantized]


@dataclass(frozen=True)
class Ensured:
    """The version to serve, whether it was made just now, and the gates' table as JSON values."""

    version: Version
    made: bool
    evidence: dict[str, object]


def ensure_int8(
    repository: Repository,
    model: LoadedModel,
    data: CalibrationData,
    recipe: pipeline.Recipe,
    *,
    key: str = "",
    live: CalibrationData | None = None,
    serving: Sequence[int] = (),
    keep: int = 4,
    make: Make | None = None,
) -> Ensured:
    """Idempotent: the same model, rows and recipe (or the same `key`) give the version that is already there.

    serving: versions that a server has loaded; they are never dropped. Raises GateRefused with the table in its
    evidence (nothing is published), QuantizationRefused, or Temporary (another build is publishing, disk full).
    """
    asked = recipe_of(recipe)
    found = repository.find_made(source_digest=model.digest, calibration_digest=data.digest, recipe=asked, made_for=key)
    if found is not None and found.manifest is not None:
        return Ensured(found, made=False, evidence={**found.manifest.judgement, "version": found.number})
    made = (make or _make)(model, data, recipe, live)
    if not made.judgement.ready:
        why = made.judgement.refusal or "; ".join(
            f"{g.gate} is {g.found}" for g in made.judgement.gates if not g.passed
        )
        raise GateRefused(f"INT8 of {repository.model} is refused: {why}", made.judgement, made.evidence())
    manifest = _manifest(repository.model, made.artefact, data, asked, made.evidence(), key)
    config = config_pbtxt(
        repository.model,
        model.inputs,
        model.outputs,
        platform="onnxruntime_onnx",
        max_batch=max(recipe.batches),
        serve=serving or [v.number for v in repository.versions()][-1:] or [1],
    )
    version = repository.publish(made.artefact.data, manifest, keep=keep, protect=serving, config=config)
    return Ensured(version, made=True, evidence={**made.evidence(), "version": version.number})


def recipe_of(recipe: pipeline.Recipe) -> dict[str, object]:
    """What of a recipe changes the artefact or who may pass: part of the manifest, JSON values only."""
    return {
        "target": recipe.target,
        "limits": recipe.limits.model_dump(mode="json"),
        "held_back": recipe.held_back,
        "calibrate_at_most": recipe.calibrate_at_most,
        "judge_at_most": recipe.judge_at_most,
        "exclude_layers": recipe.exclude_layers,
        "seed": recipe.seed,
        **({} if recipe.output is None else {"output": recipe.output}),
        **({} if recipe.answers is None else {"answers": recipe.answers}),
    }


def publish_source(repository: Repository, path: Path, model: LoadedModel) -> Version:
    """The FP32 model as a version of its own, so that there is a way back; a no-op when it is there."""
    manifest = Manifest(
        model=repository.model,
        precision="fp32",
        file="model.onnx",
        digest=model.digest,
        source_digest=model.digest,
        recipe={"source": path.name},
    )
    return repository.publish(model.data, manifest)


def publish_engine(
    repository: Repository, engine: Engine, *, evidence: dict[str, object] | None = None, key: str = ""
) -> Version:
    """A TensorRT engine as a version (model.plan), with the facts that `load_engine` holds against the machine."""
    manifest = Manifest(
        model=repository.model,
        precision=engine.facts.precision,
        file="model.plan",
        digest=engine.facts.digest,
        source_digest=engine.facts.source_digest,
        calibration_digest=engine.facts.calibration_digest,
        engine=engine.facts.model_dump(mode="json"),
        judgement=evidence or {},
        made_for=key,
    )
    return repository.publish(engine.data, manifest)


def load_engine(version: Version, *, tensorrt_version: str, compute_capability: str, source_digest: str) -> bytes:
    """The bytes of a published engine, after everything that it was built for was compared with what is here.

    QuantizationRefused: no engine, damaged, or built for another TensorRT, GPU or model.
    """
    if version.manifest is None or not version.manifest.engine:
        raise QuantizationRefused(f"version {version.number} is no TensorRT engine")
    wrong = problems(Path(version.path))
    if wrong:
        raise QuantizationRefused(f"version {version.number} must not be loaded: {'; '.join(wrong)}")
    data = (Path(version.path) / version.manifest.file).read_bytes()
    check_engine(
        data,
        EngineFacts.model_validate(version.manifest.engine),
        tensorrt_version=tensorrt_version,
        compute_capability=compute_capability,
        source_digest=source_digest,
        calibration_digest=version.manifest.calibration_digest,
    )
    return data


def _make(
    model: LoadedModel, data: CalibrationData, recipe: pipeline.Recipe, live: CalibrationData | None
) -> pipeline.Quantized:
    return politely(lambda: pipeline.quantize(model, data, recipe, live=live))


def _manifest(
    name: str,
    artefact: Artefact,
    data: CalibrationData,
    recipe: dict[str, object],
    evidence: dict[str, object],
    key: str,
) -> Manifest:
    return Manifest(
        model=name,
        precision="int8",
        file="model.onnx",
        digest=artefact.digest,
        source_digest=artefact.source_digest,
        calibration_digest=data.digest,
        recipe=recipe,
        judgement=evidence,
        made_for=key,
    )
