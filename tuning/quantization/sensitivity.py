"""Which layers suffer most from INT8, and the search for the fewest that have to stay in FP32.

A layer's harm is measured where it counts: quantise that layer alone and look at the model's outputs. (The error at the
layer itself says little: a later ReLU or softmax may swallow it, or blow it up.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detection.model import Value
from tuning.quantization.artefacts import Artefact, Quantiser, output_noise_db
from tuning.quantization.calibration import CalibrationData
from tuning.quantization.gates import Accuracy
from tuning.quantization.onnx_model import LoadedModel, open_session, predict


class LayerHarm(Value):
    """What INT8 of this layer alone does to the outputs: signal-to-noise ratio in dB, the lower the worse."""

    layer: str
    snr_db: float


def rank_layers(
    model: LoadedModel,
    quantiser: Quantiser,
    rows: CalibrationData,
    *,
    at_most: int = 48,
    progress: Callable[[float], None] | None = None,
) -> tuple[LayerHarm, ...]:
    """Layers from the most harmful to the least; ties by name. Only the first `at_most` layers are measured."""
    reference = predict(open_session(model.data), rows.inputs)
    layers = quantiser.layers[:at_most]
    found: list[LayerHarm] = []
    for index, layer in enumerate(layers):
        alone = quantiser.make(only=[layer])
        outputs = predict(open_session(alone.data), rows.inputs)
        found.append(LayerHarm(layer=layer, snr_db=_worst(reference, outputs)))
        if progress is not None:
            progress((index + 1) / len(layers))
    return tuple(sorted(found, key=lambda harm: (harm.snr_db, harm.layer)))


def exclusions(ranking: Sequence[LayerHarm], *, share: float = 0.5) -> Iterator[tuple[str, ...]]:
    """What to leave in FP32, try by try: the worst 1, 2, 4, 8, ... layers, never more than `share` of all."""
    most = int(len(ranking) * share)
    count = 1
    while count <= most:
        yield tuple(harm.layer for harm in ranking[:count])
        if count == most:
            return
        count = min(count * 2, most)


def search(
    quantiser: Quantiser,
    ranking: Sequence[LayerHarm],
    measure: Callable[[Artefact], Accuracy],
    passes: Callable[[Accuracy], bool],
) -> tuple[Artefact, Accuracy] | None:
    """The first artefact of `exclusions` that passes the accuracy gate, else the one that agrees best.

    None when the model has too few layers to leave any out.
    """
    best: tuple[Artefact, Accuracy] | None = None
    for exclude in exclusions(ranking):
        artefact = quantiser.make(exclude=exclude)
        accuracy = measure(artefact)
        if passes(accuracy):
            return artefact, accuracy
        if best is None or accuracy.agreement > best[1].agreement:
            best = artefact, accuracy
    return best


def _worst(reference: dict[str, NDArray[Any]], outputs: dict[str, NDArray[Any]]) -> float:
    """The lowest ratio over the floating outputs; capped, because JSON has no infinity."""
    floats = [name for name, array in reference.items() if array.dtype.kind == "f"]
    return float(
        min((min(output_noise_db(reference[n], outputs[n]), 200.0) for n in floats), default=np.float64(200.0))
    )
