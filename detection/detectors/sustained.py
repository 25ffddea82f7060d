"""The level of the last hour against what the time of the week is used to: sees what lasts, not what flickers."""

from __future__ import annotations

import numpy as np

from detection.methods import Band, View
from detection.panel import Floats
from detection.series import at_slots, last_hour


class Sustained(Band):
    """Four usual deviations of an hour's level; silent where no habit of the week is known.

    A level in the middle of the week's range can be wrong for a Wednesday: the static bands do not see it, and the jump
    against the last hour is over after an hour. A few days are too few to trust the clock that far, so it waits for the
    weeks (detection.weekly).
    """

    name = "sustained"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """The value less the last hour's deviation from the clock-time centre, and four of its usual deviations."""
        center = np.full(view.now.shape, np.nan, np.float32)
        rows = np.flatnonzero(np.isfinite(view.stats["hour_scale"]))
        if rows.size:
            rest = view.x[rows] - at_slots(view.stats["clock_center"][rows], view.times, view.step_s)
            center[rows] = view.now[rows] - last_hour(rest, view.step_s)[:, view.first :]
        return center, 4 * view.column("hour_scale")
