"""From a model and rows to a judged INT8 artefact: quantise, check the answers, leave layers out if needed, time it.

Pure but for the timing, whose clocks are arguments. The same model and rows give the same artefact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tuning.errors import QuantizationRefused
from tuning.quantization.artefacts import Artefact, Quantiser, Target
from tuning.quantization.calibration import CalibrationData, compare_with_live, split
from tuning.quantization.gates import Accuracy, GateLimits, GateRow, Judgement, LatencyRow, judge, judge_accuracy
from tuning.quantization.likeness import Kind
from tuning.quantization.measure import Clocks, Effort, Metric, compare_models, latency_table
from tuning.quantization.onnx_model import LoadedModel, open_session
from tuning.quantization.sensitivity import LayerHarm, rank_layers, search

RANKING_ROWS = 64
FOREIGN_SHARE = 0.2
"""Share of live values outside the calibrated range from which no layer is looked for: it is the rows that are wrong,
and a user who waits for a refusal should not wait for a search."""
Progress = Callable[[str, float], None]
"""progress(what is being done, share of the whole that is done, 0..1)."""


def silent(stage: str, share: float) -> None:
    """A Progress that says nothing."""


@dataclass(frozen=True)
class Recipe:
    """How to make and judge INT8.

    batches: sizes to time, the serving system's among them. held_back: share of the rows that judge, when no separate
    rows are given. calibrate_at_most, judge_at_most: rows used for each. exclude_layers: leave harmful layers in FP32
    and try again. output: name of the output that is compared. answers: what it is (None: told from its values).
    metric: the user's own measure instead of top-1.
    """

    target: Target = "ort"
    limits: GateLimits = field(default_factory=GateLimits)
    batches: tuple[int, ...] = (1, 8)
    held_back: float = 0.5
    calibrate_at_most: int = 256
    judge_at_most: int = 2000
    exclude_layers: bool = True
    effort: Effort = field(default_factory=Effort)
    seed: int = 0
    output: str | None = None
    answers: Kind | None = None
    metric: Metric | None = None


@dataclass(frozen=True)
class Quantized:
    """What came out. artefact is also there when the judgement is no: publish only `judgement.passed` ones."""

    artefact: Artefact
    judgement: Judgement
    ranking: tuple[LayerHarm, ...] = ()

    def evidence(self) -> dict[str, object]:
        """The gates' table with the artefact's identity, JSON values only."""
        return {
            **self.judgement.evidence(),
            "artefact": self.artefact.digest,
            "source": self.artefact.source_digest,
            "calibration": self.artefact.calibration_digest,
            "target": self.artefact.target,
            "int8_layers": len(self.artefact.layers),
            "excluded_layers": list(self.artefact.excluded),
            "ranking": [harm.model_dump(mode="json") for harm in self.ranking[:10]],
        }


def quantize(
    model: LoadedModel,
    data: CalibrationData,
    recipe: Recipe,
    *,
    live: CalibrationData | None = None,
    clocks: Clocks | None = None,
    progress: Progress = silent,
) -> Quantized:
    """Make and judge an INT8 artefact.

    live: rows recorded from real traffic; when given they judge the agreement - so rows from another distribution are
    found out. Traffic has no labels: where `data` has enough of them, some are held back to judge the accuracy. Without
    live rows `data` is split. QuantizationRefused: it cannot be made.
    """
    calibrate, held = _rows(data, recipe, live)
    progress("measuring the ranges", 0.02)
    with Quantiser(model, calibrate, recipe.target) as quantiser:
        artefact = quantiser.make()
        progress("comparing the answers", 0.35)
        accuracy = _accuracy(model, artefact, held, recipe)
        ranking: tuple[LayerHarm, ...] = ()
        foreign = compare_with_live(calibrate, held.rows).outside > FOREIGN_SHARE
        search_on = recipe.exclude_layers and accuracy.rows >= recipe.limits.min_rows and not foreign
        if search_on and not _accurate(accuracy, recipe.limits):
            artefact, accuracy, ranking = _leave_out(
                model, quantiser, calibrate, held, recipe, artefact, accuracy, progress
            )
    notes = _notes(calibrate, held.rows, accuracy, artefact, recipe)
    latency: tuple[LatencyRow, ...] = ()
    if recipe.target == "ort" and _accurate(accuracy, recipe.limits):
        progress("timing FP32 against INT8", 0.8)
        latency = _time(model, artefact, held.rows, recipe, clocks)
    progress("judging", 1.0)
    return Quantized(artefact, _judge(accuracy, latency, recipe, notes), ranking)


def _judge(accuracy: Accuracy, latency: tuple[LatencyRow, ...], recipe: Recipe, notes: tuple[str, ...]) -> Judgement:
    """As gates.judge; when accuracy already said no, speed was not looked at and is no second reason."""
    if latency or _accurate(accuracy, recipe.limits):
        why = "TensorRT runs on the GPU that will serve it" if recipe.target == "tensorrt" else ""
        return judge(accuracy, latency, recipe.limits, notes=notes, unmeasured=why)
    rows: tuple[GateRow, ...] = judge_accuracy(accuracy, recipe.limits)
    return Judgement(passed=False, gates=rows, accuracy=accuracy, notes=notes)


@dataclass(frozen=True)
class _Held:
    """Rows that judge. labelled: other rows for the accuracy, where `rows` are traffic and nobody knows the answers."""

    rows: CalibrationData
    labelled: CalibrationData | None = None


def _rows(data: CalibrationData, recipe: Recipe, live: CalibrationData | None) -> tuple[CalibrationData, _Held]:
    enough = data.labels is not None and data.rows * recipe.held_back >= recipe.limits.min_rows
    also = live is not None and live.labels is None and enough and recipe.metric is None
    share = recipe.held_back if live is None or also else 0.0
    ours, rest = split(data, held_back=share, calibrate_at_most=recipe.calibrate_at_most, seed=recipe.seed)
    judge_on, _ = split(
        rest if live is None else live, held_back=0.0, calibrate_at_most=recipe.judge_at_most, seed=recipe.seed
    )
    if not also:
        return ours, _Held(judge_on)
    labelled, _ = split(rest, held_back=0.0, calibrate_at_most=recipe.judge_at_most, seed=recipe.seed)
    return ours, _Held(judge_on, labelled)


def _accuracy(model: LoadedModel, artefact: Artefact, held: _Held, recipe: Recipe) -> Accuracy:
    kind = recipe.answers or (None if held.labelled is None else "classes")
    found = compare_models(model, artefact.data, held.rows, metric=recipe.metric, output=recipe.output, kind=kind)
    if held.labelled is None:
        return found
    right = compare_models(model, artefact.data, held.labelled, output=recipe.output, kind=kind)
    known = ["accuracy_fp32", "accuracy_int8", "drop_high"]
    if found.likeness is not None and found.likeness.beyond_chance is None:
        known.append("likeness")  # traffic of one class says nothing about the others: the labelled rows do
    return found.model_copy(update={k: getattr(right, k) for k in known})


def _accurate(accuracy: Accuracy, limits: GateLimits) -> bool:
    return all(row.passed for row in judge_accuracy(accuracy, limits))


def _leave_out(
    model: LoadedModel,
    quantiser: Quantiser,
    calibrate: CalibrationData,
    held: _Held,
    recipe: Recipe,
    artefact: Artefact,
    accuracy: Accuracy,
    progress: Progress,
) -> tuple[Artefact, Accuracy, tuple[LayerHarm, ...]]:
    """Rank the layers on calibration rows and leave the worst in FP32; the best try counts."""
    few, _ = split(calibrate, held_back=0.0, calibrate_at_most=RANKING_ROWS, seed=recipe.seed)
    ranking = rank_layers(
        model, quantiser, few, progress=lambda share: progress("ranking the layers", 0.4 + 0.3 * share)
    )
    progress("leaving the worst layers in FP32", 0.7)
    found = search(
        quantiser,
        ranking,
        lambda made: _accuracy(model, made, held, recipe),
        lambda judged: _accurate(judged, recipe.limits),
    )
    if found is None or found[1].agreement < accuracy.agreement:
        return artefact, accuracy, ranking
    return (*found, ranking)


def _notes(
    calibrate: CalibrationData, judge_on: CalibrationData, accuracy: Accuracy, artefact: Artefact, recipe: Recipe
) -> tuple[str, ...]:
    """What a reader of a refusal (or of a pass with excluded layers) should know beside the gates."""
    notes: list[str] = []
    if artefact.excluded:
        notes.append(f"left in FP32 because INT8 harmed them most: {', '.join(artefact.excluded)}")
    if not _accurate(accuracy, recipe.limits):
        drift = compare_with_live(calibrate, judge_on)
        if drift.outside > 0.01 or drift.shift > 0.5:
            notes.append(f"the calibration data look different from what they are judged on: {drift.text()}")
    return tuple(notes)


def _time(
    model: LoadedModel, artefact: Artefact, rows: CalibrationData, recipe: Recipe, clocks: Clocks | None
) -> tuple[LatencyRow, ...]:
    batches = recipe.batches if model.fixed_batch is None else (model.fixed_batch,)
    if not batches or min(batches) < 1:
        raise QuantizationRefused(f"batch sizes to time must be 1 or more, got {list(batches)}")
    fp32, int8 = open_session(model.data), open_session(artefact.data)
    return latency_table(fp32, int8, rows, batches, effort=recipe.effort, clocks=clocks, seed=recipe.seed)
