"""An isolation forest as plain arrays: fitted by scikit-learn, kept and scored by numpy.

A baseline must travel between processes without pickle, so the trees are taken out of the estimator. Scores equal
scikit-learn's -score_samples (Liu, Ting and Zhou 2008: 2 ** (-E[path length] / c(samples))).
"""

from __future__ import annotations

import numpy as np

from detection.panel import Floats
from detection.series import Arrays

_ROWS = 2048


def path_norm(n: float) -> float:
    """c(n): the mean path length of an unsuccessful search in a binary tree of n samples."""
    if n <= 1:
        return 0.0
    return 1.0 if n == 2 else 2.0 * (np.log(n - 1.0) + np.euler_gamma) - 2.0 * (n - 1.0) / n


def fit_trees(rows: Floats, *, trees: int, samples: int, seed: int) -> dict[str, Floats]:
    """Fits and unpacks: feature, threshold, left, right, depth of shape (trees, nodes), and norm of shape (1,)."""
    # half a second of importing, which only learning needs
    from sklearn.ensemble import IsolationForest

    samples = min(samples, rows.shape[0])
    forest = IsolationForest(n_estimators=trees, max_samples=samples, contamination="auto", random_state=seed)
    forest.fit(rows)
    width = max(tree.tree_.node_count for tree in forest.estimators_)
    arrays = {name: np.zeros((trees, width), np.float32) for name in ("feature", "threshold", "left", "right", "depth")}
    for t, estimator in enumerate(forest.estimators_):
        tree, n = estimator.tree_, estimator.tree_.node_count
        leaf = tree.children_left < 0
        nodes = np.arange(n)
        # a leaf points to itself, so every row may walk the same number of steps
        arrays["left"][t, :n] = np.where(leaf, nodes, tree.children_left)
        arrays["right"][t, :n] = np.where(leaf, nodes, tree.children_right)
        arrays["feature"][t, :n] = np.where(leaf, 0, tree.feature)
        arrays["threshold"][t, :n] = tree.threshold
        arrays["depth"][t, :n] = _depths(tree.children_left, tree.children_right) + [
            path_norm(float(count)) for count in tree.n_node_samples
        ]
    arrays["norm"] = np.array([path_norm(float(samples)), float(max(1, np.ceil(np.log2(max(2, samples)))))], np.float32)
    return arrays


def _depths(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    depth = np.zeros(left.size)
    for node in range(left.size):
        if left[node] >= 0:
            depth[left[node]] = depth[right[node]] = depth[node] + 1
    return depth


def score_rows(rows: Floats, arrays: Arrays) -> Floats:
    """Isolation scores in 0..1 of rows of shape (n, features); higher is stranger. Shape (n,)."""
    trees, width = arrays["left"].shape
    base = np.arange(trees, dtype=np.int64)[None, :] * width
    feature = arrays["feature"].ravel().astype(np.int32)
    threshold = arrays["threshold"].ravel()
    left = arrays["left"].ravel().astype(np.int32)
    right = arrays["right"].ravel().astype(np.int32)
    depth = arrays["depth"].ravel()
    norm, steps = float(arrays["norm"][0]), int(arrays["norm"][1])
    out = np.empty(rows.shape[0], np.float32)
    for first in range(0, rows.shape[0], _ROWS):
        part = rows[first : first + _ROWS]
        flat, row_base = part.ravel(), (np.arange(part.shape[0]) * part.shape[1])[:, None]
        node = np.broadcast_to(base, (part.shape[0], trees)).copy()
        for _ in range(steps):
            go_left = flat[row_base + feature[node]] <= threshold[node]
            node = base + np.where(go_left, left[node], right[node])
        out[first : first + _ROWS] = 2.0 ** (-depth[node].mean(axis=1) / max(norm, 1e-9))
    return out
