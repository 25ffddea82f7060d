"""A jump against the last hour, in units of the jumps that the series makes anyway."""

from __future__ import annotations

from detection.methods import Band, View
from detection.panel import Floats


class Jump(Band):
    """Sees onsets that are small against a day's swing; forgets them after an hour."""

    name = "jump"

    def band(self, view: View) -> tuple[Floats, Floats]:
        """The level of the last hour and four usual jumps."""
        return view.hour, 4 * view.column("jump_scale")
