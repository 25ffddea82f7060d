"""The demo's model: a ranking MLP with three 3072x3072 layers, and the inputs that it is good at.

The hidden layers are random features (He 2015 scaling), the last layer is fitted by ridge regression on samples of a
mixture of ten classes. So the model is right about 9 times in 10, and how often two precisions agree means something.
At these sizes a CPU streams the 117 MB of weights once per batch: bigger batches and INT8 both pay, as on a GPU.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

INPUT = "features"
OUTPUT = "logits"


@dataclass(frozen=True)
class Shape:
    """Sizes and seed of the model; equal values give equal weights."""

    inputs: int = 64
    width: int = 3072
    layers: int = 3
    classes: int = 10
    train_rows: int = 1536
    spread: float = 1.0
    seed: int = 7
    recipe: int = 1

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


SMALLER = Shape(width=512, layers=1)
"""A model for the same inputs that takes a hundredth of the work and is right a little less often."""


def sample(rows: int, seed: int, shape: Shape | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 [rows, inputs] and their labels int64 [rows], from the mixture that the model is fitted to."""
    shape = shape or Shape()
    centres = np.random.default_rng(shape.seed).normal(0.0, 1.0, (shape.classes, shape.inputs))
    centres *= 4.0 / np.linalg.norm(centres, axis=1, keepdims=True)
    rng = np.random.default_rng([shape.seed, seed])
    labels = rng.integers(0, shape.classes, rows)
    inputs = centres[labels] + rng.normal(0.0, shape.spread, (rows, shape.inputs))
    return inputs.astype(np.float32), labels


def calibration(path: Path, *, rows: int, seed: int, scale: float = 1.0, now_s: float) -> Path:
    """Write labelled calibration rows as .npz. scale: other than 1 makes them unlike the traffic (another unit)."""
    inputs, labels = sample(rows, seed)
    inputs = (inputs * np.float32(scale)).astype(np.float32)
    kept: dict[str, Any] = {INPUT: inputs, "labels": labels, "recorded_at_s": np.array(now_s)}
    np.savez(path, **kept)
    return path


def weights(shape: Shape) -> list[tuple[np.ndarray, np.ndarray]]:
    """(weight [in, out], bias [out]) of every layer, all float32; the last one is fitted."""
    rng = np.random.default_rng([shape.seed, 1])
    sizes = [shape.inputs] + [shape.width] * (shape.layers + 1)
    layers: list[tuple[np.ndarray, np.ndarray]] = []
    inputs, labels = sample(shape.train_rows, seed=0, shape=shape)
    hidden = inputs
    for fan_in, fan_out in itertools.pairwise(sizes):
        weight = rng.standard_normal((fan_in, fan_out), dtype=np.float32) * np.float32(np.sqrt(2 / fan_in))
        bias = rng.standard_normal(fan_out, dtype=np.float32) * np.float32(0.1)
        # Centred on the data: otherwise deep random features all point the same way.
        bias -= (hidden @ weight).mean(0)
        layers.append((weight, bias))
        hidden = np.maximum(hidden @ weight + bias, 0)
    layers.append(_ridge(hidden, np.eye(shape.classes, dtype=np.float32)[labels]))
    return layers


def _ridge(features: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression in its dual form (rows < features), penalty relative to the kernel's mean diagonal."""
    mean, target_mean = features.mean(0), targets.mean(0)
    centred = features - mean
    kernel = (centred @ centred.T).astype(np.float64)
    kernel[np.diag_indices_from(kernel)] += 0.3 * np.trace(kernel) / len(kernel)
    dual = np.linalg.solve(kernel, (targets - target_mean).astype(np.float64)).astype(np.float32)
    weight = centred.T @ dual
    return weight, target_mean - mean @ weight


def build(path: Path, shape: Shape) -> None:
    """Write the ONNX file (FP32, input float32 [N, inputs], output float32 [N, classes]); whole or not at all."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, current = [], [], INPUT
    fitted = weights(shape)
    for number, (weight, bias) in enumerate(fitted):
        last = number == len(fitted) - 1
        out = OUTPUT if last else f"pre{number}"
        nodes.append(helper.make_node("Gemm", [current, f"w{number}", f"b{number}"], [out], name=f"dense{number}"))
        constants.append(numpy_helper.from_array(np.ascontiguousarray(weight), f"w{number}"))
        constants.append(numpy_helper.from_array(np.ascontiguousarray(bias), f"b{number}"))
        if not last:
            current = f"hidden{number}"
            nodes.append(helper.make_node("Relu", [out], [current], name=f"relu{number}"))
    graph = helper.make_graph(
        nodes, "ranker",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["N", shape.inputs])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", shape.classes])], constants)  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    onnx.save(model, str(partial))
    partial.replace(path)


def cached(cache: Path, shape: Shape | None = None) -> Path:
    """The model's file, made when it is not there yet (a few seconds)."""
    shape = shape or Shape()
    path = cache / f"ranker-{shape.width}x{shape.layers}-{shape.digest()}.onnx"
    if not path.is_file():
        build(path, shape)
    return path


def right_share(model: Path, *, rows: int, seed: int) -> float:
    """The share of right answers of a model file on rows that it was not fitted to, 0..1."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(model), options)
    inputs, labels = sample(rows, seed)
    found = [session.run(None, {INPUT: part})[0].argmax(1) for part in np.array_split(inputs, max(1, rows // 200))]
    return float((np.concatenate(found) == labels).mean())


SCALES = (0.98, 1.0, 1.02)


def averaged(source: Path, target: Path) -> Path:
    """Write a model that runs `source` once for each of SCALES, on inputs scaled by it, and averages the answers: a
    little steadier, and as many times as much work per row. The weights are shared, so the file is no larger."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load(str(source))
    graph, nodes = model.graph, []
    for number, scale in enumerate(SCALES):
        names = {INPUT: f"{INPUT}_{number}", **{out: f"{out}_{number}" for node in graph.node for out in node.output}}
        graph.initializer.append(numpy_helper.from_array(np.array(scale, np.float32), f"scale{number}"))
        nodes.append(helper.make_node("Mul", [INPUT, f"scale{number}"], [names[INPUT]], name=f"scaled{number}"))
        for node in graph.node:
            inputs, outputs = ([names.get(name, name) for name in part] for part in (node.input, node.output))
            nodes.append(helper.make_node(node.op_type, inputs, outputs, name=f"{node.name}_{number}"))
    answers = [f"{OUTPUT}_{number}" for number in range(len(SCALES))]
    nodes.append(helper.make_node("Mean", answers, [OUTPUT], name="mean"))
    del graph.node[:]
    graph.node.extend(nodes)
    target.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(target))
    return target


def repository(directory: Path, model: Path, name: str = "ranker", version: int = 1) -> Path:
    """A model repository (Triton's layout) with the model as this version; returns `directory`."""
    folder = directory / name / str(version)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "model.onnx"
    target.unlink(missing_ok=True)
    try:
        target.hardlink_to(model)
    except OSError:  # another file system
        target.write_bytes(model.read_bytes())
    (folder / "manifest.json").write_text(json.dumps({"precision": "fp32", "source": model.name}) + "\n")
    return directory
