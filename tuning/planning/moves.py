"""What a learned policy can do: a fixed list of moves, what each leads to, and which are open. Pure, on arrays.

A move is relative ("twice the batch"), so that one policy serves services of every size; what it leads to is absolute
and within bounds. Training and the live planners share these functions: `n` services are asked at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from detection.model import FloatArray

Seen = Mapping[str, FloatArray]
"""Quantities by name, shape (n,) each, NaN where not known (see `features.QUANTITIES`)."""


@dataclass(frozen=True)
class Move:
    """batch, replicas: factor on the present number (1: as it is, inf: up to the bound). one_more: one replica more at
    least. no_wait: the batch timeout to its lower bound. int8: serve INT8."""

    name: str
    batch: float = 1.0
    replicas: float = 1.0
    one_more: bool = False
    no_wait: bool = False
    int8: bool = False

    @property
    def levers(self) -> tuple[str, ...]:
        batch = ("batch_size",) if self.batch > 1 or self.no_wait else ()
        replicas = ("replicas",) if self.replicas > 1 or self.one_more else ()
        return (*batch, *replicas, *(("precision",) if self.int8 else ()))


_MOST = float("inf")
MOVES: tuple[Move, ...] = (
    Move("hold"),
    Move("batch x2", batch=2.0),
    Move("batch x4", batch=4.0),
    Move("batch to its bound", batch=_MOST),
    Move("no batch wait", no_wait=True),
    Move("one replica more", one_more=True),
    Move("replicas x1.5", replicas=1.5, one_more=True),
    Move("replicas x2", replicas=2.0),
    Move("replicas to their bound", replicas=_MOST),
    Move("int8", int8=True),
    Move("batch to its bound, int8", batch=_MOST, int8=True),
    Move("batch to its bound, replicas x2", batch=_MOST, replicas=2.0),
)
"""In the order of a policy's outputs. A file of weights names them, so that another list refuses it."""

NAMES = tuple(move.name for move in MOVES)


@dataclass(frozen=True)
class Targets:
    """Where every move leads, shape (n, moves) each. open: it is within bounds, changes something that no earlier move
    of the list changes to the same values, and pulls no lever that was tried in vain."""

    batch: FloatArray
    timeout_ms: FloatArray
    replicas: FloatArray
    int8: FloatArray
    open: np.ndarray


def targets(seen: Seen) -> Targets:
    """Absolute values of every move. A lever whose bound is NaN is not there; `int8` is 1 where INT8 can be had."""
    batch, most = _column(seen["batch"]), _column(seen["batch_max"])
    replicas, top = _column(seen["replicas"]), _column(seen["replicas_max"])
    timeout, least = _column(seen["timeout_ms"]), _column(seen["timeout_min_ms"])
    grown = np.where(np.isfinite(most), np.maximum(batch, np.minimum(batch * _row("batch"), most)), batch)
    wanted = np.maximum(np.floor(replicas * _row("replicas")), replicas + _row("one_more"))
    added = np.where(np.isfinite(top), np.maximum(replicas, np.minimum(wanted, top)), replicas)
    shorter = np.isfinite(least) & (least < timeout) & (_row("no_wait") > 0)
    waits = np.where(shorter, least, timeout)
    int8 = np.broadcast_to(_row("int8"), grown.shape).copy()
    allowed = (int8 == 0) | (_column(seen["int8"]) > 0)
    for lever in ("batch_size", "replicas", "precision"):
        pulls = np.array([lever in move.levers for move in MOVES])
        allowed &= ~(pulls & (_column(seen[f"tried_{lever}"]) > 0))
    values = np.stack(np.broadcast_arrays(grown, waits, added, int8))
    # Both halves of a pair have to move, and of two moves that lead to the same setting the first is the one.
    moved = np.stack([grown != batch, waits != timeout, added != replicas, int8 > 0])
    wants = np.stack([_row("batch") > 1, _row("no_wait") > 0, (_row("replicas") > 1) | (_row("one_more") > 0),
                      _row("int8") > 0])  # fmt: skip
    allowed &= (moved | ~wants).all(axis=0) & ~_again(values)
    allowed[:, 0] = True
    return Targets(grown, waits, added, int8, allowed)


def _again(values: FloatArray) -> np.ndarray:
    """Which moves lead where an earlier one leads, shape (n, moves). values: shape (knobs, n, moves)."""
    same = (values[..., :, None] == values[..., None, :]).all(axis=0)
    return np.asarray(np.triu(same.swapaxes(-1, -2), 1).any(axis=-2))


def _column(values: FloatArray) -> FloatArray:
    return np.asarray(values, dtype=float)[:, None]


def _row(name: str) -> FloatArray:
    return np.array([[float(getattr(move, name)) for move in MOVES]])
