"""What a learned policy sees: ratios and logarithms of what the planners derive from an observation. Pure, on arrays.

Nothing depends on the size of a service: what is twice its calm is log 2, whatever the rate. What is not known is 0, as
what is as usual: a policy was trained with gaps of that kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from detection.model import FloatArray
from tuning.planning.moves import Seen

QUANTITIES = (
    "p95_ms", "limit_ms", "error_rate", "arrivals", "base_qps", "slope", "slow", "slower_per_min", "busy", "fill",
    "queue_share", "alpha_ms", "beta_ms", "batch", "batch_max", "timeout_ms", "timeout_min_ms", "replicas",
    "replicas_max", "base_replicas", "slowest", "int8", "backlog", "variation", "age_s", "cv2", "tried_batch_size",
    "tried_replicas", "tried_precision",
)  # fmt: skip
"""Rates per second, `slope` per second squared, times as their names say, shares 0..1. slow, slowest: factors on the
learned batch time, of the service and of its slowest replica. tried_*: 1 where that lever was pulled in vain."""

_Feature = Callable[[Seen], FloatArray]


def _log(above: str, below: str) -> _Feature:
    return lambda s: np.log(np.maximum(s[above], 1e-9) / np.maximum(s[below], 1e-9))


def _as_is(name: str, scale: float = 1.0) -> _Feature:
    return lambda s: s[name] / scale


def batch_ms(seen: Seen, rows: FloatArray) -> FloatArray:
    """Time of a batch now, slowness included."""
    slow = np.where(np.isfinite(seen["slow"]), seen["slow"], 1.0)
    return (seen["alpha_ms"] + seen["beta_ms"] * rows) * slow


def load(seen: Seen, batch: FloatArray) -> FloatArray:
    """Utilisation with full batches of this limit; 1 and more never settles."""
    return seen["arrivals"] * batch_ms(seen, batch) / 1e3 / np.maximum(batch, 1.0) / np.maximum(seen["replicas"], 1.0)


def _row_share(seen: Seen) -> FloatArray:
    rows = seen["beta_ms"] * seen["batch"]
    return rows / np.maximum(seen["alpha_ms"] + rows, 1e-9)


def _drain_min(seen: Seen) -> FloatArray:
    carried = seen["arrivals"] / np.maximum(load(seen, seen["batch"]), 1e-9)
    return seen["backlog"] / np.maximum(carried, 1e-9) / 60.0


def _most(seen: Seen) -> FloatArray:
    return np.where(np.isfinite(seen["batch_max"]), seen["batch_max"], seen["batch"])


_TABLE: dict[str, _Feature] = {
    "P95 over its limit, log": _log("p95_ms", "limit_ms"),
    "requests that fail, tenths": _as_is("error_rate", 0.1),
    "arrivals over the calm, log": _log("arrivals", "base_qps"),
    "growth of arrivals a minute": lambda s: 60.0 * s["slope"] / np.maximum(s["arrivals"], 1e-9),
    "slowness, log": lambda s: np.log(np.maximum(s["slow"], 1e-9)),
    "growth of the slowness a minute": _as_is("slower_per_min"),
    "busy": _as_is("busy"),
    "rows over the batch limit": _as_is("fill"),
    "share of the time in the queue": _as_is("queue_share"),
    "time of a full batch over the limit, log": lambda s: np.log(
        np.maximum(batch_ms(s, s["batch"]), 1e-9) / s["limit_ms"]
    ),
    "time of the largest batch over the limit, log": lambda s: np.log(
        np.maximum(batch_ms(s, _most(s)), 1e-9) / s["limit_ms"]
    ),
    "share of a full batch that grows with its rows": _row_share,
    "load, log": lambda s: np.log(np.maximum(load(s, s["batch"]), 1e-9)),
    "load with the largest batch, log": lambda s: np.log(np.maximum(load(s, _most(s)), 1e-9)),
    "room for batches, log": lambda s: np.log(_most(s) / np.maximum(s["batch"], 1.0)) / 2.0,
    "room for replicas, log": _log("replicas_max", "replicas"),
    "replicas, log": lambda s: np.log(np.maximum(s["replicas"], 1.0)),
    "batch wait over the limit": lambda s: s["timeout_ms"] / s["limit_ms"],
    "replicas missing, log": _log("base_replicas", "replicas"),
    "slowest replica, log": lambda s: np.log(np.maximum(s["slowest"], 1e-9)),
    "INT8 can be had": _as_is("int8"),
    "backlog, minutes": _drain_min,
    "variation of batch times": _as_is("variation"),
    "age, ten minutes": _as_is("age_s", 600.0),
    "burstiness, log": lambda s: np.log(np.maximum(s["cv2"], 1e-9)) / 2.0,
    "batch was tried": _as_is("tried_batch_size"),
    "replicas were tried": _as_is("tried_replicas"),
    "INT8 was tried": _as_is("tried_precision"),
}

FEATURES = tuple(_TABLE)
"""In the order of a policy's inputs. A file of weights names them, so that another list refuses it."""

CLIP = 3.0
"""What lies further out is cut: nothing that was trained reaches beyond."""


def vector(seen: Seen) -> FloatArray:
    """Shape (n, features), finite, within CLIP of 0."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        columns = [np.broadcast_to(feature(seen), seen["limit_ms"].shape) for feature in _TABLE.values()]
    values = np.stack(columns, axis=1)
    return np.clip(np.where(np.isfinite(values), values, 0.0), -CLIP, CLIP)
