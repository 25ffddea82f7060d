"""Thresholds from an alarm budget: block maxima, and the conformal rank that they are read at.

A series' own history is cut into blocks of six hours; the largest score of each block is one (nearly) independent draw,
which single autocorrelated scores are not. With n blocks, the k-th smallest maximum with k = ceil((n + 1)(1 - p)) is
exceeded by the next block with probability at most p if blocks are exchangeable (split-conformal rank). A budget of A
alarms a week is p = A / 28. Where p is rarer than the history can tell (k > n), the tail is continued as an
exponential: threshold = largest + mean excess * ln(1 / ((n + 1) p)).
"""

from __future__ import annotations

import numpy as np

from detection.panel import Floats

BLOCK_S = 6 * 3600.0
WEEK_S = 7 * 86_400.0


def block_maxima(scores: Floats, step_s: float, block_s: float = BLOCK_S) -> Floats:
    """Largest score per block, shape (rows, blocks); blocks end at the last point, NaN for blocks without scores."""
    rows, points = scores.shape
    size = max(1, min(points, round(block_s / step_s)))
    blocks = max(1, points // size)
    filled = np.where(np.isfinite(scores), scores, -np.inf)[:, points - blocks * size :]
    top = filled.reshape(rows, blocks, size).max(axis=2)
    return np.where(np.isfinite(top), top, np.nan).astype(np.float32)


def conformal_threshold(maxima: Floats, p: float) -> Floats:
    """The score that a coming block exceeds with probability at most p; shape (rows,), NaN without any block.

    maxima: (rows, blocks), NaN for missing blocks.
    """
    ordered = np.sort(maxima, axis=1)
    count = np.isfinite(maxima).sum(axis=1)
    rank = np.ceil((count + 1) * (1 - p)).astype(np.int64)
    rows = np.arange(maxima.shape[0])
    last = np.maximum(count - 1, 0)
    inside = ordered[rows, np.clip(rank - 1, 0, last)]
    middle = ordered[rows, last // 2]
    largest = ordered[rows, last]
    # for an exponential tail the largest of n lies ln(n / 2) mean excesses above the median of block maxima
    excess = (largest - middle) / np.maximum(np.log(np.maximum(count, 2)), 0.7)
    beyond = largest + excess * np.log(np.maximum(1.0 / ((count + 1) * p), 1.0))
    out = np.where(rank <= count, inside, beyond)
    return np.where(count > 0, out, np.nan).astype(np.float32)


def block_s_of(history_s: float) -> float:
    """Length of the blocks that a history is cut into: an eighth of it, between one hour and six."""
    return float(min(BLOCK_S, max(3600.0, history_s / 8)))


def chance_per_block(per_week: float, block_s: float = BLOCK_S) -> float:
    """The share of blocks that a budget of alarms a week allows, 0..0.95."""
    return float(min(0.95, per_week * block_s / WEEK_S))
