"""The features of the joint detectors: each signal against its own clock-time normal, and against its last hour."""

from __future__ import annotations

import numpy as np

from detection.model import FloatArray
from detection.panel import Floats
from detection.series import Arrays, at_slots, last_hour

CLIP = 30.0
FREE_JUMP, JUMP_PER_Z = 2.0, 3.0
"""A jump counts as far as it leads away from normal: a return to normal after an incident is none."""


def features(
    x: Floats, times: FloatArray, step_s: float, stats: Arrays, first: int = 0, hour: Floats | None = None
) -> Floats:
    """Robust z against the clock-time normal and z of the jump against the last hour, clipped at +-30.

    A jump is also clipped to 2, plus 3 |z| where it leads away from normal: what falls back to normal after an
    incident, or moves within it, is no news however fast it does so.

    x: (services, signals, T), compressed. Returns (services, T - first, 2 * signals); what is unknown is 0 (normal),
    so that one missing signal does not silence the others.
    """
    services, signals, points = x.shape
    flat = x.reshape(services * signals, points)
    center = at_slots(stats["clock_center"], times[first:], step_s)
    scale = at_slots(stats["clock_scale"], times[first:], step_s)
    z = (flat[:, first:] - center) / scale
    hour = last_hour(flat, step_s) if hour is None else hour
    jump = (flat - hour)[:, first:] / stats["jump_scale"][:, None]
    limit = FREE_JUMP + np.where(np.sign(jump) == np.sign(z), JUMP_PER_Z * np.abs(z), 0)
    jump = np.clip(jump, -limit, limit)
    both = np.concatenate([z.reshape(services, signals, -1), jump.reshape(services, signals, -1)], axis=1)
    out: Floats = np.clip(np.nan_to_num(both), -CLIP, CLIP).transpose(0, 2, 1).astype(np.float32)
    return out
