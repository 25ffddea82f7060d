"""Models with a task of their own, made in seconds without a training framework: the zoo of the INT8 benchmark.

Random layers (He initialisation) with a head that is trained in closed form (ridge regression): such a network really
solves its task (over 0.9 on held-back rows), so a drop in accuracy means something. scikit-learn's digits are
8 x 8 images; the convolutions see them scaled up.

Same arguments, same model: every random number comes from `seed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

F32 = NDArray[np.float32]
OPSET = 17


@dataclass(frozen=True)
class ZooModel:
    """A model with its task. inputs: rows for calibration and gates. labels: the right classes. name: short."""

    name: str
    proto: onnx.ModelProto
    inputs: F32
    labels: NDArray[np.int64]


class Graph:
    """A small ONNX builder: every method adds nodes and answers the name of the result."""

    def __init__(self, shape: tuple[int | str, ...], seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.shape = shape

    def const(self, array: NDArray[Any]) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        out = f"t{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [out], name=f"{kind.lower()}_{len(self.nodes)}", **attributes)
        )
        return out

    def normal(self, *shape: int, scale: float) -> F32:
        return (self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)).astype(np.float32)

    def gemm(self, x: str, d_in: int, d_out: int) -> str:
        weight = self.const(self.normal(d_in, d_out, scale=float(np.sqrt(2 / d_in))))
        return self.op("Gemm", x, weight, self.const(self.normal(d_out, scale=0.1)))

    def matmul(self, x: str, d_in: int, d_out: int, gain: float = 1.0) -> str:
        product = self.op("MatMul", x, self.const(self.normal(d_in, d_out, scale=float(np.sqrt(gain / d_in)))))
        return self.op("Add", product, self.const(self.normal(d_out, scale=0.02)))

    def conv(
        self, x: str, c_in: int, c_out: int, size: int = 3, stride: int = 1, group: int = 1, gain: float = 2.0
    ) -> str:
        fan = c_in // group * size * size
        weight = self.const(self.normal(c_out, c_in // group, size, size, scale=float(np.sqrt(gain / fan))))
        pads = [size // 2] * 4
        bias = self.const(self.normal(c_out, scale=0.05))
        return self.op("Conv", x, weight, bias, strides=[stride] * 2, pads=pads, group=group, kernel_shape=[size] * 2)

    def relu(self, x: str) -> str:
        return self.op("Relu", x)

    def norm(self, x: str, width: int) -> str:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return self.op("LayerNormalization", x, self.const(ones), self.const(zeros), axis=-1)

    def model(self, output: str, width: int, name: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", width])],
            self.weights,
        )
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="slotune-zoo")
        proto.ir_version = 9
        return proto


def digits(size: int) -> tuple[F32, NDArray[np.int64]]:
    """scikit-learn's digits (1,797 rows, 8 x 8, values 0..1), scaled up to (rows, 1, size, size)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    pictures = (images.astype(np.float32) / 16).reshape(-1, 1, 8, 8)
    factor = size // 8
    order = np.random.default_rng(7).permutation(len(labels))
    return np.kron(pictures, np.ones((1, 1, factor, factor), np.float32))[order], labels.astype(np.int64)[order]


def clusters(rows: int, width: int, classes: int, noise: float, seed: int) -> tuple[F32, NDArray[np.int64]]:
    """Rows around one random centre per class, shape (rows, width): a task that a network has to look at to solve."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, width), dtype=np.float32)
    labels = rng.integers(0, classes, rows)
    return centres[labels] + np.float32(noise) * rng.standard_normal((rows, width), dtype=np.float32), labels


def mlp(width: int = 3072, layers: int = 3, *, noise: float = 4.0, rows: int = 1500, seed: int = 1) -> ZooModel:
    """`layers` square layers with ReLU and a trained head of 10 classes; 3072 x 3 is 28 million weights (113 MB)."""
    graph = Graph(("batch", width), seed)
    x = "input"
    for _ in range(layers):
        x = graph.relu(graph.gemm(x, width, width))
    inputs, labels = clusters(rows, width, 10, noise, seed)
    return _with_head("mlp", graph, x, width, inputs, labels)


def conv(size: int = 64, widths: tuple[int, ...] = (64, 128, 256, 512), blocks: int = 1, *, seed: int = 2) -> ZooModel:
    """A residual convolutional classifier of digits at size x size: a stem, then `blocks` blocks per width."""
    graph = Graph(("batch", 1, size, size), seed)
    x = graph.relu(graph.conv(graph.relu(graph.conv("input", 1, 32, stride=2)), 32, widths[0], stride=2))
    before, side = widths[0], size // 4
    for width in widths:
        stride = 1 if width == before else 2
        side //= stride
        for block in range(blocks):
            step = stride if block == 0 else 1
            branch = graph.relu(graph.conv(x, before, width, stride=step))
            branch = graph.conv(branch, width, width, gain=0.5)
            short = x if step == 1 else graph.conv(x, before, width, size=1, stride=step, gain=1.0)
            x, before = graph.relu(graph.op("Add", short, branch)), width
    return _with_head("conv", graph, graph.op("Flatten", x), before * side * side, *digits(size))


def transformer(width: int = 768, layers: int = 3, heads: int = 8, *, seed: int = 3) -> ZooModel:
    """An encoder over the 8 rows of a digit: tokens of 8 pixels, post-norm blocks, a trained head on all tokens."""
    graph = Graph(("batch", 8, 8), seed)
    x = graph.matmul("input", 8, width)
    x = graph.op("Add", x, graph.const(graph.normal(8, width, scale=0.3)))
    for _ in range(layers):
        x = graph.norm(graph.op("Add", x, _attention(graph, x, width, heads)), width)
        hidden = graph.relu(graph.matmul(x, width, 4 * width, gain=2.0))
        x = graph.norm(graph.op("Add", x, graph.matmul(hidden, 4 * width, width)), width)
    flat = graph.op("Flatten", x)
    images, labels = digits(8)
    return _with_head("transformer", graph, flat, 8 * width, images.reshape(-1, 8, 8), labels)


def depthwise(size: int = 32, width: int = 32, blocks: int = 8, *, seed: int = 4) -> ZooModel:
    """Mostly depthwise convolutions: little arithmetic per byte, so INT8 has little to win."""
    graph = Graph(("batch", 1, size, size), seed)
    x = graph.relu(graph.conv("input", 1, width))
    for _ in range(blocks):
        x = graph.op("Add", x, graph.op("HardSwish", graph.conv(x, width, width, group=width)))
    pooled = graph.op("AveragePool", x, kernel_shape=[size // 4] * 2, strides=[size // 4] * 2)
    flat = graph.op("Flatten", pooled)
    return _with_head("depthwise", graph, flat, width * 16, *digits(size))


def outlier(width: int = 256, *, size: float = 3000.0, seed: int = 5) -> ZooModel:
    """An MLP with one unit that is always huge, as trained transformers have them: the range of that layer's result is
    all outlier, so INT8 rounds everything else to nothing. Leaving two layers in FP32 cures it."""
    graph = Graph(("batch", width), seed)
    x = graph.relu(graph.gemm("input", width, width))
    bias = graph.normal(width, scale=0.1)
    bias[7] = size
    weight = graph.normal(width, width, scale=float(np.sqrt(2 / width)))
    x = graph.relu(graph.op("Gemm", x, graph.const(weight), graph.const(bias)))
    after = graph.normal(width, width, scale=float(np.sqrt(2 / width)))
    after[7] = 0
    x = graph.relu(graph.op("Gemm", x, graph.const(after), graph.const(graph.normal(width, scale=0.1))))
    inputs, labels = clusters(1500, width, 10, 1.0, seed)
    return _with_head("outlier", graph, graph.relu(graph.gemm(x, width, width)), width, inputs, labels)


def _attention(graph: Graph, x: str, width: int, heads: int) -> str:
    split = graph.const(np.array([0, 0, heads, width // heads], np.int64))
    join = graph.const(np.array([0, 0, width], np.int64))

    def head(perm: list[int]) -> str:
        return graph.op("Transpose", graph.op("Reshape", graph.matmul(x, width, width), split), perm=perm)

    query, key, value = head([0, 2, 1, 3]), head([0, 2, 3, 1]), head([0, 2, 1, 3])
    scores = graph.op(
        "Mul", graph.op("MatMul", query, key), graph.const(np.asarray(1 / np.sqrt(width / heads), np.float32))
    )
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    joined = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), join)
    return graph.matmul(joined, width, width)


def _with_head(name: str, graph: Graph, features: str, width: int, inputs: F32, labels: NDArray[np.int64]) -> ZooModel:
    """Train the head on the first third of the rows (ridge regression on one-hot targets) and keep the rest as data."""
    third = len(labels) // 3
    body = graph.model(features, width, name)
    x = _run(body, inputs[:third]).astype(np.float64)
    centre, spread = x.mean(axis=0), x.std(axis=0).mean() + 1e-9
    z = (x - centre) / spread
    classes = int(labels.max()) + 1
    targets = np.eye(classes)[labels[:third]] - 1 / classes
    # The dual form: as many equations as rows, however wide the features are.
    kernel = z @ z.T
    dual = np.linalg.solve(kernel + np.trace(kernel) / third * 0.01 * np.eye(third), targets)
    weight = z.T @ dual / spread
    bias = -centre @ weight
    logits = graph.op("Gemm", features, graph.const(weight.astype(np.float32)), graph.const(bias.astype(np.float32)))
    return ZooModel(name, graph.model(logits, classes, name), inputs[third:], labels[third:])


def _run(proto: onnx.ModelProto, rows: F32) -> F32:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(None, {"input": rows[i : i + 64]})[0] for i in range(0, len(rows), 64)])


ZOO: dict[str, Callable[[], ZooModel]] = {
    "conv": conv,
    "depthwise": depthwise,
    "mlp": mlp,
    "outlier": outlier,
    "transformer": transformer,
}
